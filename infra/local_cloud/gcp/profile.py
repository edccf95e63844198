"""Google Cloud on loopback, as it is set up."""

import json
from typing import Final

from infra.local_cloud.profile import LocalProfile

LOCAL: Final = LocalProfile(
    port=8383,
    new_account={"project": "bulkhead-local"},
    credential=json.dumps,
    settings=lambda url: {
        "gcp_token_url": f"{url}/token",
        "gcp_compute_url": url,
        "gcp_iam_url": url,
        "gcp_resource_manager_url": url,
        "gcp_billing_url": url,
    },
)
