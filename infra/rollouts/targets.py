"""Begins the moves of targets, each in one transaction over both workspaces.

A move begins when, in one moment, the rollout lets it and nothing of the customer's is in the way:
the rollout's row and those of the cluster, the install and the grant are held until the operation
is planned. What a person asks for afterwards finds the operation running.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from domain.errors import BulkheadError, Reason
from domain.rollout import RolloutState, TargetState
from domain.rollout_obstacles import (
    LONGEST_MOVE,
    Blocked,
    LeftOut,
    TargetFacts,
    Wanted,
    busy,
    what_stops,
)
from domain.rollout_strategy import Strategy
from domain.rollout_work import Begun, TargetPlace
from infra.database.queries.access import act_in
from infra.database.queries.compatibility import misfit_of
from infra.database.queries.install import find_cluster_to_use, last_operation_deployed
from infra.database.queries.rollout_sight import candidate_of, facts_of
from infra.database.records.rollout_rows import change_state
from infra.database.tables import (
    ClusterRow,
    GrantRow,
    InstallRow,
    PackageVersionRow,
    RolloutRow,
)
from infra.helm.value_schemas import refusal_of
from infra.rollouts.engine import MoveOrder, TargetEngine
from infra.rollouts.target_rows import TargetInHand, TargetRows

# What a target returns to is in its row.
_ANYTHING_BEFORE: Final = Wanted(version_id="", semver="", takes_back=True)

# Those that may be taken back.
_RETURNABLE: Final = frozenset(
    {TargetState.BAKING, TargetState.SUCCEEDED, TargetState.FAILED, TargetState.SKIPPED}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """The rows of the customer that a move needs; they are held.

    `deployed_by` is the operation by which the install became what it is.
    """

    cluster: ClusterRow
    install: InstallRow
    facts: TargetFacts
    deployed_by: str | None


class TargetMoves:
    """What the workflows of single targets write when they begin."""

    def __init__(self, rows: TargetRows, engine: TargetEngine) -> None:
        self._rows = rows
        self._engine = engine

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

    async def _begin(
        self,
        place: TargetPlace,
        attempt: Callable[[TargetInHand, TargetPlace], Awaitable[Begun | None]],
    ) -> Begun | None:
        try:
            async with self._rows.held(place) as target:
                return await attempt(target, place)
        except IntegrityError:
            # The one index that a move can violate: another rollout moves this install.
            async with self._rows.held(place) as target:
                _block(target, busy(target.now))
            return None

    async def _move(self, target: TargetInHand, place: TargetPlace) -> Begun | None:
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
        held = await self._hold_customer(target, wanted, version)
        if held is None or await _needs_no_move(target, held, version):
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

    async def _return(self, target: TargetInHand, place: TargetPlace) -> Begun | None:
        rollout, row = target.rollout, target.row
        if row.state is TargetState.ROLLING_BACK:
            return await self._again(target, place, row.rollback_operation_id)
        is_stuck = (row.last_error or {}).get("stuck", False)
        if row.state not in _RETURNABLE or (row.rollback_operation_id and not is_stuck):
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

    async def _hold_customer(
        self, target: TargetInHand, wanted: Wanted, version: PackageVersionRow | None = None
    ) -> _Held | None:
        """Hold what is the customer's; None: something is in the way, and the row says what.

        Args:
            target: the target.
            wanted: what it shall become.
            version: that has to fit its cluster; None: it is one that was there before.
        """
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
        facts = (await facts_of(session, vendor, [candidate_of(row)])).get(row.install_id)
        if version is not None and cluster is not None and facts is not None:
            facts = replace(facts, fits=await misfit_of(session, version, cluster) is None)
        deployed_by = await last_operation_deployed(session, row.install_id)
        await act_in(session, vendor)
        match what_stops(facts, wanted, target.now):
            case Blocked() as blocked:
                _block(target, blocked)
            case LeftOut() as left_out:
                state = TargetState.FAILED if wanted.takes_back else TargetState.SKIPPED
                await target.leave_out(left_out, state)
            case None if cluster is not None and install is not None and facts is not None:
                return _Held(cluster=cluster, install=install, facts=facts, deployed_by=deployed_by)
        return None

    async def _plan(
        self, target: TargetInHand, held: _Held, order: MoveOrder, state: TargetState
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
        row.waiting_for, row.next_try_at = None, target.now + LONGEST_MOVE
        row.started_at = row.started_at or target.now
        # Another rollout that moves the install is found here, and undoes all of it.
        await session.flush()
        return operation_id

    async def _again(
        self, target: TargetInHand, place: TargetPlace, operation_id: str | None
    ) -> Begun | None:
        """Return what an earlier attempt began."""
        customer = target.row.customer_workspace_id
        await act_in(target.session, customer)
        cluster = await target.session.get_one(ClusterRow, (customer, target.row.cluster_id))
        await act_in(target.session, target.rollout.workspace_id)
        return _begun(target, place, operation_id, cluster.host)


async def _needs_no_move(target: TargetInHand, held: _Held, version: PackageVersionRow) -> bool:
    """Tell whether a target has what it shall have, may not have it, or was not approved."""
    rollout, row = target.rollout, target.row
    if held.facts.current_version_id == rollout.package_version_id:
        change_state(rollout, row, TargetState.BAKING)
        row.next_try_at = row.waiting_for = None
        await target.note("target.moved", "It had the version already.")
        return True
    message = None
    if rollout.plan_only and row.plan_digest is None:
        message = "It was not a part of the plan that was approved."
    elif await asyncio.to_thread(
        refusal_of, version.input_schema, version.default_values, held.install.values
    ):
        message = "Its customer's values do not fit the version's schema."
    if message is not None:
        await target.leave_out(LeftOut(reason=Reason.FAILED_PRECONDITION, message=message))
    return message is not None


async def _order_of_return(target: TargetInHand, held: _Held) -> MoveOrder | None:
    """Return how a target is taken back; None: it is not, as the row then says."""
    rollout, row = target.rollout, target.row
    # Not the version: its people may have changed values since, which would be lost.
    if row.operation_id is None or held.deployed_by != row.operation_id:
        message = "What it has now did not come with the rollout; it is left as it is."
        await target.leave_out(LeftOut(reason=Reason.ABORTED, message=message))
        return None
    if row.from_render_id is None or row.from_version_id is None:
        message = "It had no version before, so that there is none to return to."
        left_out = LeftOut(reason=Reason.FAILED_PRECONDITION, message=message)
        await target.leave_out(left_out, TargetState.FAILED)
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


def _block(target: TargetInHand, blocked: Blocked) -> None:
    row = target.row
    if row.state in {TargetState.PENDING, TargetState.WAITING}:
        change_state(target.rollout, row, TargetState.WAITING)
    row.waiting_for, row.next_try_at = blocked.obstacle, blocked.next_try_at
    target.rollout.updated_at = target.now


def _begun(
    target: TargetInHand, place: TargetPlace, operation_id: str | None, host: str
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
