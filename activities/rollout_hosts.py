"""What a rollout asks of the host of a target's control plane: its plan, and looks at it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from temporalio import activity

from activities.holds import NotYetError
from activities.progress import note_progress
from domain.errors import BulkheadError, Reason
from domain.rollout import Obstacle, TargetState
from domain.rollout_obstacles import REVOKED, LeftOut, what_stops_check
from domain.rollout_strategy import Check, Target
from domain.rollout_work import Begun, TargetPlace

if TYPE_CHECKING:
    from infra.rollouts.cluster_checks import ClusterChecks
    from infra.rollouts.engine import TargetPlanner, TargetSubject
    from infra.rollouts.target_ends import TargetEnds

# For a plan a cluster that does not answer is asked so often, before it counts as away.
_TRIES: Final = 5

# In the heartbeats of an attempt: how many checks have passed. A Job is made once.
_PASSED: Final = "checks_passed"


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

        A plan that cannot be made is noted as such: the target is no part of what is approved. Who
        is away is asked again later.
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
            if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                await self._ends.note_unreachable(place)
            else:
                await self._ends.record_plan(place, None, error.reason)
            return
        await self._ends.record_plan(place, digest, None)

    @activity.defn
    async def check_in_cluster(self, begun: Begun) -> None:
        """Look at a target that was moved, and write how its move ended with that.

        Nothing passes unseen: a cluster that is away is asked again when it is back.

        Raises:
            NotYetError: the cluster is away, or its customer, or an emergency stop, lets no check
                begin; to be tried again.
        """
        try:
            ailment = await self._look(begun)
        except BulkheadError as error:
            if error.retryable:
                raise
            ailment = _unasked(error)
        await self._ends.end_checked(begun, ailment)

    async def _look(self, begun: Begun) -> str | None:
        """Return what is wrong, as a sentence; None: nothing, or nobody asks any more."""
        strategy = (await self._ends.subject_of(begun.place)).strategy
        checks = [check for check in strategy.checks if check.in_cluster]
        passed = _passed_before()
        for number, check in enumerate(checks[passed:], passed):
            _note_passed(number)
            # Anew before each: one may take an hour.
            subject = await self._ends.subject_of(begun.place)
            obstacle = what_stops_check(subject.facts, check, datetime.now(UTC))
            if isinstance(obstacle, LeftOut):
                return None
            wanted = await self._ends.wants_check(begun.place, TargetState.MOVING)
            # Its wave has patience once: until the cluster answers it counts as away.
            is_away = obstacle is None and subject.waits_for is Obstacle.OFFLINE
            if wanted and not is_away:
                wanted = await self._ends.note_wait(begun, obstacle, TargetState.MOVING)
            if not wanted:
                return None
            if obstacle is not None:
                raise _not_yet(obstacle)
            wrong = await self._ask_first(begun, subject, check)
            if wrong is not None:
                return wrong
        _note_passed(len(checks))
        return None

    async def _ask_first(self, begun: Begun, subject: "TargetSubject", check: Check) -> str | None:
        async def is_wanted() -> bool:
            return await self._ends.wants_check(begun.place, TargetState.MOVING)

        try:
            wrong = await self._checks.look(
                subject.plane,
                _target(subject),
                subject.rollout_id,
                check,
                is_last=False,
                is_wanted=is_wanted,
            )
        except BulkheadError as error:
            if not error.retryable:
                raise
            if await self._ends.note_wait(begun, Obstacle.OFFLINE, TargetState.MOVING):
                raise _not_yet(Obstacle.OFFLINE) from error
            return None
        if subject.waits_for is Obstacle.OFFLINE:
            await self._ends.note_wait(begun, None, TargetState.MOVING)
        return wrong

    @activity.defn
    async def check_services(self, place: TargetPlace) -> bool:
        """Ask the Services of a target that bakes once more; return whether it is not well."""
        began_at = datetime.now(UTC)
        strategy = (await self._ends.subject_of(place)).strategy
        for check in strategy.checks:
            if not check.asks_service:
                continue
            found = await self._ask_again(place, check, began_at)
            if isinstance(found, Obstacle):
                await self._ends.note_look(place, began_at, found)
                return False
            if found is not None:
                await self._ends.fail_check(place, found)
                return True
        # Who wants no more answers has got none.
        if await self._ends.wants_check(place, TargetState.BAKING):
            await self._ends.note_look(place, began_at, None)
        return False

    async def _ask_again(
        self, place: TargetPlace, check: Check, began_at: datetime
    ) -> Obstacle | str | None:
        """Return what is in the way, or wrong as a sentence; None: nothing is."""
        subject = await self._ends.subject_of(place)
        obstacle = what_stops_check(subject.facts, check, began_at)
        if isinstance(obstacle, LeftOut):
            return obstacle.message
        if obstacle is not None:
            return obstacle

        async def is_wanted() -> bool:
            return await self._ends.wants_check(place, TargetState.BAKING)

        is_last = subject.bake_until is not None and began_at >= subject.bake_until
        try:
            return await self._checks.look(
                subject.plane,
                _target(subject),
                subject.rollout_id,
                check,
                is_last=is_last,
                is_wanted=is_wanted,
            )
        except BulkheadError as error:
            return Obstacle.OFFLINE if error.retryable else _unasked(error)


def _unasked(error: BulkheadError) -> str:
    return f"It cannot be checked: {error.reason}."


def _not_yet(obstacle: Obstacle) -> NotYetError:
    return NotYetError(f"The checks of the install wait: {obstacle}.")


def _passed_before() -> int:
    """Return how many checks earlier attempts have seen to pass."""
    return max((each.get(_PASSED, 0) for each in activity.info().heartbeat_details), default=0)


def _note_passed(number: int) -> None:
    """Note for the next attempt how many checks have passed."""
    note_progress(f"{number} checks passed", **{_PASSED: number})
    # An attempt may end before the next beat.
    activity.heartbeat({_PASSED: number})


def _target(subject: "TargetSubject") -> Target:
    return Target(
        install_id=subject.install_id,
        cluster_id=subject.plane.cluster_id,
        region_id=subject.region_id,
    )
