"""Hetzner Cloud on loopback, as it is set up."""

from typing import Final

from infra.local_cloud.profile import LocalProfile

LOCAL: Final = LocalProfile(
    port=8381,
    new_account={"project": "bulkhead"},
    credential=lambda answer: str(answer["token"]),
    settings=lambda url: {"hcloud_url": f"{url}/v1"},
)
