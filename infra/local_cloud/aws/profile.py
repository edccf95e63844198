"""AWS on loopback, as it is set up."""

import json
from typing import Final

from infra.local_cloud.profile import LocalProfile

_KEY: Final = ("access_key_id", "secret_access_key")

LOCAL: Final = LocalProfile(
    port=8382,
    new_account={},
    credential=lambda answer: json.dumps({name: answer[name] for name in _KEY}),
    settings=lambda url: {"aws_sts_url": url, "aws_endpoint_url": url},
)
