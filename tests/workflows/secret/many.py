"""Many rotations side by side with faults at random moments, and what became of each."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import uuid4

from temporalio import activity

from domain.errors import BulkheadError, Reason
from domain.names import CONTROL_TASK_QUEUE, operation_id_of, workflow_id_of
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.secret import VersionState
from tests.durability import FaultInjector, Moment
from tests.platform import Platform
from tests.workflows.secret.scenarios import Rotating, RotatingToken
from workflows.operation.reconcile import ReconcileOperations

AT_ONCE = 8
ENDS_WITHIN_SECONDS = 180.0

# How often an attempt at a step loses its target or its answer; three in a row are no rarity.
_OUTAGES = 0.25

STEPS = OPERATIONS[OperationType.SECRET_ROTATE].steps


class Disturbance(StrEnum):
    """What happens to a rotation beside outages, which every rotation goes through."""

    NONE = "outages only"
    PERMANENT_FAILURE = "a permanent failure"
    CANCEL = "a cancel"
    WORKFLOW_LOST = "its workflow is ended from outside"


@dataclass
class Plan:
    """What shall happen to one rotation, once."""

    disturbance: Disturbance
    step: Step
    moment: Moment
    scenario: Rotating
    struck: bool = False


@dataclass
class RandomFaults:
    """Strikes at random, the same for the same seed and order of steps."""

    random: random.Random
    plans: dict[str, Plan] = field(default_factory=dict)
    outages: int = 0

    async def at(self, moment: Moment) -> None:
        """Strike, or do not."""
        info = activity.info()
        plan = self.plans.get(operation_id_of(info.workflow_id or "") or "")
        if plan is None:
            return
        here = ("RotateSecret", plan.step, plan.moment)
        if not plan.struck and here == (info.workflow_type, info.activity_id, moment):
            plan.struck = True
            await _strike(plan)
        if self.random.random() < _OUTAGES / 2:
            self.outages += 1
            raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "planted")


async def _strike(plan: Plan) -> None:
    platform, operation = plan.scenario.platform, plan.scenario.operation
    match plan.disturbance:
        case Disturbance.PERMANENT_FAILURE:
            raise BulkheadError(Reason.CONFLICT, "planted")
        case Disturbance.CANCEL:
            await platform.cancel(operation)
        case Disturbance.WORKFLOW_LOST:
            handle = platform.client.get_workflow_handle(
                workflow_id_of(
                    OperationType.SECRET_ROTATE, operation.secret_id, operation.operation_id
                )
            )
            await handle.terminate("planted")
        case Disturbance.NONE:
            pass


@dataclass
class Outcome:
    """What became of all rotations.

    Attributes:
        ends: how many ended how, by what happened to them.
        outages: how often an activity failed for a moment.
        seconds: how long one rotation took.
        stuck: those that did not end in time.
        dangling: versions that are neither shown nor given up.
        wrong: rotations whose secret or target is not as their end says.
    """

    ends: Counter[tuple[Disturbance, OperationState]] = field(default_factory=Counter)
    outages: int = 0
    seconds: list[float] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    dangling: int = 0
    wrong: list[str] = field(default_factory=list)


async def rotate_many(platform: Platform, injector: FaultInjector, runs: int) -> Outcome:
    """Rotate that many secrets, a half of them with a target, and look at each afterwards."""
    outcome, places = Outcome(), asyncio.Semaphore(AT_ONCE)
    faults = RandomFaults(random.Random(random.random()))
    injector.besides = faults.at
    ended = asyncio.Event()
    reconciling = asyncio.create_task(_keep_reconciling(platform, ended))
    scenarios = [kind(platform) for kind in (Rotating, RotatingToken)]
    callers = [await scenario.caller() for scenario in scenarios]

    async def one(number: int) -> None:
        async with places:
            # Each secret has its own state; the workspace and its logins are shared.
            scenario = type(scenarios[number % 2])(platform, callers[number % 2])
            try:
                await _rotate(scenario, faults, outcome)
            finally:
                scenario.close()

    try:
        await asyncio.gather(*(one(number) for number in range(runs)))
    finally:
        ended.set()
        injector.besides = None
        for scenario in scenarios:
            scenario.close()
    # The last pass is over before the next test begins; and a pass that failed is one to know of.
    await reconciling
    outcome.outages = faults.outages
    return outcome


async def _keep_reconciling(platform: Platform, ended: asyncio.Event) -> None:
    """Do what the schedule does: lost workflows are found by nobody else."""
    while not ended.is_set():
        await platform.client.execute_workflow(
            ReconcileOperations.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1)


async def _rotate(scenario: Rotating, faults: RandomFaults, outcome: Outcome) -> None:
    disturbance = faults.random.choice([Disturbance.NONE, *Disturbance])
    step, moment = faults.random.choice(STEPS), faults.random.choice(list(Moment))
    plan = Plan(disturbance, step, moment, scenario)
    operation = await scenario.plan(await scenario.make())
    faults.plans[operation.operation_id] = plan
    started = time.monotonic()
    await scenario.start()
    try:
        state = await scenario.end_of(operation.operation_id, ENDS_WITHIN_SECONDS)
    except AssertionError as error:
        outcome.stuck.append(str(error))
        return
    outcome.seconds.append(time.monotonic() - started)
    outcome.ends[disturbance, state] += 1
    del faults.plans[operation.operation_id]
    try:
        if state is OperationState.SUCCEEDED:
            await scenario.verify_done()
        else:
            assert disturbance is not Disturbance.NONE
            await scenario.verify_undone()
    except AssertionError as error:
        outcome.wrong.append(f"{operation.operation_id} {plan.disturbance} {plan.step}: {error}")
    ended = {VersionState.WRITING, VersionState.PENDING, VersionState.DESTROYING}
    outcome.dangling += sum(version.state in ended for version in await scenario.versions())
