"""What a rollout asks of the host of a target's control plane: its plan, and looks at it."""

from typing import TYPE_CHECKING, Final

from temporalio import activity

from domain.errors import BulkheadError, Reason
from domain.rollout import CheckKind
from domain.rollout_strategy import Target
from domain.rollout_work import Begun, TargetPlace

if TYPE_CHECKING:
    from infra.rollouts.cluster_checks import ClusterChecks
    from infra.rollouts.engine import TargetPlanner, TargetSubject
    from infra.rollouts.targets import TargetMoves

# A cluster that does not answer is asked so often, seconds apart.
_TRIES: Final = 5


class RolloutHostActivities:
    """On the queue of one control-plane host.

    Args:
        moves: of targets.
        planner: makes plans.
        checks: asks clusters.
    """

    def __init__(
        self, moves: "TargetMoves", planner: "TargetPlanner", checks: "ClusterChecks"
    ) -> None:
        self._moves = moves
        self._planner = planner
        self._checks = checks

    @activity.defn
    async def plan_target(self, place: TargetPlace) -> None:
        """Make the plan of a target and note its digest; nothing of the install changes.

        A plan that cannot be made is noted as such: the target is no part of what is approved.
        """
        subject = await self._moves.subject_of(place)
        try:
            digest = await self._planner.digest_of(subject)
        except BulkheadError as error:
            if error.retryable and activity.info().attempt < _TRIES:
                raise
            await self._moves.record_plan(place, None, error.reason)
            return
        await self._moves.record_plan(place, digest, None)

    @activity.defn
    async def check_in_cluster(self, begun: Begun) -> None:
        """Look at a target that was moved, and write how its move ended with that.

        A cluster that does not answer is not a target that is not well: it is asked again, and
        what cannot be asked in the end has passed. While an emergency stop covers it no Job begins.
        """
        subject = await self._moves.subject_of(begun.place)
        makes_job = any(check.kind is CheckKind.JOB for check in subject.strategy.checks)
        if makes_job and subject.stop_id is not None:
            message = f"The emergency stop {subject.stop_id} holds its checks."
            raise BulkheadError(Reason.ABORTED, message, retryable=True)
        try:
            ailment = await self._look(subject)
        except BulkheadError as error:
            if error.retryable and activity.info().attempt < _TRIES:
                raise
            ailment = None if error.retryable else f"It cannot be checked: {error.reason}."
        await self._moves.end_checked(begun, ailment)

    async def _look(self, subject: "TargetSubject") -> str | None:
        target = Target(
            install_id=subject.install_id,
            cluster_id=subject.plane.cluster_id,
            region_id=subject.region_id,
        )
        for check in subject.strategy.checks:
            if check.in_cluster:
                wrong = await self._checks.look(subject.plane, target, subject.rollout_id, check)
                if wrong is not None:
                    return wrong
        return None
