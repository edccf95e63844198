"""Begins and ends the moves of targets, each in one transaction over both workspaces.

A move begins when, in one moment, the rollout lets it and nothing of the customer's is in the way:
the rollout's row and those of the cluster, the install and the grant are held until the operation
is planned. What a person asks for afterwards finds the operation running.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.rollout import RolloutState, TargetState
from domain.rollout_obstacles import Blocked, LeftOut, TargetFacts, Wanted, busy, what_stops
from domain.rollout_strategy import Strategy
from domain.rollout_work import Begun, TargetPlace
from infra.database.engine import Database
from infra.database.queries.access import act_in
from infra.database.queries.emergency_stop import stop_of_install, stop_of_product
from infra.database.queries.install import find_cluster_to_use
from infra.database.queries.rollout_sight import Candidate, facts_of
from infra.database.records.rollout_rows import (
    add_event,
    change_state,
    error_of,
    lock_rollout,
    lock_target,
)
from infra.database.tables import (
    ClusterRow,
    GrantRow,
    InstallRow,
    PackageVersionRow,
    RolloutRow,
    RolloutTargetRow,
)
from infra.rollouts.engine import MoveEnd, MoveOrder, TargetEngine, TargetSubject

# What a target returns to is in its row.
_ANYTHING_BEFORE: Final = Wanted(version_id="", semver="", takes_back=True)

# Those that may be taken back.
_RETURNABLE: Final = frozenset({TargetState.BAKING, TargetState.SUCCEEDED, TargetState.FAILED})


@dataclass(slots=True)
class _Target:
    """A target whose rollout is held, in a transaction that acts in the vendor's workspace."""

    session: AsyncSession
    rollout: RolloutRow
    row: RolloutTargetRow
    now: datetime

    async def note(self, kind: str, message: str) -> None:
        """Add a line about the target to the timeline."""
        await add_event(
            self.session,
            self.rollout,
            kind,
            message,
            wave=self.row.wave,
            install_id=self.row.install_id,
        )

    def end(
        self, state: TargetState, reason: Reason | str | None, message: str, *, moved: bool
    ) -> None:
        """Give the target a state in which it stays."""
        change_state(self.rollout, self.row, state)
        self.row.waiting_for = self.row.next_try_at = None
        self.row.completed_at = self.now
        self.row.last_error = None if reason is None else error_of(reason, message, moved=moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """The rows of the customer that a move needs; they are held."""

    cluster: ClusterRow
    install: InstallRow
    facts: TargetFacts


class TargetMoves:
    """What the workflows of single targets write."""

    def __init__(self, database: Database, engine: TargetEngine) -> None:
        self._database = database
        self._engine = engine
        self._turnstiles: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin_move(self, place: TargetPlace) -> Begun | None:
        """Plan the operation that moves a target.

        Returns:
            The operation, also when an earlier attempt planned it; None: nothing begins now, and
            the row says why.
        """
        return await self._begin(place, self._move)

    async def begin_return(self, place: TargetPlace) -> Begun | None:
        """Plan the operation that takes a target back; as `begin_move`."""
        return await self._begin(place, self._return)

    async def end_move(self, begun: Begun, end: MoveEnd, ailment: str | None = None) -> None:
        """Write how a move ended; a target that has ended before is left alone.

        Args:
            begun: the operation.
            end: of the operation.
            ailment: what is wrong with a target that was moved, as its cluster's host found.
        """
        async with self._held(begun.place) as target:
            if target.row.state is not TargetState.MOVING:
                return
            if not end.succeeded:
                message = f"{end.told}. It has what it had before."
                target.end(TargetState.FAILED, end.reason, message, moved=False)
                await target.note("target.failed", message)
            elif ailment is not None:
                target.end(TargetState.FAILED, Reason.FAILED_PRECONDITION, ailment, moved=True)
                await target.note("target.failed", ailment)
            else:
                change_state(target.rollout, target.row, TargetState.BAKING)
                await target.note("target.moved", "It has the version.")

    async def end_checked(self, begun: Begun, ailment: str | None) -> None:
        """Write how a move ended whose operation succeeded; see `end_move`."""
        await self.end_move(begun, MoveEnd(succeeded=True), ailment)

    async def end_return(self, begun: Begun, end: MoveEnd) -> None:
        """Write how a target was taken back."""
        async with self._held(begun.place) as target:
            if target.row.state is not TargetState.ROLLING_BACK:
                return
            if end.succeeded:
                error = target.row.last_error
                target.end(TargetState.ROLLED_BACK, None, "", moved=False)
                target.row.last_error = error
                await target.note("target.rolled_back", "It has what it had before.")
            else:
                message = f"It could not be taken back. {end.told}."
                target.end(TargetState.FAILED, end.reason, message, moved=False)
                await target.note("target.failed", message)

    async def subject_of(self, place: TargetPlace) -> TargetSubject:
        """Read what the host of a target's control plane needs to know of it."""
        async with self._database.workspace(place.rollout.workspace_id) as session:
            vendor, rollout_id = place.rollout.workspace_id, place.rollout.rollout_id
            rollout = await session.get_one(RolloutRow, (vendor, rollout_id))
            row = await session.get_one(RolloutTargetRow, (vendor, rollout_id, place.install_id))
            version = await session.get_one(PackageVersionRow, (vendor, rollout.package_version_id))
            stop_id = await stop_of_product(session, vendor, rollout.product_id)
            customer = row.customer_workspace_id
            await act_in(session, customer)
            stop_id = stop_id or await stop_of_install(session, customer, place.install_id)
            cluster = await session.get_one(ClusterRow, (customer, row.cluster_id))
        return TargetSubject(
            rollout_id=rollout_id,
            install_id=place.install_id,
            region_id=row.region_id,
            plane=HostedControlPlane(
                workspace_id=cluster.workspace_id,
                cluster_id=cluster.id,
                host=cluster.host,
                slot=cluster.slot,
                network_profile=cluster.network_profile,
            ),
            version=version,
            strategy=Strategy.from_json(rollout.strategy),
            stop_id=stop_id,
        )

    async def fail_check(self, place: TargetPlace, message: str) -> None:
        """Write that a target that bakes is not well."""
        async with self._held(place) as target:
            if target.row.state is TargetState.BAKING:
                reason = Reason.FAILED_PRECONDITION
                target.end(TargetState.FAILED, reason, message, moved=True)
                await target.note("target.failed", message)

    async def record_plan(self, place: TargetPlace, digest: str | None, reason: str | None) -> None:
        """Write what a target's plan came to, or why there is none."""
        async with self._held(place) as target:
            target.row.next_try_at = None
            target.row.plan_digest = digest
            target.rollout.updated_at = target.now
            if digest is None:
                message = "Its plan could not be made."
                target.row.last_error = error_of(reason or Reason.INTERNAL, message)

    async def _begin(
        self,
        place: TargetPlace,
        attempt: Callable[[_Target, TargetPlace], Awaitable[Begun | None]],
    ) -> Begun | None:
        try:
            async with self._held(place) as target:
                return await attempt(target, place)
        except IntegrityError:
            # The one index that a move can violate: another rollout moves this install.
            async with self._held(place) as target:
                _block(target, busy(target.now))
            return None

    async def _move(self, target: _Target, place: TargetPlace) -> Begun | None:
        rollout, row = target.rollout, target.row
        if row.state is TargetState.MOVING:
            return await self._again(target, place, row.operation_id)
        if row.state not in {TargetState.PENDING, TargetState.WAITING}:
            return None
        if not _lets_begin(rollout):
            row.next_try_at = None if row.state is TargetState.PENDING else target.now
            return None
        key = (rollout.workspace_id, rollout.package_version_id)
        version = await target.session.get_one(PackageVersionRow, key)
        wanted = Wanted(version_id=version.id, semver=version.semver)
        held = await self._hold_customer(target, wanted)
        if held is None or await _needs_no_move(target, held):
            return None
        row.from_version_id = held.install.current_version_id
        row.from_render_id = held.install.current_render_id
        order = MoveOrder(
            rollout_id=rollout.id,
            version_id=version.id,
            approved_plan_digest=row.plan_digest if rollout.plan_only else None,
        )
        row.operation_id = await self._plan(target, held, order, TargetState.MOVING)
        return _begun(target, place, row.operation_id, held.cluster.host)

    async def _return(self, target: _Target, place: TargetPlace) -> Begun | None:
        rollout, row = target.rollout, target.row
        if row.state is TargetState.ROLLING_BACK:
            return await self._again(target, place, row.rollback_operation_id)
        if row.state not in _RETURNABLE or row.rollback_operation_id is not None:
            return None
        if rollout.state is not RolloutState.ROLLING_BACK:
            row.next_try_at = None
            return None
        held = await self._hold_customer(target, _ANYTHING_BEFORE)
        order = None if held is None else await _order_of_return(target, held)
        if held is None or order is None:
            return None
        row.rollback_operation_id = await self._plan(target, held, order, TargetState.ROLLING_BACK)
        return _begun(target, place, row.rollback_operation_id, held.cluster.host)

    async def _hold_customer(self, target: _Target, wanted: Wanted) -> _Held | None:
        """Hold what is the customer's; None: something is in the way, and the row says what."""
        session, row = target.session, target.row
        vendor = target.rollout.workspace_id
        await session.flush()
        await act_in(session, row.customer_workspace_id)
        cluster = await find_cluster_to_use(session, row.cluster_id)
        installs = select(InstallRow).where(InstallRow.id == row.install_id)
        install = (await session.exec(installs.with_for_update())).one_or_none()
        grants = select(GrantRow.id).where(
            GrantRow.install_id == row.install_id,
            GrantRow.vendor_workspace_id == vendor,
            col(GrantRow.revoked_at).is_(None),
        )
        await session.exec(grants.with_for_update(read=True))
        candidate = Candidate(
            install_id=row.install_id, customer_workspace_id=row.customer_workspace_id
        )
        facts = (await facts_of(session, vendor, [candidate])).get(row.install_id)
        await act_in(session, vendor)
        match what_stops(facts, wanted, target.now):
            case Blocked() as blocked:
                _block(target, blocked)
            case LeftOut() as left_out:
                state = TargetState.FAILED if wanted.takes_back else TargetState.SKIPPED
                target.end(state, left_out.reason, left_out.message, moved=False)
                await target.note(f"target.{state}", left_out.message)
            case None if cluster is not None and install is not None and facts is not None:
                return _Held(cluster=cluster, install=install, facts=facts)
        return None

    async def _plan(
        self, target: _Target, held: _Held, order: MoveOrder, state: TargetState
    ) -> str | None:
        """Plan an operation in the customer's workspace; None: it cannot be, as the row says."""
        session, row = target.session, target.row
        await session.flush()
        await act_in(session, row.customer_workspace_id)
        try:
            operation_id = await self._engine.plan(session, held.install, held.cluster, order)
        except BulkheadError as error:
            await act_in(session, target.rollout.workspace_id)
            target.end(TargetState.FAILED, error.reason, error.message, moved=False)
            await target.note("target.failed", error.message)
            return None
        await session.flush()
        await act_in(session, target.rollout.workspace_id)
        change_state(target.rollout, row, state)
        row.waiting_for = row.next_try_at = None
        row.started_at = row.started_at or target.now
        # Another rollout that moves the install is found here, and undoes all of it.
        await session.flush()
        return operation_id

    async def _again(
        self, target: _Target, place: TargetPlace, operation_id: str | None
    ) -> Begun | None:
        """Return what an earlier attempt began."""
        customer = target.row.customer_workspace_id
        await act_in(target.session, customer)
        cluster = await target.session.get_one(ClusterRow, (customer, target.row.cluster_id))
        await act_in(target.session, target.rollout.workspace_id)
        return _begun(target, place, operation_id, cluster.host)

    @asynccontextmanager
    async def _held(self, place: TargetPlace) -> AsyncIterator[_Target]:
        """Hold a rollout and one of its targets.

        A hundred targets at once would wait for the one row with a connection each, and leave none
        of the pool to anybody else: in this process they wait without one.
        """
        rollout_id = place.rollout.rollout_id
        turnstile = self._turnstiles.setdefault(rollout_id, asyncio.Lock())
        async with turnstile, self._database.workspace(place.rollout.workspace_id) as session:
            rollout = await lock_rollout(session, rollout_id)
            row = await lock_target(session, rollout, place.install_id)
            yield _Target(session, rollout, row, datetime.now(UTC))


async def _needs_no_move(target: _Target, held: _Held) -> bool:
    """Tell whether a target has what it shall have, or is not what was approved."""
    rollout, row = target.rollout, target.row
    if held.facts.current_version_id == rollout.package_version_id:
        change_state(rollout, row, TargetState.BAKING)
        row.next_try_at = row.waiting_for = None
        await target.note("target.moved", "It had the version already.")
        return True
    if rollout.plan_only and row.plan_digest is None:
        message = "It was not a part of the plan that was approved."
        target.end(TargetState.SKIPPED, Reason.FAILED_PRECONDITION, message, moved=False)
        await target.note("target.skipped", message)
        return True
    return False


async def _order_of_return(target: _Target, held: _Held) -> MoveOrder | None:
    """Return how a target is taken back; None: it is not, as the row then says."""
    rollout, row = target.rollout, target.row
    if held.install.current_version_id != rollout.package_version_id:
        message = "It does not have the rollout's version any more; it is left as it is."
        target.end(TargetState.SKIPPED, Reason.ABORTED, message, moved=False)
        await target.note("target.skipped", message)
        return None
    if row.from_render_id is None or row.from_version_id is None:
        message = "It had no version before, so that there is none to return to."
        target.end(TargetState.FAILED, Reason.FAILED_PRECONDITION, message, moved=False)
        await target.note("target.failed", message)
        return None
    return MoveOrder(
        rollout_id=rollout.id, version_id=row.from_version_id, restored_from=row.from_render_id
    )


def _lets_begin(rollout: RolloutRow) -> bool:
    asked = (
        rollout.pause_requested_at,
        rollout.cancel_requested_at,
        rollout.rollback_requested_at,
    )
    return rollout.state is RolloutState.RUNNING and not any(asked)


def _block(target: _Target, blocked: Blocked) -> None:
    row = target.row
    if row.state in {TargetState.PENDING, TargetState.WAITING}:
        change_state(target.rollout, row, TargetState.WAITING)
    row.waiting_for, row.next_try_at = blocked.obstacle, blocked.next_try_at
    target.rollout.updated_at = target.now


def _begun(
    target: _Target, place: TargetPlace, operation_id: str | None, host: str
) -> Begun | None:
    if operation_id is None:
        return None
    strategy = Strategy.from_json(target.rollout.strategy)
    return Begun(
        place=place,
        customer_workspace_id=target.row.customer_workspace_id,
        operation_id=operation_id,
        host=host,
        checks_in_cluster=any(check.in_cluster for check in strategy.checks),
    )
