"""Limits, what was found in accounts, and what a provider is asked while a request waits."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import httpx
import pytest
from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from domain.caller import Caller, PrincipalKind
from domain.cloud import Allowance, InstanceType
from domain.compute import DriftRequest, PlaceOffer, PreflightRequest, PreflightResult
from domain.identifiers import Prefix, new_id
from domain.names import CONTROL_TASK_QUEUE
from infra.temporal import waits
from tests.api import contract
from tests.api.compute import Compute, config_body, new_compute
from tests.api.gate import Gate, a_key
from tests.api.keeper import error_of, ok


@pytest.fixture(scope="module")
async def compute(gate: Gate) -> Compute:
    return await new_compute(gate)


def _check_is_person(caller: Caller | None) -> None:
    """See that the credential would be read for whoever asked."""
    if caller is None or caller.kind is PrincipalKind.SYSTEM:
        message = "nobody asked"
        raise ApplicationError(message, type="INTERNAL", non_retryable=True)


@workflow.defn(name="PreflightMachines", sandboxed=False)
class Preflight:
    """Answers as a provider that has one size in Falkenstein, and refuses credentials elsewhere."""

    @workflow.run
    async def run(self, request: PreflightRequest) -> PreflightResult:
        _check_is_person(request.caller)
        if request.places == ["ash"]:
            message = "The provider does not accept the credential."
            raise ApplicationError(
                message,
                {"path": [], "metadata": {"missing": "server:create"}},
                type="CREDENTIAL_REJECTED",
                non_retryable=True,
            )
        size = InstanceType(
            name="cpx22",
            architecture="amd64",
            cpu=2,
            memory_mib=4096,
            storage_mib=81920,
            available=True,
            price_per_hour=0.0096,
            currency="EUR",
        )
        arm = dataclasses.replace(size, name="cax11", architecture="arm64")
        unpriced = dataclasses.replace(
            size, name="cpx32", price_per_hour=None, currency=None, price_unknown="It is closed."
        )
        offers = [
            PlaceOffer(
                place=place,
                instance_types=[size, arm, unpriced] if place == "fsn1" else [],
                allowance=Allowance(machines_left=7),
            )
            for place in request.places
        ]
        return PreflightResult(places=offers)


@workflow.defn(name="DetectMachineDrift", sandboxed=False)
class Drift:
    """Ends; the test has written its report."""

    @workflow.run
    async def run(self, request: DriftRequest) -> None:
        _check_is_person(request.caller)


@contextlib.asynccontextmanager
async def answering(gate: Gate) -> AsyncIterator[None]:
    """Have somebody run the two workflows; those of operations wait meanwhile."""
    client = await gate.clients.temporal.client()
    async with Worker(client, task_queue=CONTROL_TASK_QUEUE, workflows=[Preflight, Drift]):
        yield


async def test_the_limits_of_a_cluster_are_read_and_changed(gate: Gate, compute: Compute) -> None:
    cluster = await gate.new_active_cluster(compute.person)
    path = f"/v1/clusters/{cluster['id']}/compute_settings"
    first = ok(await compute.person.get(path))
    assert (first["max_machines"], first["auto_scaling"], first["etag"]) == (10, "paused", "0")

    async def change(etag: str, **body: object) -> httpx.Response:
        headers = {"if-match": etag}
        return await compute.person.call("PATCH", path, json=body, headers=headers)

    changed = ok(await change("0", max_machines=0))
    assert (changed["max_machines"], changed["machines"], changed["etag"]) == (0, 0, "1")
    error_of(await change("0", max_machines=5), 409, "ABORTED")
    changed = ok(await change("1", auto_scaling_enabled=True))
    assert (changed["max_machines"], changed["auto_scaling"]) == (0, "active")
    for body in ({}, {"max_machines": 101}, {"max_machines": None}):
        error_of(await change("2", **body), 422, "INVALID_ARGUMENT")
    assert ok(await compute.person.get(path)) == changed


async def test_the_last_look_into_the_account_is_shown(compute: Compute) -> None:
    machine = await compute.ready_machine()
    asked = ok(await compute.call(machine, "DELETE"), 202)
    path = f"/v1/machines/{machine['id']}/inventory"
    assert ok(await compute.person.get(path))["left"] is None
    for left in (1, 0):
        compute.run(
            "INSERT INTO inventories (workspace_id, id, operation_id, machine_id, provider,"
            " \"left\", resources) VALUES (%s, %s, %s, %s, 'hcloud', %s, '[]')",
            compute.person.workspace,
            new_id(Prefix.INVENTORY),
            asked["id"],
            machine["id"],
            left,
        )
    compute.run("DELETE FROM machines WHERE id = %s", machine["id"])
    # The proof outlives what it is about.
    inventory = ok(await compute.person.get(path))
    assert (inventory["left"], inventory["operation_id"]) == (0, asked["id"])
    operation = ok(await compute.person.get(f"/v1/operations/{asked['id']}"))
    assert operation["inventory"] == inventory
    error_of(await compute.gate.new_person().get(path), 404)


async def test_leaks_are_listed_until_they_are_resolved(gate: Gate) -> None:
    compute = await new_compute(gate)
    ids = [new_id(Prefix.LEAK) for _ in range(3)]
    for number, leak in enumerate(ids):
        compute.run(
            "INSERT INTO leaks (workspace_id, id, compute_config_id, provider, kind, cloud_id,"
            " name, place, attempts, resolved_at) VALUES (%s, %s, %s, 'hcloud', 'server', %s, 'n',"
            " 'fsn1', 2, CASE WHEN %s THEN now() END)",
            compute.person.workspace,
            leak,
            compute.config["id"],
            str(number),
            number == 0,
        )

    async def listed(**query: object) -> list[str]:
        found = ok(await compute.person.get("/v1/leaks", params=query))
        return [each["id"] for each in found["data"]]

    assert await listed() == [ids[2], ids[1]]
    assert await listed(state="resolved") == [ids[0]]
    page = ok(await compute.person.get("/v1/leaks", params={"state": "all", "limit": 2}))
    assert page["has_more"]
    assert await listed(state="all", cursor=page["next_cursor"]) == [ids[0]]
    error_of(await compute.person.get("/v1/leaks", params={"state": "old"}), 400)
    etag = {"if-match": compute.config["etag"]}
    path = f"/v1/compute_configs/{compute.config['id']}"
    error = error_of(await compute.person.call("DELETE", path, headers=etag), 409)
    assert error["metadata"]["leak_ids"] == ",".join(ids[1:])
    # Nor does the credential go, without which nobody could remove them.
    await compute.keeper.set_policy(force_allowed=True)
    error_of(await compute.keeper.delete(compute.secret, "?force=true"), 409)
    compute.run("UPDATE leaks SET resolved_at = now() WHERE id = ANY(%s)", ids)
    gone = await compute.keeper.delete(compute.secret, "?force=true")
    assert gone.status_code == 204


async def test_a_provider_is_asked_before_machines_are_made(gate: Gate) -> None:
    compute = await new_compute(gate)
    person, path = compute.person, f"/v1/compute_configs/{compute.config['id']}"
    body = {"instance_type": "cpx22", "count": 2, "fallbacks": [{"region": "nbg1"}]}
    async with answering(gate):
        answer = ok(await person.post(f"{path}:preflight", body))
        assert answer["allowance"] == {"machines_left": 7, "cpus_left": None}
        assert [(each["place"], each["available"]) for each in answer["choices"]] == [
            ("fsn1", True),
            ("nbg1", False),
        ]
        assert answer["choices"][0]["price_per_hour"] == 0.0096
        # There are programs for servers of the one kind of processor alone.
        arm = error_of(await person.post(f"{path}:preflight", {"instance_type": "cax11"}), 409)
        assert "linux/arm64" in arm["message"]
        answer = ok(await person.post(f"{path}:preflight", {"instance_type": "cpx32"}))
        assert answer["choices"][0]["price_per_hour"] is None
        assert answer["choices"][0]["price_unknown"] == "It is closed."
        [size, *_] = ok(await person.get(f"{path}/instance_types"))["data"]
        assert (size["name"], size["arch"], size["currency"]) == ("cpx22", "amd64", "EUR")
        config = {"provider_config": {"region": "ash"}}
        etag = {"if-match": ok(await person.get(path))["etag"]}
        ok(await person.call("PATCH", path, json=config, headers=etag))
        error = error_of(await person.get(f"{path}/instance_types"), 422, "CREDENTIAL_REJECTED")
        assert error["metadata"]["missing"] == "server:create"
    error_of(await person.post(f"{path}:preflight", {"instance_type": ""}), 422)
    error_of(await gate.new_person().get(f"{path}/instance_types"), 404)


async def test_a_request_does_not_wait_for_a_provider_for_ever(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "_PREFLIGHT_SECONDS", 0.3)
    monkeypatch.setattr(waits, "_DRIFT_SECONDS", 0.3)
    machine = await compute.ready_machine()
    types = f"/v1/compute_configs/{compute.config['id']}/instance_types"
    drift = f"/v1/machines/{machine['id']}/drift_reports"
    answers = await asyncio.gather(compute.person.get(types), compute.person.post(drift, {}))
    for answer in answers:
        error_of(answer, 504, "DEADLINE_EXCEEDED")


async def test_a_drift_report_is_made_once_for_a_key(gate: Gate, compute: Compute) -> None:
    machine = await compute.ready_machine()
    path = f"/v1/machines/{machine['id']}/drift_reports"
    key = a_key()
    headers = {"idempotency-key": key}
    async with answering(gate):
        error_of(await compute.person.post(path, {}, headers=headers), 409, "ABORTED")
        with gate.administrator() as connection:
            [bound] = connection.execute(
                "SELECT answer ->> 'report_id' FROM idempotency_keys WHERE key = %s", (key,)
            ).fetchone() or [None]
        compute.run(
            "INSERT INTO drift_reports (workspace_id, id, machine_id, state, trigger, delta,"
            " provider_snapshot, version, expires_at) VALUES (%s, %s, %s, 'drifted', 'manual',"
            ' \'{"server": {}}\', \'{"provider": "hcloud", "raw_attrs": {"id": 42}}\', 1, now())',
            compute.person.workspace,
            bound,
            machine["id"],
        )
        report = ok(await compute.person.post(path, {}, headers=headers), 201)
    assert contract.differences(report, contract.DRIFT_REPORT) == []
    assert ok(await compute.person.post(path, {}, headers=headers), 201) == report
    other = await compute.person.post(path, {"trigger": "other"}, headers=headers)
    error_of(other, 409, "CONFLICT")
    assert ok(await compute.person.get(path, params={"state": "drifted"}))["data"] == [report]
    assert ok(await compute.person.get(path, params={"state": "in_sync"}))["data"] == []
    assert ok(await compute.person.get(f"{path}/{report['id']}")) == report
    error_of(await compute.person.get(f"{path}/dft_{'0' * 32}"), 404)


async def test_a_cluster_has_a_limit_of_machines_beside_its_workspaces(gate: Gate) -> None:
    compute = await new_compute(gate)
    person, cluster = compute.person, compute.cluster["id"]
    await compute.new_machine()
    path = f"/v1/clusters/{cluster}/compute_settings"
    headers = {"if-match": ok(await person.get(path))["etag"]}
    ok(await person.call("PATCH", path, json={"max_machines": 3}, headers=headers))
    whole = ok(await person.get("/v1/quotas"))["data"]
    assert {quota["scope"] for quota in whole} == {"workspace"}
    of_cluster = ok(await person.get("/v1/quotas", params={"cluster_id": cluster}))["data"]
    assert of_cluster[:-1] == whole
    own = of_cluster[-1]
    assert (own["metric"], own["scope"], own["limit"]) == ("compute/machines", "cluster", 3)
    machines = ok(await person.get(path))["machines"]
    assert (own["usage"], own["remaining"]) == (machines, 3 - machines)


async def test_a_workspace_has_no_more_compute_configs_than_its_quota(gate: Gate) -> None:
    compute = await new_compute(gate)
    gate.set_quota(compute.person.workspace, "compute/compute_configs", 2)
    bodies = [config_body(compute.secret, name=f"more-{number}") for number in range(3)]
    asked = [await compute.person.post("/v1/compute_configs", body) for body in bodies]
    assert [answer.status_code for answer in asked] == [201, 403, 403]
    error_of(asked[-1], 403, "QUOTA_EXCEEDED")
