"""What a rollout asks of the host of a target's control plane: its plan, and looks at it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from temporalio import activity

from activities.holds import NotYetError
from domain.errors import BulkheadError, Reason
from domain.rollout import TargetState
from domain.rollout_obstacles import REVOKED, LeftOut, what_stops_check
from domain.rollout_strategy import Target
from domain.rollout_work import Begun, TargetPlace

if TYPE_CHECKING:
    from infra.rollouts.cluster_checks import ClusterChecks
    from infra.rollouts.engine import TargetPlanner, TargetSubject
    from infra.rollouts.target_ends import TargetEnds

# A cluster that does not answer is asked so often, seconds apart.
_TRIES: Final = 5


class RolloutHostActivities:
    """On the queue of one control-plane host.

    Args:
        ends: of the moves of targets.
        planner: makes plans.
        checks: asks clusters.
    """

    def __init__(
        self, ends: "TargetEnds", planner: "TargetPlanner", checks: "ClusterChecks"
    ) -> None:
        self._ends = ends
        self._planner = planner
        self._checks = checks

    @activity.defn
    async def plan_target(self, place: TargetPlace) -> None:
        """Make the plan of a target and note its digest; nothing of the install changes.

        A plan that cannot be made is noted as such: the target is no part of what is approved.
        """
        subject = await self._ends.subject_of(place)
        if subject.facts is None or not subject.facts.granted:
            await self._ends.record_plan(place, None, REVOKED.reason)
            return
        if not subject.facts.fits:
            await self._ends.record_plan(place, None, Reason.FAILED_PRECONDITION)
            return
        try:
            digest = await self._planner.digest_of(subject)
        except BulkheadError as error:
            if error.retryable and activity.info().attempt < _TRIES:
                raise
            await self._ends.record_plan(place, None, error.reason)
            return
        await self._ends.record_plan(place, digest, None)

    @activity.defn
    async def check_in_cluster(self, begun: Begun) -> None:
        """Look at a target that was moved, and write how its move ended with that.

        A cluster that does not answer is not a target that is not well: it is asked again, and
        what cannot be asked in the end has passed.

        Raises:
            NotYetError: its customer, or an emergency stop, lets no check begin; to be tried again.
        """
        try:
            ailment = await self._look(begun)
        except BulkheadError as error:
            if error.retryable and activity.info().attempt < _TRIES:
                raise
            ailment = None if error.retryable else f"It cannot be checked: {error.reason}."
        await self._ends.end_checked(begun, ailment)

    async def _look(self, begun: Begun) -> str | None:
        """Return what is wrong, as a sentence; None: nothing, or nobody asks any more."""
        strategy = (await self._ends.subject_of(begun.place)).strategy
        for check in strategy.checks:
            if not check.in_cluster:
                continue
            # Anew before each: one may take an hour.
            subject = await self._ends.subject_of(begun.place)
            match what_stops_check(subject.facts, check, datetime.now(UTC)):
                case LeftOut():
                    return None
                case obstacle:
                    wanted = await self._ends.note_wait(begun, obstacle, TargetState.MOVING)
            if not wanted:
                return None
            if obstacle is not None:
                message = f"The checks of the install wait: {obstacle}."
                raise NotYetError(message)
            wrong = await self._checks.look(
                subject.plane, _target(subject), subject.rollout_id, check
            )
            if wrong is not None:
                return wrong
        return None


def _target(subject: "TargetSubject") -> Target:
    return Target(
        install_id=subject.install_id,
        cluster_id=subject.plane.cluster_id,
        region_id=subject.region_id,
    )
