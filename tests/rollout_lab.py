"""Rollouts with an engine that moves rows instead of charts, on real Temporal and PostgreSQL.

What the engine does is kept in tables of its own, so that a worker may be killed at any moment and
another process sees what it did: each operation has its effect once, or a test says so.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from activities.interceptor import ActivityInterceptor
from activities.rollout_hosts import RolloutHostActivities
from activities.rollouts import RolloutActivities
from domain.caller import Caller, PrincipalKind, Role
from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.install import RenderState
from domain.install_drift import CORRECTION_MESSAGE
from domain.rollout import TERMINAL, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Check, Selector, Strategy, Target
from domain.rollout_work import RolloutPlace
from infra.database.engine import Database, DatabaseRole
from infra.database.records import rollout_requests
from infra.database.records.rollout import RolloutRecords
from infra.database.records.rollout_rows import lock_rollout
from infra.database.records.steps import StepRecords
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    RenderRow,
    RolloutEventRow,
    RolloutRow,
    RolloutTargetRow,
)
from infra.openbao.policies import WORKER
from infra.rollouts.checks import RolloutChecks
from infra.rollouts.engine import MoveEnd, MoveOrder, TargetSubject
from infra.rollouts.target_ends import TargetEnds
from infra.rollouts.target_rows import TargetRows
from infra.rollouts.targets import TargetMoves
from infra.rotators.outbound import Outbound
from infra.settings import DatabaseSettings, OutboundSettings
from infra.temporal.client import TemporalConnection
from infra.temporal.rollouts import start_rollout, wake_rollout
from tests.servers import Servers
from workflows.registry import sandbox
from workflows.rollout.move_target import MoveTarget
from workflows.rollout.plan_target import PlanTarget
from workflows.rollout.roll_back_target import RollBackTarget
from workflows.rollout.run import ReconcileRollouts, RunRollout

Activities = Sequence[Callable[..., Any]]

# Threads are made when they are needed, which is never: all activities here are coroutines.
_PLACES = 1000

ROLLOUT_WORKFLOWS = (RunRollout, MoveTarget, RollBackTarget, PlanTarget, ReconcileRollouts)

# A schema of their own: what the product stores is listed by the tables of the others.
LAB_TABLES = """
CREATE SCHEMA IF NOT EXISTS lab;
CREATE TABLE IF NOT EXISTS lab.operations (
    id text PRIMARY KEY, workspace_id text NOT NULL, install_id text NOT NULL,
    rollout_id text NOT NULL, version_id text NOT NULL, restored_from text,
    approved_digest text, effects integer NOT NULL DEFAULT 0, failed boolean,
    cancelled boolean NOT NULL DEFAULT false,
    planned_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz);
CREATE TABLE IF NOT EXISTS lab.settings (
    queue text PRIMARY KEY, seconds double precision NOT NULL, gate_open boolean NOT NULL);
CREATE TABLE IF NOT EXISTS lab.failures (install_id text NOT NULL, version_id text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.looks (install_id text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.waits (install_id text PRIMARY KEY, waits_for text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.plans (install_id text PRIMARY KEY, digest text NOT NULL);
GRANT USAGE ON SCHEMA lab TO bulkhead_worker;
GRANT ALL ON ALL TABLES IN SCHEMA lab TO bulkhead_worker;
"""

_POPULATE = """
CREATE TEMP TABLE lab_new ON COMMIT DROP AS
SELECT n, 'inst_' || md5(random()::text || n) AS install_id,
    -- Older than any id of today.
    'rnd_00000000' || left(md5(random()::text || n), 24) AS render_id,
    'grnt_' || md5(random()::text || n) AS grant_id,
    (%(customers)s::text[])[1 + n %% %(customer_count)s] AS customer
FROM generate_series(0, %(targets)s - 1) AS n;
INSERT INTO installs (workspace_id, id, cluster_id, region_id, package_workspace_id, package_id,
    product_id, desired_version_id, current_version_id, current_render_id, "values", labels,
    channel, automatic_updates_enabled, drift_correction, state, health, sync, observed_at, version)
SELECT l.customer, l.install_id, c.id, c.region_id, %(vendor)s, %(package)s, %(product)s,
    %(old)s, %(old)s, l.render_id, '{}', jsonb_build_object('n', l.n::text), 'stable', false, false,
    'healthy', 'Healthy', 'Synced', now() + interval '1 day', 1
FROM lab_new l JOIN clusters c ON c.workspace_id = l.customer;
INSERT INTO renders (workspace_id, id, install_id, package_version_id, state, "values")
SELECT customer, render_id, install_id, %(old)s, 'deployed', '{}' FROM lab_new;
INSERT INTO grants (workspace_id, id, install_id, cluster_id, region_id, vendor_workspace_id,
    product_id, labels, channel, consent, current_version_id, health, version)
SELECT l.customer, l.grant_id, l.install_id, c.id, c.region_id, %(vendor)s, %(product)s,
    jsonb_build_object('n', l.n::text), 'stable', 'automatic', %(old)s, 'Healthy', 1
FROM lab_new l JOIN clusters c ON c.workspace_id = l.customer;
"""


class LabEngine:
    """Moves the version of an install's row; takes as long, and fails, as the lab says."""

    def __init__(self, database: Database, queue: str) -> None:
        self._database = database
        self._queue = queue

    async def plan(
        self, session: AsyncSession, install: InstallRow, cluster: ClusterRow, order: MoveOrder
    ) -> str:
        """Lock the install for an operation of the lab."""
        del cluster
        operation_id = new_id(Prefix.OPERATION)
        await session.execute(
            text(
                "INSERT INTO lab.operations (id, workspace_id, install_id, rollout_id, version_id,"
                " restored_from, approved_digest) VALUES (:id, :workspace, :install, :rollout,"
                " :version, :restored, :digest)"
            ),
            {
                "id": operation_id,
                "workspace": install.workspace_id,
                "install": install.id,
                "rollout": order.rollout_id,
                "version": order.version_id,
                "restored": order.restored_from,
                "digest": order.approved_plan_digest,
            },
        )
        install.active_operation_id = operation_id
        return operation_id

    async def start(self, workspace_id: str, operation_id: str) -> None:
        """Nothing has to be started."""

    async def look(self, workspace_id: str, operation_id: str) -> MoveEnd | Obstacle | None:
        """Let the time of the operation pass, and have its effect if nobody had it before."""
        async with self._database.transaction() as session:
            query = text(
                "SELECT seconds, gate_open, waits_for, cancelled FROM lab.settings, lab.operations"
                " o LEFT JOIN lab.waits w USING (install_id) WHERE queue = :queue AND o.id = :id"
            )
            found = await session.execute(query, {"queue": self._queue, "id": operation_id})
            settings = found.one()
        if settings.waits_for is not None and not settings.cancelled:
            return Obstacle(settings.waits_for)
        await asyncio.sleep(settings.seconds)
        if not settings.gate_open:
            await asyncio.sleep(0.05)
            return None
        async with self._database.workspace(workspace_id) as session:
            return await _have_effect(session, operation_id)

    async def cancel(self, workspace_id: str, operation_id: str) -> None:
        """Have an operation fail that waits for something."""
        del workspace_id
        async with self._database.transaction() as session:
            query = text("UPDATE lab.operations SET cancelled = true WHERE id = :id")
            await session.execute(query, {"id": operation_id})


async def _have_effect(session: AsyncSession, operation_id: str) -> MoveEnd:
    found = await session.execute(
        text(
            "SELECT o.*, EXISTS (SELECT FROM lab.failures f WHERE f.install_id = o.install_id"
            " AND f.version_id = o.version_id) AS fails FROM lab.operations o WHERE o.id = :id"
            " FOR UPDATE OF o"
        ),
        {"id": operation_id},
    )
    operation = found.one()
    if operation.ended_at is None:
        stale = await _is_stale(session, operation.install_id, operation.approved_digest)
        failed = operation.fails or stale or operation.cancelled
        await session.execute(
            text(
                "UPDATE lab.operations SET effects = effects + 1, failed = :failed,"
                " ended_at = clock_timestamp() WHERE id = :id"
            ),
            {"id": operation_id, "failed": failed},
        )
        query = select(InstallRow).where(InstallRow.id == operation.install_id)
        install = (await session.exec(query.with_for_update())).one()
        assert install.active_operation_id == operation_id
        install.active_operation_id = None
        if not failed:
            install.current_version_id = operation.version_id
            install.current_render_id = new_id(Prefix.RENDER)
            session.add(_deployed(install, operation_id, operation.restored_from))
        return MoveEnd(succeeded=not failed, reason="CONFLICT" if failed else None)
    return MoveEnd(succeeded=not operation.failed, reason="CONFLICT")


def _deployed(install: InstallRow, operation_id: str, restored_from: str | None) -> RenderRow:
    assert install.current_render_id is not None
    assert install.current_version_id is not None
    return RenderRow(
        workspace_id=install.workspace_id,
        id=install.current_render_id,
        install_id=install.id,
        operation_id=operation_id,
        package_version_id=install.current_version_id,
        restored_from_render_id=restored_from,
        state=RenderState.DEPLOYED,
        values=install.values,
    )


async def _is_stale(session: AsyncSession, install_id: str, digest: str | None) -> bool:
    if digest is None:
        return False
    query = text("SELECT digest FROM lab.plans WHERE install_id = :install")
    return bool((await session.execute(query, {"install": install_id})).scalar_one() != digest)


class LabPlanner:
    """A plan is what the lab says it is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def digest_of(self, subject: TargetSubject) -> str:
        """Return the digest that the lab has for the install."""
        async with self._database.transaction() as session:
            query = text(
                "INSERT INTO lab.plans VALUES (:install, :digest) ON CONFLICT (install_id)"
                " DO UPDATE SET digest = lab.plans.digest RETURNING digest"
            )
            digest = f"plan of {subject.install_id}"
            found = await session.execute(query, {"install": subject.install_id, "digest": digest})
            return str(found.scalar_one())


class LabChecks:
    """Looks into no cluster, and remembers that it did."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(
        self, plane: HostedControlPlane, target: Target, rollout_id: str, check: Check
    ) -> str | None:
        """Find nothing wrong."""
        del plane, rollout_id, check
        async with self._database.transaction() as session:
            query = text("INSERT INTO lab.looks VALUES (:install)")
            await session.execute(query, {"install": target.install_id})
        return None


@contextlib.contextmanager
def lab_queues(queue: str) -> Iterator[None]:
    """Keep a lab's workflows from the workers of everything else in this process."""
    with (
        patch("infra.temporal.rollouts.CONTROL_TASK_QUEUE", queue),
        # Workflows are loaded anew for each run, and name the queues of their steps.
        patch("domain.names.ROLLOUTS_TASK_QUEUE", f"{queue}-targets"),
        patch("activities.holds._AGAIN_AFTER", timedelta(milliseconds=200)),
    ):
        yield


class LabWorker:
    """The workers of one lab's queues. The host of its clusters is named like the queue."""

    def __init__(
        self,
        settings: DatabaseSettings,
        connection: TemporalConnection,
        queue: str,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._database = Database(settings, DatabaseRole.WORKER)
        self._sweeper = Database(settings, DatabaseRole.SWEEPER)
        self._steps = StepRecords(settings)
        self._interceptors = interceptors

    @contextlib.asynccontextmanager
    async def running(self, client: Client) -> AsyncIterator[None]:
        """Serve for as long as the context lasts."""
        engine = LabEngine(self._database, self._queue)
        rows = TargetRows(self._database)
        ends = TargetEnds(rows)
        allowed = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})

        async def start(place: RolloutPlace) -> None:
            await start_rollout(client, place)

        rollouts = RolloutActivities(
            RolloutRecords(self._database, self._sweeper),
            TargetMoves(rows, engine),
            ends,
            engine,
            RolloutChecks(self._database, self._sweeper, Outbound(allowed)),
            start,
        )
        planner = LabPlanner(self._database)
        looks = LabChecks(self._database)
        hosts = RolloutHostActivities(ends, planner, looks)  # type: ignore[arg-type]
        awaits: Activities = [rollouts.await_target, rollouts.await_target_rollback]
        others: Activities = [
            rollouts.advance_rollout,
            rollouts.check_targets,
            rollouts.begin_target,
            rollouts.begin_target_rollback,
            rollouts.start_rollouts,
        ]
        on_host: Activities = [hosts.plan_target, hosts.check_in_cluster]
        queues = (
            (self._queue, ROLLOUT_WORKFLOWS, others),
            (f"{self._queue}-targets", (), awaits),
            (f"control-planes@{self._queue}", (), on_host),
        )
        interceptors = [ActivityInterceptor(self._steps), *self._interceptors]
        with ThreadPoolExecutor(_PLACES) as threads:
            workers = [
                Worker(
                    client,
                    task_queue=queue,
                    workflows=workflows,
                    activities=activities,
                    activity_executor=threads,
                    max_concurrent_activities=_PLACES,
                    interceptors=interceptors,
                    workflow_runner=sandbox(),
                    graceful_shutdown_timeout=timedelta(seconds=5),
                    max_heartbeat_throttle_interval=timedelta(seconds=1),
                    default_heartbeat_throttle_interval=timedelta(seconds=1),
                )
                for queue, workflows, activities in queues
            ]
            async with contextlib.AsyncExitStack() as stack:
                for worker in workers:
                    await stack.enter_async_context(worker)
                yield
        await self._steps.close()
        await self._database.close()
        await self._sweeper.close()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A vendor's product, with an old version that is installed and a new one."""

    vendor: Caller
    product_id: str
    old: str
    new: str
    customers: tuple[str, ...]


class Lab:
    """What a test asks of rollouts, and how it looks at what came of it."""

    def __init__(
        self, servers: Servers, connection: TemporalConnection, client: Client, queue: str
    ) -> None:
        self.servers = servers
        self.connection = connection
        self.client = client
        self.queue = queue
        self.api = Database(servers.database, DatabaseRole.API)
        with servers.administrator() as administrator:
            administrator.execute(LAB_TABLES)
            administrator.execute(
                "INSERT INTO lab.settings VALUES (%s, 0.02, true)"
                " ON CONFLICT (queue) DO UPDATE SET seconds = 0.02, gate_open = true",
                (queue,),
            )

    def set(self, *, seconds: float = 0.02, gate_open: bool = True) -> None:
        """Say how long operations take, and whether any of them ends."""
        self.sql(
            "UPDATE lab.settings SET seconds = %s, gate_open = %s WHERE queue = %s",
            (seconds, gate_open, self.queue),
        )

    def sql(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """Run a statement as the database's administrator."""
        with self.servers.administrator() as administrator:
            cursor = administrator.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def offer(self, targets: int, customers: int = 3, vendor_id: str | None = None) -> Offer:
        """Make a product with so many installs, on one cluster of each customer.

        The vendor is a new workspace, or one that is there.
        """
        vendor = Caller(
            kind=PrincipalKind.USER,
            principal_id=new_id(Prefix.USER),
            workspace_id=vendor_id or new_id(Prefix.WORKSPACE),
            role=Role.OWNER,
        )
        package, product = new_id(Prefix.PACKAGE), new_id(Prefix.PRODUCT)
        old, new = new_id(Prefix.PACKAGE_VERSION), new_id(Prefix.PACKAGE_VERSION)
        workspaces = [new_id(Prefix.WORKSPACE) for _ in range(customers)]
        with self.servers.administrator() as administrator, administrator.transaction():
            for workspace in (*([] if vendor_id else [vendor.workspace_id]), *workspaces):
                administrator.execute(
                    "INSERT INTO workspaces (id, name, slug, version) VALUES (%s, 'lab', %s, 1)",
                    (workspace, workspace[-30:]),
                )
                region = new_id(Prefix.REGION)
                administrator.execute(
                    "INSERT INTO regions (workspace_id, id, name) VALUES (%s, %s, 'here')",
                    (workspace, region),
                )
                administrator.execute(
                    "INSERT INTO clusters (workspace_id, id, name, region_id, provider,"
                    " network_profile, state, host, slot, version) VALUES"
                    " (%s, %s, 'lab', %s, 'managed_kaas', 'linux_cilium', 'active', %s, 0, 1)",
                    (workspace, new_id(Prefix.CLUSTER), region, self.queue),
                )
            administrator.execute(
                "INSERT INTO packages (workspace_id, id, name, source_kind, source_url, chart,"
                " version) VALUES (%s, %s, 'lab', 'oci', 'oci://lab.example.com/lab', '', 1)",
                (vendor.workspace_id, package),
            )
            for version, semver in ((old, "1.0.0"), (new, "2.0.0")):
                administrator.execute(
                    "INSERT INTO package_versions (workspace_id, id, package_id, semver, sort_key,"
                    " channel, ref, chart_digest, input_schema, default_values, compatibility)"
                    " VALUES (%s, %s, %s, %s, %s, 'stable', '', '', '{}', '{}', '{}')",
                    (vendor.workspace_id, version, package, semver, semver),
                )
            administrator.execute(
                "INSERT INTO products (workspace_id, id, package_id, name, version_pin,"
                " marketplace_published, state, version)"
                " VALUES (%s, %s, %s, 'lab', '{}', true, 'active', 1)",
                (vendor.workspace_id, product, package),
            )
            for statement in _POPULATE.split(";\n"):
                if statement.strip():
                    administrator.execute(
                        statement,
                        {
                            "targets": targets,
                            "customers": workspaces,
                            "customer_count": customers,
                            "vendor": vendor.workspace_id,
                            "package": package,
                            "product": product,
                            "old": old,
                        },
                    )
        return Offer(
            vendor=vendor, product_id=product, old=old, new=new, customers=tuple(workspaces)
        )

    async def create(
        self,
        offer: Offer,
        strategy: Strategy,
        *,
        plan_only: bool = False,
        start: bool = True,
        selector: Selector | None = None,
    ) -> RolloutPlace:
        """Ask for a rollout of the new version, as the API does."""
        async with self.api.workspace(offer.vendor.workspace_id) as session:
            row = await rollout_requests.create_rollout(
                session,
                offer.vendor,
                product_id=offer.product_id,
                package_version_id=offer.new,
                selector=selector or Selector(),
                strategy=strategy,
                plan_only=plan_only,
            )
        place = RolloutPlace(workspace_id=row.workspace_id, rollout_id=row.id)
        if start:
            await wake_rollout(self.client, place.workspace_id, place.rollout_id)
        return place

    async def wake(self, place: RolloutPlace) -> None:
        """Have the rollout look at its rows now."""
        await wake_rollout(self.client, place.workspace_id, place.rollout_id)

    async def ask(self, place: RolloutPlace, verb: str, caller: Caller) -> None:
        """Ask for `pause`, `resume`, `cancel` or `rollback`, as the API does."""
        async with self.api.workspace(place.workspace_id) as session:
            row = await lock_rollout(session, place.rollout_id)
            await getattr(rollout_requests, f"request_{verb}")(session, row, caller)
        await wake_rollout(self.client, place.workspace_id, place.rollout_id)

    async def approve(self, place: RolloutPlace, digest: str, caller: Caller) -> None:
        """Approve a digest, as the API does."""
        async with self.api.workspace(place.workspace_id) as session:
            row = await lock_rollout(session, place.rollout_id)
            await rollout_requests.approve(session, row, digest, caller)
        await wake_rollout(self.client, place.workspace_id, place.rollout_id)

    async def row(self, place: RolloutPlace) -> RolloutRow:
        """Read a rollout."""
        async with self.api.workspace(place.workspace_id) as session:
            return await session.get_one(RolloutRow, (place.workspace_id, place.rollout_id))

    async def targets(self, place: RolloutPlace) -> list[RolloutTargetRow]:
        """Read a rollout's targets in their order."""
        async with self.api.workspace(place.workspace_id) as session:
            query = (
                select(RolloutTargetRow)
                .where(RolloutTargetRow.rollout_id == place.rollout_id)
                .order_by(col(RolloutTargetRow.position))
            )
            return list(await session.exec(query))

    async def events(self, place: RolloutPlace) -> list[str]:
        """Read the kinds of a rollout's timeline."""
        async with self.api.workspace(place.workspace_id) as session:
            query = (
                select(RolloutEventRow)
                .where(RolloutEventRow.rollout_id == place.rollout_id)
                .order_by(col(RolloutEventRow.sequence))
            )
            return [each.kind for each in await session.exec(query)]

    async def until(
        self, place: RolloutPlace, *states: RolloutState, within_seconds: float = 30
    ) -> RolloutRow:
        """Wait until a rollout is in one of the states; without any: until it has ended."""
        wanted = frozenset(states) or TERMINAL
        try:
            async with asyncio.timeout(within_seconds):
                while True:
                    row = await self.row(place)
                    if row.state in wanted:
                        return row
                    await asyncio.sleep(0.05)
        except TimeoutError:
            row = await self.row(place)
            found = {each.install_id: each.state for each in (await self.targets(place))[:10]}
            message = f"still {row.state} in wave {row.wave}: {row.counts} {found}"
            raise AssertionError(message) from None

    async def until_baking(self, place: RolloutPlace) -> None:
        """Wait until a wave bakes."""
        async with asyncio.timeout(20):
            while True:
                if (await self.row(place)).bake_until is not None:
                    return
                await asyncio.sleep(0.05)

    async def until_versions(self, offer: Offer, wanted: dict[str, str]) -> None:
        """Wait until the installs of a product have these versions."""
        async with asyncio.timeout(20):
            while True:
                if self.versions(offer) == wanted:
                    return
                await asyncio.sleep(0.05)

    async def until_moving(self, place: RolloutPlace, count: int = 1) -> list[RolloutTargetRow]:
        """Wait until so many targets move, and return them."""
        async with asyncio.timeout(20):
            while True:
                found = await self.targets(place)
                moving = [each for each in found if each.state is TargetState.MOVING]
                if len(moving) >= count:
                    return moving
                await asyncio.sleep(0.05)

    def versions(self, offer: Offer) -> dict[str, str]:
        """Return what each install of a product has."""
        rows = self.sql(
            "SELECT id, current_version_id FROM installs WHERE product_id = %s", (offer.product_id,)
        )
        return {str(row[0]): str(row[1]) for row in rows}

    def fail(self, install_ids: Sequence[str], version_id: str) -> None:
        """Have every operation fail that brings a version to some installs."""
        for install_id in install_ids:
            self.sql("INSERT INTO lab.failures VALUES (%s, %s)", (install_id, version_id))

    def wait(self, install_ids: Sequence[str], obstacle: Obstacle | None) -> None:
        """Have the operations of some installs wait for something; None: no more."""
        self.sql("DELETE FROM lab.waits WHERE install_id = ANY (%s)", (list(install_ids),))
        if obstacle is not None:
            statement = "INSERT INTO lab.waits SELECT unnest(%s::text[]), %s"
            self.sql(statement, (list(install_ids), obstacle))

    def deploy(self, install_id: str, version_id: str, *, corrects: bool = False) -> None:
        """Have an install's own people deploy a version, or the clock correct its drift."""
        render = {
            "render": new_id(Prefix.RENDER),
            "operation": new_id(Prefix.OPERATION),
            "version": version_id,
            "install": install_id,
            "message": CORRECTION_MESSAGE if corrects else None,
        }
        with self.servers.administrator() as administrator, administrator.transaction():
            administrator.execute(
                "INSERT INTO renders (workspace_id, id, install_id, operation_id,"
                ' package_version_id, restored_from_render_id, state, message, "values")'
                " SELECT workspace_id, %(render)s, id, %(operation)s, %(version)s,"
                " CASE WHEN %(message)s::text IS NOT NULL THEN current_render_id END, 'deployed',"
                ' %(message)s::text, "values" FROM installs WHERE id = %(install)s',
                render,
            )
            administrator.execute(
                "UPDATE installs SET current_version_id = %(version)s,"
                " current_render_id = %(render)s WHERE id = %(install)s",
                render,
            )

    def check_effects(self) -> None:
        """Assert that no operation had its effect twice, and no two were at one install at once.

        And that the counts of every rollout are those of its targets.
        """
        assert not self.sql(
            "SELECT r.id FROM rollouts r JOIN (SELECT rollout_id, jsonb_object_agg(state, n) AS n"
            " FROM (SELECT rollout_id, state, count(*) AS n FROM rollout_targets GROUP BY 1, 2)"
            " AS counted GROUP BY 1) AS found ON found.rollout_id = r.id WHERE r.counts <> found.n"
        )
        assert not self.sql("SELECT id FROM lab.operations WHERE effects > 1")
        overlapping = (
            "SELECT a.id FROM lab.operations a JOIN lab.operations b"
            " ON a.install_id = b.install_id AND a.id < b.id AND b.planned_at < a.ended_at"
        )
        assert not self.sql(overlapping)

    async def close(self) -> None:
        """Close what the lab holds open."""
        await self.api.close()


@contextlib.asynccontextmanager
async def running_lab(
    servers: Servers, queue: str, *interceptors: Interceptor, worker: bool = True
) -> AsyncIterator[Lab]:
    """Run a lab, with a worker in this process or without any."""
    connection = TemporalConnection(servers.temporal, servers.openbao("worker"), WORKER)
    client = await connection.client()
    with lab_queues(queue):
        lab = Lab(servers, connection, client, queue)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if worker:
                    lab_worker = LabWorker(servers.database, connection, queue, interceptors)
                    await stack.enter_async_context(lab_worker.running(client))
                yield lab
        finally:
            await lab.close()
            connection.close()
