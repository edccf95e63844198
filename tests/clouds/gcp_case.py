import json
import secrets

import requests

from domain.cloud import Place, Provider
from domain.secret import SecretValue
from infra.clouds.gcp.permissions import PERMISSIONS
from infra.settings import ProviderSettings


class GcpCase:
    provider = Provider.GCP
    place = Place(name="europe-west3-a", region="europe-west3")
    instance_type = "e2-standard-2"
    image = "ubuntu-24.04"
    creates_server = "POST /compute/v1/projects/[^/]+/zones/[^/]+/instances$"
    creates_network = "POST /compute/v1/projects/[^/]+/global/networks$"
    # What the provider's program reads when the operation is over, before it says so.
    finishes_server = "GET /compute/v1/projects/[^/]+/zones/[^/]+/instances/[^/]+$"

    def settings(self, url: str) -> ProviderSettings:
        return ProviderSettings(
            gcp_token_url=f"{url}/token",
            gcp_compute_url=url,
            gcp_iam_url=url,
            gcp_resource_manager_url=url,
            gcp_billing_url=url,
        )

    def credential(self, url: str) -> SecretValue:
        # Exactly the manual's role: the suite proves that it is enough.
        return self._key(url, list(PERMISSIONS))

    def weak_credential(self, url: str) -> SecretValue:
        looking = [one for one in PERMISSIONS if one.endswith((".get", ".list"))]
        return self._key(url, looking)

    def revoke(self, url: str, credential: SecretValue) -> None:
        requests.delete(f"{url}/_accounts", data=credential.data, timeout=10).raise_for_status()

    def secrets_of(self, credential: SecretValue) -> list[str]:
        lines = json.loads(credential.data)["private_key"].splitlines()
        return [lines[3], "ya29."]

    def _key(self, url: str, permissions: list[str]) -> SecretValue:
        body = {"project": f"acme-{secrets.token_hex(6)}", "permissions": permissions}
        answer = requests.post(f"{url}/_accounts", json=body, timeout=30)
        answer.raise_for_status()
        return SecretValue(answer.content)


CASE = GcpCase()
