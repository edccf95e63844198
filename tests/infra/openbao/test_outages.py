"""A server that is down, sealed, or has forgotten our login."""

import time
from pathlib import Path

import pytest

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from infra.openbao.client import OpenBao
from infra.openbao.signing import ApiOpenBao
from tests.infra.openbao.own_server import SEALED, own_server
from tests.servers import Servers

# The last of the ports that the session claimed: no cluster of a test gets there.
LAST_PORTS = 8 * 99

FAILS_WITHIN_SECONDS = 5.0


def test_an_outage_is_typed_and_the_same_clients_go_on_afterwards(
    servers: Servers, cluster: HostedControlPlane, tmp_path: Path
) -> None:
    port = servers.control_planes.first_port + LAST_PORTS
    with own_server(tmp_path / "openbao", port) as server:
        server.start()
        openbao, api = OpenBao(server.settings("worker")), ApiOpenBao(server.settings("api"))
        openbao.ensure_secret_space(cluster.workspace_id)
        openbao.ensure_authorities(cluster)
        api.check()
        keys = openbao.keys_of(cluster)

        server.stop()
        _is_unavailable(openbao, api, cluster)

        # With another key it cannot open its store, and waits, sealed, for the right one.
        seal_key = server.directory / "seal.key"
        right = seal_key.read_bytes()
        seal_key.write_bytes(bytes(len(right)))
        server.start(until=SEALED)
        _is_unavailable(openbao, api, cluster)
        server.stop()

        seal_key.write_bytes(right)
        server.start()
        assert openbao.keys_of(cluster) == keys
        api.check()
        server.stop()

        # Tokens of the old store mean nothing to a new one: both log in again by themselves.
        server.wipe()
        server.start()
        openbao.ensure_secret_space(cluster.workspace_id)
        openbao.ensure_authorities(cluster)
        api.check()
        assert openbao.keys_of(cluster) != keys
        openbao.close()
        api.close()


def test_the_environment_decides_nothing(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "VAULT_TOKEN": "planted",
        "VAULT_ADDR": "http://127.0.0.1:9",
        "VAULT_NAMESPACE": "elsewhere",
        "REQUESTS_CA_BUNDLE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    api = ApiOpenBao(servers.openbao("api"))
    api.check()
    api.close()


def _is_unavailable(openbao: OpenBao, api: ApiOpenBao, cluster: HostedControlPlane) -> None:
    begun = time.monotonic()
    for ask in (lambda: openbao.keys_of(cluster), api.check):
        with pytest.raises(BulkheadError) as failed:
            ask()
        assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert failed.value.retryable
        assert failed.value.metadata["dependency"] == "openbao"
    assert time.monotonic() - begun < FAILS_WITHIN_SECONDS
