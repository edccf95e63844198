import secrets

import requests

from domain.cloud import Place, Provider
from domain.secret import SecretValue
from infra.settings import ProviderSettings


class HetznerCase:
    provider = Provider.HCLOUD
    place = Place(name="fsn1", region="eu-central")
    instance_type = "cx23"
    image = "ubuntu-24.04"
    creates_server = "POST /v1/servers$"
    creates_network = "POST /v1/networks$"
    finishes_server = "actions/attach_to_network$"

    def settings(self, url: str) -> ProviderSettings:
        return ProviderSettings(hcloud_url=f"{url}/v1")

    def credential(self, url: str) -> SecretValue:
        return self._token(url, read_only=False)

    def weak_credential(self, url: str) -> SecretValue:
        return self._token(url, read_only=True)

    def revoke(self, url: str, credential: SecretValue) -> None:
        body = {"token": credential.text()}
        requests.delete(f"{url}/_accounts", json=body, timeout=10).raise_for_status()

    def secrets_of(self, credential: SecretValue) -> list[str]:
        return [credential.text()]

    def _token(self, url: str, *, read_only: bool) -> SecretValue:
        body: dict[str, str | bool] = {"project": secrets.token_hex(8), "read_only": read_only}
        answer = requests.post(f"{url}/_accounts", json=body, timeout=10)
        return SecretValue(answer.json()["token"].encode())


CASE = HetznerCase()
