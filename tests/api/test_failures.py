"""What happens when something else fails: a dependency, or this program itself."""

import logging

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.main import open_clients
from infra.settings import ApiProcessSettings, DatabaseSettings, OpenBaoSettings, TemporalSettings
from tests.api import contract
from tests.api.gate import NAMESPACE, Gate, Person

CANARY = "canary-91c2"

# Nothing listens there.
NOWHERE = 1


def without(
    gate: Gate,
    *,
    database: bool = False,
    temporal: bool = False,
    openbao: bool = False,
) -> ApiProcessSettings:
    """Return the settings of a process that cannot reach these parts."""
    changes: dict[str, DatabaseSettings | TemporalSettings | OpenBaoSettings] = {}
    if database:
        changes["database"] = gate.settings.database.model_copy(update={"port": NOWHERE})
    if temporal:
        address = {"address": f"127.0.0.1:{NOWHERE}"}
        changes["temporal"] = gate.settings.temporal.model_copy(update=address)
    if openbao:
        address = {"address": f"http://127.0.0.1:{NOWHERE}"}
        changes["openbao"] = gate.settings.openbao.model_copy(update=address)
    return gate.settings.model_copy(update=changes)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://bulkhead.test")


async def call(
    settings: ApiProcessSettings, person: Person, method: str, path: str, body: object = None
) -> httpx.Response:
    async with open_clients(settings) as clients:
        app = create_app(clients, settings.api, temporal_namespace=NAMESPACE)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://bulkhead.test"
        ) as client:
            caller = Person(person.user_id, person.workspace, person.token, client)
            return await caller.call(method, path, json=body)


async def test_without_the_database_every_request_says_so(gate: Gate) -> None:
    person = gate.new_person()
    settings = without(gate, database=True)
    for path in ("/v1/clusters", "/readyz"):
        answer = await call(settings, person, "GET", path)
        assert answer.status_code == 503
        assert contract.differences(answer.json(), contract.ERROR) == []
        assert answer.json()["errors"][0]["metadata"]["dependency"] == "postgresql"
        assert int(answer.headers["retry-after"]) > 0
    assert (await call(settings, person, "GET", "/healthz")).status_code == 200


async def test_without_temporal_work_is_accepted_and_waits(gate: Gate) -> None:
    person = gate.new_person()
    region = await gate.new_region(person)
    settings = without(gate, temporal=True)
    body = {"name": "x", "region_id": region}
    answer = await call(settings, person, "POST", "/v1/clusters", body)
    assert answer.status_code == 202
    row = await gate.operation(person, answer.json()["id"])
    assert (row.state, row.workflow_started_at) == ("RUNNING", None)
    cancelled = await call(settings, person, "POST", f"/v1/operations/{answer.json()['id']}:cancel")
    assert cancelled.status_code == 202
    assert (await call(settings, person, "GET", "/readyz")).status_code == 503


async def test_without_openbao_only_kubeconfigs_fail(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    settings = without(gate, openbao=True)
    path = f"/v1/clusters/{cluster['id']}"
    assert (await call(settings, person, "GET", path)).json() == cluster
    answer = await call(settings, person, "GET", f"{path}/kubeconfig")
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["metadata"]["reason"] == "DEPENDENCY_UNAVAILABLE"
    # The attempt is in the log all the same: it might have been answered.
    assert ("cluster.kubeconfig", "allowed", cluster["id"]) in gate.audit(person.workspace)


async def test_a_defect_is_logged_without_what_was_sent_and_answered_without_details(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(gate.clients, gate.settings.api, temporal_namespace=NAMESPACE)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(CANARY)

    async with client_of(app) as client:
        with caplog.at_level(logging.INFO):
            answer = await client.get("/broken")
    assert answer.status_code == 500
    assert contract.differences(answer.json(), contract.ERROR) == []
    assert answer.headers["x-request-id"].startswith("req_")
    assert CANARY not in answer.text
    assert CANARY not in caplog.text
