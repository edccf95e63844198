"""Follows the moves of targets to their ends: what they wait for, what came of them, and checks.

A vendor has to do with an install for as long as the grant is in force. Whatever ends after that
tells nothing of it any more.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from domain.cluster import HostedControlPlane
from domain.errors import Reason
from domain.rollout import Obstacle, RolloutState, TargetState
from domain.rollout_failures import let_go_told
from domain.rollout_obstacles import LONGEST_MOVE, PATIENCE, REVOKED, TargetFacts, offline
from domain.rollout_strategy import Strategy
from domain.rollout_work import Begun, TargetPlace
from infra.database.queries.access import act_in
from infra.database.queries.compatibility import misfit_of
from infra.database.queries.rollout_sight import candidate_of, facts_of, is_given_up
from infra.database.records.rollout_rows import change_state, error_of
from infra.database.tables import (
    ClusterRow,
    PackageVersionRow,
    RolloutRow,
    RolloutTargetRow,
)
from infra.rollouts.engine import MoveEnd, TargetSubject
from infra.rollouts.target_rows import TargetInHand, TargetRows

# What keeps a look from a target that bakes is looked for again after this time.
_LOOKS_AGAIN: Final = timedelta(seconds=30)


class TargetEnds:
    """What the workflows of single targets write after the beginning."""

    def __init__(self, rows: TargetRows) -> None:
        self._rows = rows

    async def end_move(self, begun: Begun, end: MoveEnd, ailment: str | None = None) -> None:
        """Write how a move ended; of a target that has ended before only what it has now.

        Args:
            begun: the operation.
            end: of the operation.
            ailment: what is wrong with a target that was moved, as its cluster's host found.
        """
        async with self._rows.held(begun.place) as target:
            if target.row.state is not TargetState.MOVING:
                _note_late_end(target, begun, end)
                return
            # Its own wave may have gone on without it.
            target.row.wave = target.rollout.wave
            if not await target.is_granted():
                await target.leave_out(REVOKED)
            elif not end.succeeded:
                message = f"{end.told}. It has what it had before."
                target.end(TargetState.FAILED, end.reason, message, moved=False)
                await target.note("target.failed", message)
            elif ailment is not None:
                target.end(TargetState.FAILED, Reason.FAILED_PRECONDITION, ailment, moved=True)
                await target.note("target.failed", ailment)
            else:
                change_state(target.rollout, target.row, TargetState.BAKING)
                target.row.waiting_for = target.row.next_try_at = None
                if Strategy.from_json(target.rollout.strategy).asks_services:
                    # Of one that comes late the others may bake already.
                    target.row.next_try_at = target.rollout.bake_until
                await target.note("target.moved", "It has the version.")

    async def end_checked(self, begun: Begun, ailment: str | None) -> None:
        """Write how a move ended whose operation succeeded; see `end_move`."""
        await self.end_move(begun, MoveEnd(succeeded=True), ailment)

    async def end_return(self, begun: Begun, end: MoveEnd) -> None:
        """Write how a target was taken back."""
        async with self._rows.held(begun.place) as target:
            row = target.row
            if row.state is not TargetState.ROLLING_BACK:
                return
            if end.succeeded:
                # Why it is taken back stays, and what hindered that before is over.
                error = row.last_error
                target.end(TargetState.ROLLED_BACK, None, "", moved=False)
                row.last_error = None if error is None or "stuck" in error else error
                await target.note("target.rolled_back", "It has what it had before.")
            else:
                message = f"It could not be taken back. {end.told}."
                target.end(TargetState.FAILED, end.reason, message, moved=True, stuck=True)
                await target.note("target.failed", message)

    async def note_wait(self, begun: Begun, obstacle: Obstacle | None, state: TargetState) -> bool:
        """Write what a target's operation waits for; None: it goes on.

        From then on its wave waits for it a little longer, and after that no more.

        Args:
            begun: the operation.
            obstacle: in its way.
            state: MOVING, or ROLLING_BACK.

        Returns:
            Whether the target still waits for the operation. If not, nobody wants it any more.
        """
        if await self._is_noted(begun.place, obstacle, state):
            return True
        async with self._rows.held(begun.place) as target:
            row = target.row
            if row.state is not state:
                return False
            if row.waiting_for is not obstacle:
                patience = LONGEST_MOVE if obstacle is None else PATIENCE
                row.waiting_for, row.next_try_at = obstacle, target.now + patience
                target.rollout.updated_at = target.now
            moves = state is TargetState.MOVING
            if obstacle is Obstacle.UNDO and moves and _is_past_patience(target):
                message = "It did not take the version, and what was done cannot be undone yet."
                target.end(TargetState.FAILED, Reason.DEADLINE_EXCEEDED, message, moved=None)
                await target.note("target.failed", message)
            elif obstacle and moves and target.rollout.state is RolloutState.ROLLING_BACK:
                told = let_go_told(obstacle)
                target.end(TargetState.SKIPPED, Reason.ABORTED, told, moved=False)
                await target.note("target.skipped", told)
            return row.state is state

    async def _is_noted(
        self, place: TargetPlace, obstacle: Obstacle | None, state: TargetState
    ) -> bool:
        """Tell whether there is nothing to write, without making anybody wait for the rollout."""
        vendor, rollout_id = place.rollout.workspace_id, place.rollout.rollout_id
        async with self._rows.database.workspace(vendor) as session:
            row = await session.get_one(RolloutTargetRow, (vendor, rollout_id, place.install_id))
        if obstacle is None:
            known = row.waiting_for in {None, Obstacle.OPERATION}
        else:
            known = row.waiting_for is obstacle and obstacle is not Obstacle.UNDO
        return known and row.state is state

    async def wants_check(self, place: TargetPlace, state: TargetState) -> bool:
        """Tell whether it still matters how a target is that was moved.

        Args:
            place: the target.
            state: MOVING before it bakes, or BAKING.
        """
        vendor, rollout_id = place.rollout.workspace_id, place.rollout.rollout_id
        async with self._rows.database.workspace(vendor) as session:
            row = await session.get_one(RolloutTargetRow, (vendor, rollout_id, place.install_id))
            rollout = await session.get_one(RolloutRow, (vendor, rollout_id))
            return row.state is state and not await is_given_up(session, rollout)

    async def note_look(
        self, place: TargetPlace, began_at: datetime, obstacle: Obstacle | None
    ) -> None:
        """Write when a target that bakes is looked at from its cluster's host again.

        Args:
            place: the target.
            began_at: when the look began.
            obstacle: in its way; None: it was looked at, and nothing is wrong.
        """
        async with self._rows.held(place) as target:
            row, rollout, until = target.row, target.rollout, target.rollout.bake_until
            if row.state is not TargetState.BAKING or until is None:
                return
            if row.waiting_for is not obstacle:
                row.waiting_for, rollout.updated_at = obstacle, target.now
            strategy = Strategy.from_json(rollout.strategy)
            pause = strategy.between_service_checks(rollout.counts.get(TargetState.BAKING, 0))
            if obstacle is not None:
                row.next_try_at = target.now + _LOOKS_AGAIN
            elif began_at < until:
                row.next_try_at = min(target.now + pause, until)
            else:
                row.next_try_at = None

    async def subject_of(self, place: TargetPlace) -> TargetSubject:
        """Read what the host of a target's control plane needs to know of it."""
        vendor, rollout_id = place.rollout.workspace_id, place.rollout.rollout_id
        async with self._rows.database.workspace(vendor) as session:
            rollout = await session.get_one(RolloutRow, (vendor, rollout_id))
            row = await session.get_one(RolloutTargetRow, (vendor, rollout_id, place.install_id))
            version = await session.get_one(PackageVersionRow, (vendor, rollout.package_version_id))
            customer = row.customer_workspace_id
            await act_in(session, customer)
            facts = (await facts_of(session, vendor, [candidate_of(row)])).get(row.install_id)
            cluster = await session.get_one(ClusterRow, (customer, row.cluster_id))
            if facts is not None:
                facts = replace(facts, fits=await misfit_of(session, version, cluster) is None)
        return _subject(rollout, row, version, cluster, facts)

    async def fail_check(self, place: TargetPlace, message: str) -> None:
        """Write that a target that bakes is not well, or is nothing of the vendor's any more."""
        async with self._rows.held(place) as target:
            if target.row.state is not TargetState.BAKING:
                return
            if not await target.is_granted():
                await target.leave_out(REVOKED)
                return
            reason = Reason.FAILED_PRECONDITION
            target.end(TargetState.FAILED, reason, message, moved=True)
            await target.note("target.failed", message)

    async def record_plan(self, place: TargetPlace, digest: str | None, reason: str | None) -> None:
        """Write what a target's plan came to, or why there is none."""
        async with self._rows.held(place) as target:
            target.row.waiting_for = target.row.next_try_at = None
            target.row.plan_digest = digest
            target.rollout.updated_at = target.now
            if digest is None:
                message = "Its plan could not be made."
                target.row.last_error = error_of(reason or Reason.INTERNAL, message)

    async def note_unreachable(self, place: TargetPlace) -> None:
        """Write that a target's cluster does not answer, and when its plan is tried for again."""
        async with self._rows.held(place) as target:
            if target.row.state is TargetState.PENDING:
                blocked = offline(target.now)
                target.row.waiting_for = blocked.obstacle
                target.row.next_try_at = blocked.next_try_at
                target.rollout.updated_at = target.now


def _note_late_end(target: TargetInHand, begun: Begun, end: MoveEnd) -> None:
    """Note what a target has that was let go: a rollback takes that back too."""
    row = target.row
    if row.operation_id == begun.operation_id and row.state in {
        TargetState.SKIPPED,
        TargetState.FAILED,
    }:
        row.last_error = {**(row.last_error or {}), "moved": end.succeeded}


def _is_past_patience(target: TargetInHand) -> bool:
    ends = target.row.next_try_at
    return ends is not None and ends <= target.now


def _subject(
    rollout: RolloutRow,
    row: RolloutTargetRow,
    version: PackageVersionRow,
    cluster: ClusterRow,
    facts: TargetFacts | None,
) -> TargetSubject:
    return TargetSubject(
        rollout_id=rollout.id,
        install_id=row.install_id,
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
        waits_for=row.waiting_for,
        bake_until=rollout.bake_until,
        facts=facts,
    )
