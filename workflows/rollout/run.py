"""RunRollout: drives a rollout by its rows, wave after wave."""

import asyncio
import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from activities.rollouts import RolloutActivities, RolloutLook
from domain.names import ROLLOUTS_TASK_QUEUE, target_workflow_id_of
from domain.rollout import ROLLOUT_CHANGED
from domain.rollout_work import Claim, RolloutPlace, RolloutRun, Step, TargetPlace, Verb
from workflows.calls import execute, execute_here_first
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL
from workflows.rollout.check_target import CheckTarget
from workflows.rollout.move_target import MoveTarget
from workflows.rollout.plan_target import PlanTarget
from workflows.rollout.policies import ADVANCE, CHECK
from workflows.rollout.roll_back_target import RollBackTarget

# Each target is a handful of events here; a history of this length replays in a tenth of a second.
_MOST_EVENTS: Final = 1000

# What was begun by a run before this one, or ended while its worker was lost, is seen by looking:
# soon at first, then seldom, because most ends arrive as events.
_FIRST_LOOK: Final = timedelta(seconds=1)
_SLOW_LOOK: Final = timedelta(seconds=30)

# Runs of before look by an activity.
_LOOKS_HERE: Final = "looks-here"

_WORKFLOWS: Final = {
    Verb.PLAN: PlanTarget.__name__,
    Verb.MOVE: MoveTarget.__name__,
    Verb.CHECK: CheckTarget.__name__,
    Verb.ROLL_BACK: RollBackTarget.__name__,
}

_ON_QUEUE_OF_TARGETS: Final = frozenset({Verb.MOVE, Verb.ROLL_BACK})


@workflow.defn
class RunRollout:
    """Ask the rows what is next, and have it done; lost, it is started again as if nothing were.

    The workflows of the targets outlive it. While some move, it rests until one of them ends,
    somebody asks for something, or it is time for another look.
    """

    def __init__(self) -> None:
        self._changed = False
        self._ended = False
        self._patience = _FIRST_LOOK

    @workflow.signal(name=ROLLOUT_CHANGED)
    def changed(self) -> None:
        """Somebody asked for something, or approved it."""
        self._changed = True

    @workflow.run
    async def run(self, run: RolloutRun) -> int:
        """Return how many turns were given to targets, over all runs."""
        place = run.place
        advance = _advance_here if workflow.patched(_LOOKS_HERE) else _advance
        look = RolloutLook(place=place, turns=run.turns)
        while True:
            self._changed = self._ended = False
            step = await advance(look)
            if step.ended and not self._changed:
                return step.turns
            await asyncio.gather(*(self._begin(place, step, claim) for claim in step.claims))
            look = replace(look, turns=step.turns)
            if step.check:
                # What was seen is as old as the beginning of the look.
                look = replace(look, checked_at=workflow.now())
                await _check(place)
            await self._rest(step)
            if workflow.info().get_current_history_length() > _MOST_EVENTS:
                workflow.continue_as_new(RolloutRun(place=place, turns=step.turns))

    async def _begin(self, place: RolloutPlace, step: Step, claim: Claim) -> None:
        """Start the workflow of a target; one that runs already has the turn."""
        try:
            begun = await workflow.start_child_workflow(
                _WORKFLOWS[step.verb],
                args=[TargetPlace(rollout=place, install_id=claim.install_id), claim.host],
                id=target_workflow_id_of(place.rollout_id, claim.install_id, step.verb),
                task_queue=ROLLOUTS_TASK_QUEUE if step.verb in _ON_QUEUE_OF_TARGETS else None,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                parent_close_policy=ParentClosePolicy.ABANDON,
                static_summary=f"{step.verb} {claim.install_id}",
            )
        except WorkflowAlreadyStartedError:
            return
        begun.add_done_callback(functools.partial(self._target_ended, step.verb))

    def _target_ended(self, verb: Verb, target: asyncio.Future[Any]) -> None:
        """Look again; how a target's workflow ended is in rows."""
        failed = target.cancelled() or target.exception() is not None
        self._ended = True
        if verb is Verb.CHECK and not failed and target.result():
            # Nothing moves, and yet its wave may have to stop.
            self._changed = True

    async def _rest(self, step: Step) -> None:
        def is_woken() -> bool:
            # Where nothing moves, rows said already what a late end says.
            return self._changed or (step.busy and self._ended)

        pause = timedelta(seconds=step.look_again_seconds)
        if not pause or is_woken():
            self._patience = _FIRST_LOOK
            return
        if step.busy:
            pause = min(pause, self._patience)
        try:
            await workflow.wait_condition(is_woken, timeout=pause)
            self._patience = _FIRST_LOOK
        except TimeoutError:
            self._patience = min(2 * self._patience, _SLOW_LOOK)


async def _advance_here(look: RolloutLook) -> Step:
    return await execute_here_first("advance", RolloutActivities.advance_rollout, look, ADVANCE)


async def _advance(look: RolloutLook) -> Step:
    step: Step = await execute("advance", RolloutActivities.advance_rollout, look, ADVANCE, None)
    return step


async def _check(place: RolloutPlace) -> None:
    await workflow.execute_activity_method(
        RolloutActivities.check_targets,
        place,
        activity_id="check_targets",
        start_to_close_timeout=CHECK.attempt,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=CHECK.retry,
    )


@workflow.defn
class ReconcileRollouts:
    """On a schedule: a rollout whose workflow was lost, or never started, goes on."""

    @workflow.run
    async def run(self) -> int:
        """Return how many rollouts have not ended."""
        return await workflow.execute_activity_method(
            RolloutActivities.start_rollouts,
            activity_id="start_rollouts",
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
