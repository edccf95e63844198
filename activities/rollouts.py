"""What drives rollouts: looks at their rows, moves of their targets, and checks of what moved.

Each may be repeated: what one attempt wrote, the next one finds. None is a step of an operation;
the operations are those of the installs.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from temporalio import activity

from activities.holds import NotYetError
from activities.records import worker_is_stopping
from domain.rollout import Obstacle, TargetState
from domain.rollout_work import Begun, RolloutPlace, Step, TargetPlace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from infra.database.records.rollout import RolloutRecords
    from infra.rollouts.checks import RolloutChecks
    from infra.rollouts.engine import MoveEnd, TargetEngine
    from infra.rollouts.target_ends import TargetEnds
    from infra.rollouts.targets import TargetMoves

Result = TypeVar("Result")

# A worker that stops hands its waits to the next one within this time.
_STOPS_WITHIN_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutLook:
    """A look at a rollout.

    Attributes:
        place: the rollout.
        turns: how many turns of targets the workflow knows of.
        checked_at: when what bakes was last looked at.
    """

    place: RolloutPlace
    turns: int = 0
    checked_at: datetime | None = None


class RolloutActivities:
    """On the control queue.

    Args:
        records: of rollouts.
        moves: of targets.
        ends: of the moves.
        engine: moves an install.
        checks: of what bakes.
        start: the workflow of a rollout, or finds it running.
    """

    def __init__(
        self,
        records: "RolloutRecords",
        moves: "TargetMoves",
        ends: "TargetEnds",
        engine: "TargetEngine",
        checks: "RolloutChecks",
        start: "Callable[[RolloutPlace], Awaitable[None]]",
    ) -> None:
        self._records = records
        self._moves = moves
        self._ends = ends
        self._engine = engine
        self._checks = checks
        self._start = start

    @activity.defn
    async def advance_rollout(self, look: RolloutLook) -> Step:
        """Do what can be done in rows, and return what the workflow does next."""
        return await self._records.look(look.place, look.turns, look.checked_at)

    @activity.defn
    async def check_targets(self, place: RolloutPlace) -> int:
        """Look at every target that bakes, and return how many are not well.

        The rollout does nothing else meanwhile: what is found is written at once, and who stops it,
        or that it stops itself, ends the look.
        """
        ailing: set[str] = set()
        async with aclosing(self._checks.look(place, datetime.now(UTC))) as looks:
            async for found in looks:
                for each in found:
                    target = TargetPlace(rollout=place, install_id=each.install_id)
                    await self._ends.fail_check(target, each.message)
                    ailing.add(each.install_id)
                if not await self._checks.is_wanted(place):
                    break
        return len(ailing)

    @activity.defn
    async def begin_target(self, place: TargetPlace) -> Begun | None:
        """Plan the operation that moves a target, if nothing is in the way."""
        return await self._moves.begin_move(place)

    @activity.defn
    async def await_target(self, begun: Begun) -> bool:
        """Wait for the operation that moves a target.

        Returns:
            Whether the target has the version, and is to be looked at from its cluster's host.

        Raises:
            NotYetError: the operation waits; to be tried again.
        """
        end = await self._end_of(begun, TargetState.MOVING)
        if end.succeeded and begun.checks_in_cluster:
            return True
        await self._ends.end_move(begun, end, None)
        return False

    @activity.defn
    async def begin_target_rollback(self, place: TargetPlace) -> Begun | None:
        """Plan the operation that takes a target back, if nothing is in the way."""
        return await self._moves.begin_return(place)

    @activity.defn
    async def await_target_rollback(self, begun: Begun) -> None:
        """Wait for the operation that takes a target back.

        Raises:
            NotYetError: the operation waits; to be tried again.
        """
        await self._ends.end_return(begun, await self._end_of(begun, TargetState.ROLLING_BACK))

    @activity.defn
    async def start_rollouts(self) -> int:
        """Start the workflow of each rollout that has not ended, and return how many there are.

        It runs already, or it was lost.
        """
        places = await self._records.live_rollouts()
        for place in places:
            await self._start(place)
        return len(places)

    async def _end_of(self, begun: Begun, state: TargetState) -> "MoveEnd":
        """Wait for the end of an operation; one that nobody wants any more is cancelled.

        An operation that waits takes no place on a worker, and the others go on.
        """
        place = (begun.customer_workspace_id, begun.operation_id)
        while True:
            seen = await _unless_stopping(self._engine.look(*place))
            if seen is not None and not isinstance(seen, Obstacle):
                return seen
            wanted = await self._ends.note_wait(begun, seen, state)
            if not wanted and seen is not Obstacle.UNDO:
                await self._engine.cancel(*place)
            if seen is not None or not wanted:
                message = f"The operation waits: {seen or 'to be cancelled'}."
                raise NotYetError(message)


async def _unless_stopping(work: "Coroutine[Any, Any, Result]") -> "Result":
    """Do what takes a while, and hand it over to another worker when this one stops."""
    doing = asyncio.ensure_future(work)
    try:
        while not doing.done():
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            await asyncio.wait({doing}, timeout=_STOPS_WITHIN_SECONDS)
        return await doing
    finally:
        doing.cancel()
