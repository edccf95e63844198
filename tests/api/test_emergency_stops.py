"""Emergency stops: who may stop what, and which operations each scope holds."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from domain.caller import PrincipalKind, Role
from domain.cloud import Provider
from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.machine import MachineHealth, MachineKind
from domain.operation import UNDO_PREFIX, Step
from domain.repair_budget import Standing
from infra.database.engine import Database, DatabaseRole
from infra.database.queries.emergency_stop import stop_of_account, stop_of_install, stop_of_product
from infra.database.records.operation import request_cancellation
from infra.database.records.steps import Decision, StepAttempt, StepRecords
from infra.machines.repairs import Repairs
from tests.api.compute import Compute, new_compute
from tests.api.gate import HOST, JSON, Gate, Person, a_key
from tests.api.keeper import error_of, ok

STOPS = "/v1/emergency_stops"


@dataclass(frozen=True)
class Stopping:
    """A customer with a machine in a cloud and an install, and the vendor of its product."""

    gate: Gate
    compute: Compute
    steps: StepRecords
    machine: JSON
    vendor: Person
    product_id: str
    install_id: str

    @property
    def customer(self) -> Person:
        return self.compute.person

    async def decision(self, step: str = Step.CREATE_SERVER) -> Decision:
        """Ask whether a step of the machine's operation may begin, as a worker does."""
        return await self.steps.started(
            StepAttempt(
                workspace_id=self.customer.workspace,
                operation_id=self.machine["active_operation_id"],
                owner_id=self.machine["id"],
                name=step,
                attempt=1,
            )
        )

    async def stop_of_install(self) -> str | None:
        async with self.gate.worker_database.workspace(self.customer.workspace) as session:
            return await stop_of_install(session, self.customer.workspace, self.install_id)

    def install_operation(self, kind: str, caller: str = "user") -> str:
        """Have an operation that works on the install, of a person's or of a rollout's."""
        operation = new_id(Prefix.OPERATION)
        self.compute.run(
            "INSERT INTO operations (workspace_id, id, type, owner_type, owner_id, state, request,"
            " placement, caller, cancellable, version) VALUES (%s, %s, %s, 'install', %s,"
            " 'RUNNING', jsonb_build_object('type', %s::text), jsonb_build_object('cluster_id',"
            " %s::text), jsonb_build_object('kind', %s::text), true, 1)",
            self.customer.workspace,
            operation,
            kind,
            self.install_id,
            kind,
            self.compute.cluster["id"],
            caller,
        )
        self._lock_install(operation)
        return operation

    def forget(self, operation: str) -> None:
        """Have an install's operation be gone."""
        self._lock_install(None)
        for table, key in (("operation_steps", "operation_id"), ("operations", "id")):
            self.compute.run(f"DELETE FROM {table} WHERE {key} = %s", operation)  # noqa: S608

    async def decision_of(self, operation: str, *, takes_back: bool = False) -> Decision:
        """Ask whether a step of an install's operation, or its undo, may begin."""
        attempt = StepAttempt(
            workspace_id=self.customer.workspace,
            operation_id=operation,
            owner_id=self.install_id,
            name=f"{UNDO_PREFIX if takes_back else ''}{Step.APPLY_RELEASE}",
            attempt=1,
            takes_back=takes_back,
        )
        return await self.steps.started(attempt)

    def _lock_install(self, operation: str | None) -> None:
        statement = "UPDATE installs SET active_operation_id = %s WHERE id = %s"
        self.compute.run(statement, operation, self.install_id)

    async def operation(self) -> JSON:
        operation_id = self.machine["active_operation_id"]
        return ok(await self.customer.get(f"/v1/operations/{operation_id}"))


async def stop(person: Person, scope: str, subject: str | None = None) -> JSON:
    body = {"scope": scope, "subject": subject, "reason": "it deletes what it should not"}
    return ok(await person.post(STOPS, {k: v for k, v in body.items() if v is not None}), 201)


async def lift(person: Person, stopped: JSON) -> JSON:
    return ok(await person.post(f"{STOPS}/{stopped['id']}:lift"))


@contextlib.asynccontextmanager
async def stop_of(person: Person, scope: str, subject: str | None = None) -> AsyncIterator[JSON]:
    stopped = await stop(person, scope, subject)
    try:
        yield stopped
    finally:
        await lift(person, stopped)


def add_product(gate: Gate, vendor: Person) -> tuple[str, str]:
    package, product = new_id(Prefix.PACKAGE), new_id(Prefix.PRODUCT)
    with gate.administrator() as connection:
        connection.execute(
            "INSERT INTO packages (workspace_id, id, name, source_kind, source_url, chart, version)"
            " VALUES (%s, %s, 'web', 'oci', 'oci://127.0.0.1/web', 'web', 1)",
            (vendor.workspace, package),
        )
        connection.execute(
            "INSERT INTO products (workspace_id, id, package_id, name, version_pin,"
            " marketplace_published, state, version)"
            " VALUES (%s, %s, %s, 'web', '{}', true, 'active', 1)",
            (vendor.workspace, product, package),
        )
    return package, product


def add_install(compute: Compute, vendor: Person, package: str, product: str) -> str:
    install = new_id(Prefix.INSTALL)
    compute.run(
        "INSERT INTO installs (workspace_id, id, cluster_id, region_id, package_workspace_id,"
        ' package_id, product_id, desired_version_id, "values", labels, channel,'
        " automatic_updates_enabled, drift_correction, state, health, sync, version)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, 'pkv_x', '{}', '{}', 'stable', false, false,"
        " 'healthy', 'Healthy', 'Synced', 1)",
        compute.person.workspace,
        install,
        compute.cluster["id"],
        compute.cluster["region_id"],
        vendor.workspace,
        package,
        product,
    )
    return install


@pytest.fixture(scope="module")
async def stopping(gate: Gate) -> AsyncIterator[Stopping]:
    compute = await new_compute(gate)
    vendor = gate.new_person()
    package, product = add_product(gate, vendor)
    steps = StepRecords(gate.settings.database)
    yield Stopping(
        gate,
        compute,
        steps,
        await compute.new_machine(),
        vendor,
        product,
        add_install(compute, vendor, package, product),
    )
    await steps.close()


def as_platform(gate: Gate, person: Person) -> None:
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE workspaces SET workspace_class = 'platform' WHERE id = %s", (person.workspace,)
        )


@pytest.mark.parametrize("scope", ["workspace", "provider", "region", "all"])
async def test_an_operation_in_scope_is_held_until_the_stop_is_lifted(
    stopping: Stopping, scope: str
) -> None:
    person, subject = stopping.customer, None
    if scope == "all":
        person = stopping.gate.new_person()
        as_platform(stopping.gate, person)
    if scope == "provider":
        subject = "hcloud"
    if scope == "region":
        subject = stopping.compute.cluster["region_id"]
    assert await stopping.decision() is Decision.RUN
    async with stop_of(person, scope, subject) as stopped:
        assert await stopping.decision() is Decision.HOLD
        assert await stopping.decision(f"undo_{Step.CREATE_SERVER}") is Decision.HOLD
        assert (await stopping.operation())["waiting_for"] == "emergency_stop"
        assert await stopping.decision(Step.CHECK_CREDENTIAL) is Decision.RUN
        assert await stopping.stop_of_install() == stopped["id"]
    assert await stopping.decision() is Decision.RUN
    assert (await stopping.operation())["waiting_for"] is None
    assert await stopping.stop_of_install() is None


async def test_what_is_of_another_provider_region_or_workspace_goes_on(stopping: Stopping) -> None:
    person = stopping.customer
    other = stopping.gate.new_person()
    elsewhere = await stopping.gate.new_region(person)
    async with (
        stop_of(person, "provider", "aws"),
        stop_of(person, "region", elsewhere),
        stop_of(other, "workspace"),
        stop_of(other, "provider", "hcloud"),
    ):
        assert await stopping.decision() is Decision.RUN
        assert await stopping.stop_of_install() is None


async def test_a_vendor_stops_its_product_in_every_workspace_and_nobody_elses(
    stopping: Stopping,
) -> None:
    async with stop_of(stopping.vendor, "product", stopping.product_id) as stopped:
        assert await stopping.stop_of_install() == stopped["id"]
        assert await stopping.decision() is Decision.RUN
        async with stopping.gate.worker_database.workspace(stopping.vendor.workspace) as session:
            rollout = await stop_of_product(session, stopping.vendor.workspace, stopping.product_id)
        assert rollout == stopped["id"]
    stranger = stopping.gate.new_person()
    refused = await stranger.post(
        STOPS, {"scope": "product", "subject": stopping.product_id, "reason": "no"}
    )
    assert error_of(refused, 404)["path"] == ["body", "subject"]


async def test_whoever_is_held_sees_by_what_and_a_vendors_words_stay_with_it(
    stopping: Stopping,
) -> None:
    customer = stopping.customer
    async with stop_of(customer, "workspace") as own:
        assert await stopping.decision() is Decision.HOLD
        assert (await stopping.operation())["emergency_stop"] == {
            "id": own["id"],
            "by": "workspace",
            "reason": "it deletes what it should not",
        }
    assert await stopping.decision() is Decision.RUN
    assert "emergency_stop" not in await stopping.operation()
    update = stopping.install_operation("install.render")
    async with stop_of(stopping.vendor, "product", stopping.product_id) as vendors:
        assert await stopping.decision_of(update) is Decision.HOLD
        read = ok(await customer.get(f"/v1/operations/{update}"))
        assert read["emergency_stop"] == {"id": vendors["id"], "by": "vendor", "reason": None}
    stopping.forget(update)


@pytest.mark.parametrize("kind", ["install.delete", "install.restore"])
async def test_a_customer_gets_rid_of_what_its_vendor_stopped(
    stopping: Stopping, kind: str
) -> None:
    own = stopping.install_operation(kind)
    async with stop_of(stopping.vendor, "product", stopping.product_id):
        assert await stopping.decision_of(own) is Decision.RUN
        async with stop_of(stopping.customer, "workspace"):
            assert await stopping.decision_of(own) is Decision.HOLD
    stopping.forget(own)
    by_rollout = stopping.install_operation(kind, caller="system")
    async with stop_of(stopping.vendor, "product", stopping.product_id):
        assert await stopping.decision_of(by_rollout) is Decision.HOLD
    stopping.forget(by_rollout)


async def test_a_customer_takes_back_what_it_cancelled_although_its_vendor_stopped_it(
    stopping: Stopping,
) -> None:
    customer, update = stopping.customer, stopping.install_operation("install.render")
    async with stop_of(stopping.vendor, "product", stopping.product_id):
        assert await stopping.decision_of(update, takes_back=True) is Decision.HOLD
        ok(await customer.post(f"/v1/operations/{update}:cancel"), 202)
        assert await stopping.decision_of(update, takes_back=True) is Decision.RUN
        # Until its workflow knows of the cancel.
        assert await stopping.decision_of(update) is Decision.HOLD
        assert "emergency_stop" not in ok(await customer.get(f"/v1/operations/{update}"))
        async with stop_of(customer, "workspace"):
            assert await stopping.decision_of(update, takes_back=True) is Decision.HOLD
    stopping.forget(update)


async def test_what_a_rollout_cancelled_stays_while_its_vendor_stopped_it_until_a_person_cancels_it(
    stopping: Stopping,
) -> None:
    customer = stopping.customer
    update = stopping.install_operation("install.render", caller="system")
    async with stop_of(stopping.vendor, "product", stopping.product_id):
        async with stopping.gate.worker_database.workspace(customer.workspace) as session:
            assert await request_cancellation(session, update, PrincipalKind.SYSTEM)
        assert await stopping.decision_of(update, takes_back=True) is Decision.HOLD
        ok(await customer.post(f"/v1/operations/{update}:cancel"), 202)
        async with stopping.gate.worker_database.workspace(customer.workspace) as session:
            assert await request_cancellation(session, update, PrincipalKind.SYSTEM)
        assert await stopping.decision_of(update, takes_back=True) is Decision.RUN
    stopping.forget(update)


async def test_leaks_are_not_removed_while_a_stop_covers_the_account(stopping: Stopping) -> None:
    person = stopping.customer
    database = stopping.gate.worker_database
    async with stop_of(person, "region", stopping.compute.cluster["region_id"]) as stopped:
        async with database.workspace(person.workspace) as session:
            found = await stop_of_account(session, person.workspace, Provider.HCLOUD)
        assert found == stopped["id"]


async def test_no_repair_is_planned_while_a_stop_covers_the_cluster(stopping: Stopping) -> None:
    person, machine = stopping.customer, await stopping.compute.ready_machine()
    plane = HostedControlPlane(
        workspace_id=person.workspace, cluster_id=machine["cluster_id"], host=HOST, slot=0
    )
    ill = Standing(
        machine_id=machine["id"],
        kind=MachineKind.CLOUD,
        health=MachineHealth.NOT_READY,
        available=True,
        repaired_at=None,
    )
    sweeper = Database(stopping.gate.settings.database, DatabaseRole.SWEEPER)
    repairs = Repairs(stopping.gate.worker_database, sweeper)
    now = datetime.now(UTC)
    async with stop_of(person, "provider", "hcloud"):
        withheld = await repairs.plan(plane, [ill], now)
    planned = await repairs.plan(plane, [ill], now)
    await sweeper.close()
    assert withheld.operations == ()
    assert "emergency stop" in withheld.withheld[machine["id"]]
    assert [one.operation.owner_id for one in planned.operations] == [machine["id"]]


async def test_members_and_ordinary_workspaces_are_refused(gate: Gate) -> None:
    owner = gate.new_person()
    member = gate.new_person(owner.workspace, Role.MEMBER)
    body = {"scope": "workspace", "reason": "stop"}
    assert (await member.post(STOPS, body)).status_code == 403
    refused = await owner.post(STOPS, {**body, "scope": "all"})
    assert error_of(refused, 403)["path"] == ["body", "scope"]
    denied = [action for action, outcome, _ in gate.audit(owner.workspace) if outcome == "denied"]
    assert denied == ["emergency_stop.create"] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "workspace", "subject": "hcloud", "reason": "x"},
        {"scope": "provider", "reason": "x"},
        {"scope": "provider", "subject": "azure", "reason": "x"},
        {"scope": "workspace", "reason": ""},
        {"scope": "planet", "reason": "x"},
    ],
)
async def test_what_would_stop_nothing_is_refused(gate: Gate, body: JSON) -> None:
    assert (await gate.new_person().post(STOPS, body)).status_code == 422


async def test_stops_are_listed_lifted_once_and_audited(gate: Gate) -> None:
    person = gate.new_person()
    key = {"idempotency-key": a_key()}
    body = {"scope": "workspace", "reason": "a drill"}
    first = ok(await person.post(STOPS, body, headers=key), 201)
    assert ok(await person.post(STOPS, body, headers=key), 201) == first
    second = await stop(person, "provider", "gcp")
    lifted = await lift(person, second)
    assert await lift(person, second) == lifted
    assert lifted["lifted_by"] == person.user_id
    in_force = ok(await person.get(STOPS, params={"state": "in_force"}))["data"]
    assert [found["id"] for found in in_force] == [first["id"]]
    assert ok(await person.get(f"{STOPS}/{first['id']}")) == first
    stranger = gate.new_person()
    assert (await stranger.get(f"{STOPS}/{first['id']}")).status_code == 404
    assert (await stranger.post(f"{STOPS}/{first['id']}:lift")).status_code == 404
    await lift(person, first)
    actions = [action for action, _, _ in gate.audit(person.workspace)]
    assert actions == ["emergency_stop.create"] * 2 + ["emergency_stop.lift"] * 2


async def test_a_stop_of_everything_is_seen_by_everybody_and_lifted_by_its_workspace(
    gate: Gate,
) -> None:
    operator, customer = gate.new_person(), gate.new_person()
    as_platform(gate, operator)
    async with stop_of(operator, "all") as stopped:
        seen = ok(await customer.get(STOPS, params={"state": "in_force"}))["data"]
        assert [(found["id"], found["stopped_by"]) for found in seen] == [(stopped["id"], None)]
        assert (await customer.post(f"{STOPS}/{stopped['id']}:lift")).status_code == 404


async def test_an_ended_operation_is_refused_and_not_held(stopping: Stopping) -> None:
    ended = StepAttempt(
        workspace_id=stopping.customer.workspace,
        operation_id=new_id(Prefix.OPERATION),
        owner_id=stopping.machine["id"],
        name=Step.CREATE_SERVER,
        attempt=1,
    )
    async with stop_of(stopping.customer, "workspace"):
        with pytest.raises(BulkheadError, match="has ended"):
            await stopping.steps.started(ended)
