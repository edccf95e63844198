"""API servers that answer with failures, slowly, or under a certificate that has ended."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.helm.program import ClusterAccess, Helm
from infra.helm.release_chart import release_chart
from infra.helm.releases import Release
from infra.installs.planner import Wanted, make_plan
from infra.kubernetes.client import KubernetesClient
from infra.kubernetes.logins import Login
from infra.tools import ensure
from tests.infra.https_server import HttpsServer, Response, https_server

_CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "config", "namespace": "here"},
    "data": {"greeting": "hello"},
}
_SECONDS = 1.0


def _login_of(server: HttpsServer) -> Login:
    pem = server.authority
    return Login(pem.ca, pem.certificate.encode(), pem.key.encode())


def _client_of(server: HttpsServer, seconds: float = 60) -> KubernetesClient:
    login = _login_of(server)
    return KubernetesClient(server.url, lambda: login, timeout_seconds=seconds)


def _fails(server: HttpsServer) -> None:
    server.answer = lambda _: Response(503, b'{"kind": "Status", "message": "etcd is away"}')


def _is_slow(server: HttpsServer) -> None:
    def answer(_: object) -> Response:
        time.sleep(2 * _SECONDS)
        return Response()

    server.answer = answer


def _is_itself(_: HttpsServer) -> None:
    """Its certificate has ended, and nobody comes to hear what it answers."""


@pytest.mark.parametrize("status", [403, 422, 429, 500, 503])
def test_what_refuses_a_secret_and_quotes_it_is_not_repeated(status: int) -> None:
    said = {"kind": "Status", "message": "admission webhook denied: hunter2"}
    path = "/api/v1/namespaces/here/secrets"
    with https_server() as server, _client_of(server) as client:
        server.answer = lambda _: Response(status, json.dumps(said).encode())
        attempts: list[Callable[[], object]] = [
            lambda: client.apply(f"{path}/login", {"kind": "Secret"}, dry_run=True),
            lambda: client.create(path, {"kind": "Secret"}),
            lambda: client.get(f"{path}/login"),
        ]
        for attempt in attempts:
            with pytest.raises(BulkheadError) as refused:
                attempt()
            assert refused.value.metadata["status"] == str(status)
            assert "hunter2" not in f"{refused.value.message} {refused.value.metadata}"
        with pytest.raises(BulkheadError, match="hunter2"):
            client.create("/api/v1/namespaces/here/configmaps", {"kind": "ConfigMap"})


@pytest.mark.parametrize(
    ("behave", "lasts"),
    [
        (_fails, timedelta(days=1)),
        (_is_slow, timedelta(days=1)),
        (_is_itself, timedelta(minutes=-1)),
    ],
)
async def test_an_api_server_that_is_not_well_is_asked_again(
    behave: Callable[[HttpsServer], None], lasts: timedelta
) -> None:
    wanted = Wanted(namespaced=[_CONFIG], cluster=[], before=[], release_bytes=0)
    with https_server(lasts=lasts) as server:
        behave(server)
        with _client_of(server, _SECONDS) as client, pytest.raises(BulkheadError) as planned:
            make_plan(client, new_id(Prefix.INSTALL), wanted)
        helm = Helm(ensure(["helm"])["helm"])
        chart = release_chart("web", "1.0.0", "", [_CONFIG])
        with pytest.raises(BulkheadError) as applied:
            await helm.upgrade(
                chart,
                Release("web", "here"),
                ClusterAccess(server.url, _login_of(server)),
                seconds=_SECONDS,
            )
    assert planned.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert planned.value.retryable
    assert applied.value.retryable
