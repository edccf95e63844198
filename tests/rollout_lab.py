"""Rollouts with an engine that moves rows instead of charts, on real Temporal and PostgreSQL.

Each operation of the engine has its effect once, or a test says so.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sqlmodel import col, select
from temporalio.client import Client
from temporalio.worker import Interceptor

from domain.caller import Caller, PrincipalKind, Role
from domain.identifiers import Prefix, new_id
from domain.install_drift import CORRECTION_MESSAGE
from domain.rollout import TERMINAL, CheckKind, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Selector, Strategy
from domain.rollout_work import RolloutPlace
from infra.database.engine import Database, DatabaseRole
from infra.database.records import rollout_requests
from infra.database.records.rollout_rows import lock_rollout
from infra.database.tables import (
    RolloutEventRow,
    RolloutRow,
    RolloutTargetRow,
)
from infra.openbao.policies import WORKER
from infra.temporal.client import TemporalConnection
from infra.temporal.rollouts import wake_rollout
from infra.waiting import when_available
from tests.rollout_engine import LAB_TABLES
from tests.rollout_worker import LabWorker, lab_queues
from tests.servers import Servers

# What a test waits for comes sooner or later, on a machine on which much else runs.
COMES_WITHIN_SECONDS = 60.0

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
        self._sql(
            "UPDATE lab.settings SET seconds = %s, gate_open = %s WHERE queue = %s",
            (seconds, gate_open, self.queue),
        )

    async def sql(
        self, statement: str, parameters: tuple[object, ...] = ()
    ) -> list[tuple[object, ...]]:
        """Run a statement as the database's administrator.

        In a thread: a row that it waits for may be held by a coroutine of the worker, which this
        loop runs.
        """
        return await asyncio.to_thread(self._sql, statement, parameters)

    def _sql(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
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
        self,
        place: RolloutPlace,
        *states: RolloutState,
        within_seconds: float = COMES_WITHIN_SECONDS,
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
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                if (await self.row(place)).bake_until is not None:
                    return
                await asyncio.sleep(0.05)

    async def until_versions(self, offer: Offer, wanted: dict[str, str]) -> None:
        """Wait until the installs of a product have these versions."""
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                if self.versions(offer) == wanted:
                    return
                await asyncio.sleep(0.05)

    async def until_moving(self, place: RolloutPlace, count: int = 1) -> list[RolloutTargetRow]:
        """Wait until so many targets move, and return them."""
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                found = await self.targets(place)
                moving = [each for each in found if each.state is TargetState.MOVING]
                if len(moving) >= count:
                    return moving
                await asyncio.sleep(0.05)

    def versions(self, offer: Offer) -> dict[str, str]:
        """Return what each install of a product has."""
        rows = self._sql(
            "SELECT id, current_version_id FROM installs WHERE product_id = %s", (offer.product_id,)
        )
        return {str(row[0]): str(row[1]) for row in rows}

    def fail(self, install_ids: Sequence[str], version_id: str) -> None:
        """Have every operation fail that brings a version to some installs."""
        for install_id in install_ids:
            self._sql("INSERT INTO lab.failures VALUES (%s, %s)", (install_id, version_id))

    def wait(self, install_ids: Sequence[str], obstacle: Obstacle | None) -> None:
        """Have the operations of some installs wait for something; None: no more."""
        self._sql("DELETE FROM lab.waits WHERE install_id = ANY (%s)", (list(install_ids),))
        if obstacle is not None:
            statement = "INSERT INTO lab.waits SELECT unnest(%s::text[]), %s"
            self._sql(statement, (list(install_ids), obstacle))

    async def answer(self, install_id: str, kind: CheckKind | str, answer: str | None) -> None:
        """Have an install's cluster answer so; None: nothing is wrong.

        Args:
            install_id: the install.
            kind: of its checks; or `plan`, for whoever plans.
            answer: see `tests.rollout_engine`.
        """
        asked = (install_id, kind)
        await self.sql("DELETE FROM lab.answers WHERE install_id = %s AND kind = %s", asked)
        if answer is not None:
            await self.sql("INSERT INTO lab.answers VALUES (%s, %s, %s)", (*asked, answer))

    async def looks(self, install_id: str, kind: CheckKind) -> int:
        """Return how often an install's cluster was asked for a check of a kind."""
        query = "SELECT count(*)::integer FROM lab.looks WHERE install_id = %s AND kind = %s"
        ((count,),) = await self.sql(query, (install_id, kind))
        assert isinstance(count, int)
        return count

    async def told(
        self, place: RolloutPlace, install_id: str, obstacle: Obstacle
    ) -> RolloutTargetRow:
        """Wait until a target says what is in its way."""
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                found = next(x for x in await self.targets(place) if x.install_id == install_id)
                if found.waiting_for is obstacle:
                    return found
                await asyncio.sleep(0.05)

    async def deploy(
        self,
        install_id: str,
        version_id: str,
        *,
        corrects: bool = False,
        skips: bool = False,
        values: str | None = None,
    ) -> None:
        """Have an install's own people deploy a version, or the clock correct its drift.

        Args:
            install_id: the install.
            version_id: the version.
            corrects: it is the clock.
            skips: it came to what was deployed already.
            values: as JSON, with which they deploy it; None: those that it has.
        """
        state = "skipped" if skips else "deployed"
        message = CORRECTION_MESSAGE if corrects else None
        await asyncio.to_thread(self._deploy, install_id, version_id, state, message, values)

    def _deploy(
        self, install_id: str, version_id: str, state: str, message: str | None, values: str | None
    ) -> None:
        render = {
            "render": new_id(Prefix.RENDER),
            "operation": new_id(Prefix.OPERATION),
            "version": version_id,
            "install": install_id,
            "message": message,
            "state": state,
            "values": values,
        }
        with self.servers.administrator() as administrator, administrator.transaction():
            administrator.execute(
                "INSERT INTO renders (workspace_id, id, install_id, operation_id,"
                ' package_version_id, restored_from_render_id, state, message, "values")'
                " SELECT workspace_id, %(render)s, id, %(operation)s, %(version)s,"
                " CASE WHEN %(message)s::text IS NOT NULL THEN current_render_id END, %(state)s,"
                ' %(message)s::text, coalesce(%(values)s::jsonb, "values") FROM installs'
                " WHERE id = %(install)s",
                render,
            )
            administrator.execute(
                "UPDATE installs SET current_version_id = %(version)s,"
                " current_render_id = CASE WHEN %(state)s = 'deployed' THEN %(render)s"
                " ELSE current_render_id END WHERE id = %(install)s",
                render,
            )

    def check_effects(self) -> None:
        """Assert that no operation had its effect twice, and no two were at one install at once.

        And that the counts of every rollout are those of its targets.
        """
        assert not self._sql(
            "SELECT r.id FROM rollouts r JOIN (SELECT rollout_id, jsonb_object_agg(state, n) AS n"
            " FROM (SELECT rollout_id, state, count(*) AS n FROM rollout_targets GROUP BY 1, 2)"
            " AS counted GROUP BY 1) AS found ON found.rollout_id = r.id WHERE r.counts <> found.n"
        )
        assert not self._sql("SELECT id FROM lab.operations WHERE effects > 1")
        overlapping = (
            "SELECT a.id FROM lab.operations a JOIN lab.operations b"
            " ON a.install_id = b.install_id AND a.id < b.id AND b.planned_at < a.ended_at"
        )
        assert not self._sql(overlapping)

    async def close(self) -> None:
        """Close what the lab holds open."""
        await self.api.close()


@contextlib.asynccontextmanager
async def running_lab(
    servers: Servers, queue: str, *interceptors: Interceptor, worker: bool = True
) -> AsyncIterator[Lab]:
    """Run a lab, with a worker in this process or without any."""
    connection = TemporalConnection(servers.temporal, servers.openbao("worker"), WORKER)
    client = await when_available(connection.client)
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
