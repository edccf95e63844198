"""What runs the server: brings its setup up to date, saves it, puts it back."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue, VersionPlace
from infra.openbao import server as server_module
from infra.openbao import setup
from infra.openbao.answers import read, write
from infra.openbao.client import OpenBao
from infra.openbao.operator import Operator
from infra.openbao.policies import API, OPERATOR, PAYLOAD_KEY, TRANSIT_MOUNT
from infra.openbao.session import OpenBaoSession
from infra.openbao.setup import SetupRequest, setup_requests
from tests.infra.openbao.own_server import OpenBaoServer, own_server
from tests.servers import Servers

# Of the ports that the session claimed no cluster of a test gets to the last.
LAST_PORTS = 8 * 98

# What the issue promises, from a kill -9 to the first answer.
READY_SECONDS = 5.0


@pytest.fixture
def server(servers: Servers, tmp_path: Path) -> Iterator[OpenBaoServer]:
    port = servers.control_planes.first_port + LAST_PORTS
    with own_server(tmp_path / "openbao", port) as server:
        yield server


def operator_of(server: OpenBaoServer) -> Operator:
    return Operator(server.settings(OPERATOR))


def a_data_key(server: OpenBaoServer) -> str:
    session = OpenBaoSession(server.settings(API), API)
    path = f"{TRANSIT_MOUNT}/datakey/plaintext/{PAYLOAD_KEY}"
    try:
        return str(
            session.call("make a data key", lambda client: write(client, path, {}))["ciphertext"]
        )
    finally:
        session.close()


def test_an_older_store_gets_what_a_newer_version_needs_and_keeps_the_rest(
    server: OpenBaoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(directory: Path) -> list[SetupRequest]:
        newer = ("transit-mount", "payload-key", "audit-id", "api-policy", "platform-role")
        return [
            *(request for request in setup_requests(directory) if request.name not in newer),
            SetupRequest("api-policy", "sys/policies/acl/api", {"policy": 'path "nothing" {}'}),
            SetupRequest("platform-role", "pki/platform/roles/api-server", {"max_ttl": "1h"}),
        ]

    with monkeypatch.context() as earlier:
        earlier.setattr(server_module, "setup_requests", older)
        server.start()
    with pytest.raises(BulkheadError):
        a_data_key(server)
    url = f"{server.settings(API).address}/v1/pki/platform/ca/pem"
    authority = httpx.get(url, trust_env=False).text

    operator = operator_of(server)
    for _ in range(2):
        operator.ensure_set_up(server.directory)
    operator.close()

    assert a_data_key(server).startswith("vault:")
    headers = {"X-Bulkhead-Audit-Id": "aud_of_this_test"}
    assert httpx.get(url, headers=headers, trust_env=False).text == authority
    assert '"aud_of_this_test"' in (server.directory / "audit-1" / "audit.log").read_text()


def test_a_store_that_does_not_know_the_operator_says_what_to_do(
    server: OpenBaoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(setup, "ROOT_LOGINS", setup.ROOT_LOGINS[1:])
        server.start()
    operator = operator_of(server)
    with pytest.raises(BulkheadError, match="make purge") as caught:
        operator.ensure_set_up(server.directory)
    operator.close()
    assert caught.value.reason is Reason.FAILED_PRECONDITION
    assert not caught.value.retryable


def test_a_server_that_is_away_is_told_apart_from_one_that_refuses(server: OpenBaoServer) -> None:
    server.start()
    server.stop()
    operator = operator_of(server)
    with pytest.raises(BulkheadError) as caught:
        operator.rotate_root_key()
    operator.close()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_the_operator_reads_no_value(servers: Servers, openbao: OpenBao) -> None:
    place = VersionPlace(
        workspace_id=new_id(Prefix.WORKSPACE),
        secret_id=new_id(Prefix.SECRET),
        version_id=new_id(Prefix.SECRET_VERSION),
    )
    openbao.ensure_secret_space(place.workspace_id)
    openbao.values.write(place, SecretValue(b"not for operators"))
    namespace = f"ws-{place.workspace_id.partition('_')[2]}"
    session = OpenBaoSession(servers.openbao(OPERATOR), OPERATOR)
    secret, version = (name.partition("_")[2] for name in (place.secret_id, place.version_id))
    for path, within in (
        (f"secrets/data/{secret}/{version}", namespace),
        (f"{namespace}/secrets/data/{secret}/{version}", None),
    ):
        with pytest.raises(BulkheadError) as caught:
            session.call("try", partial(read, path=path), namespace=within)
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    session.close()


def test_a_snapshot_of_another_seal_key_is_refused_and_changes_nothing(
    server: OpenBaoServer, tmp_path: Path
) -> None:
    server.start()
    snapshot = tmp_path / "snapshot"
    operator = operator_of(server)
    operator.save_snapshot(snapshot)
    server.stop()
    server.wipe()
    (server.directory / "seal.key").unlink()
    server.start()
    data_key = a_data_key(server)

    with pytest.raises(BulkheadError):
        operator.restore_snapshot(snapshot)

    operator.close()
    session = OpenBaoSession(server.settings(API), API)
    opened = session.call(
        "open a data key",
        lambda client: write(
            client, f"{TRANSIT_MOUNT}/decrypt/{PAYLOAD_KEY}", {"ciphertext": data_key}
        ),
    )
    session.close()
    assert opened["plaintext"]


def test_after_a_kill_it_is_ready_again_within_the_promised_time(server: OpenBaoServer) -> None:
    server.start()
    data_key = a_data_key(server)
    for _ in range(3):
        server.stop()
        begun = time.monotonic()
        server.start()
        assert a_data_key(server) != data_key
        assert time.monotonic() - begun < READY_SECONDS
