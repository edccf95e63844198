"""A rollout ends as it should whatever is lost on the way: workers, workflows, results."""

import asyncio
import signal
from uuid import uuid4

import pytest

from domain.names import rollout_workflow_id_of
from domain.rollout import CheckKind, RolloutState, TargetState
from domain.rollout_strategy import Check, Share, Strategy
from domain.rollout_work import RolloutPlace
from tests.durability import Death, FaultInjector, Moment
from tests.rollout_lab import Lab, Offer, running_lab
from tests.servers import Servers
from tests.workflows.rollout.dying_lab import running_worker

# The plans, every phase of a wave, and of the way back.
PHASES = [
    ("PlanTarget", "plan"),
    ("RunRollout", "advance"),
    ("RunRollout", "check_targets"),
    ("MoveTarget", "begin"),
    ("MoveTarget", "await_end"),
    ("MoveTarget", "check_in_cluster"),
    ("CheckTarget", "check_services"),
    ("RollBackTarget", "begin"),
    ("RollBackTarget", "await_end"),
]
CASES = [(*phase, moment) for phase in PHASES for moment in Moment]
# A worker begins, and reaches the last phase, on a machine on which much else runs.
DIES_WITHIN_SECONDS = 150.0
STRATEGY = Strategy(
    canary=1,
    waves=(Share(percent=100),),
    concurrency=3,
    bake_seconds=0,
    checks=(Check(kind=CheckKind.HTTP, service="web", port=80),),
)


async def _asked(lab: Lab) -> tuple[Offer, RolloutPlace, str]:
    """Ask for a rollout whose second wave fails; return the canary's install too."""
    offer = lab.offer(6)
    place = await lab.create(offer, STRATEGY, plan_only=True, start=False)
    targets = await lab.targets(place)
    lab.fail([targets[-1].install_id], offer.new)
    return offer, place, targets[0].install_id


async def _begin(lab: Lab, offer: Offer, place: RolloutPlace) -> None:
    """Have it planned, and approve that."""
    await lab.wake(place)
    row = await lab.until(place, RolloutState.PLANNED, within_seconds=DIES_WITHIN_SECONDS)
    await lab.approve(place, row.plan_digest or "", offer.vendor)


async def _verify(lab: Lab, offer: Offer, place: RolloutPlace, canary: str) -> None:
    row = await lab.until(place, within_seconds=120)
    assert row.state is RolloutState.FAILED
    versions = lab.versions(offer)
    assert versions.pop(canary) == offer.new
    assert set(versions.values()) == {offer.old}
    assert sum(row.counts.values()) == 6
    assert row.counts[TargetState.SUCCEEDED] == 1
    lab.check_effects()


async def test_a_rollout_survives_repeats_of_every_activity(
    lab: Lab, injector: FaultInjector
) -> None:
    offer, place, canary = await _asked(lab)
    injector.repeat = True
    try:
        await _begin(lab, offer, place)
        await _verify(lab, offer, place, canary)
    finally:
        injector.repeat = False


async def test_a_rollout_whose_workflow_was_terminated_goes_on_by_the_schedule(lab: Lab) -> None:
    offer, place, canary = await _asked(lab)
    lab.set(seconds=0.3)
    await _begin(lab, offer, place)
    await lab.until_moving(place)
    workflow_id = rollout_workflow_id_of(place.rollout_id)
    await lab.client.get_workflow_handle(workflow_id).terminate("planted")
    await asyncio.sleep(0.5)
    await lab.client.execute_workflow(
        "ReconcileRollouts", id=f"reconcile-{uuid4().hex}", task_queue=lab.queue
    )
    lab.set()
    await _verify(lab, offer, place, canary)


@pytest.mark.full
@pytest.mark.timeout(450)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
async def test_a_rollout_ends_although_its_worker_is_killed_in_every_phase(
    servers: Servers, case: tuple[str, str, Moment]
) -> None:
    workflow, step, moment = case
    queue = f"dying-{uuid4().hex}"
    async with running_lab(servers, queue, worker=False) as lab:
        offer, place, canary = await _asked(lab)
        beginning = asyncio.create_task(_begin(lab, offer, place))
        death = Death(workflow=workflow, step=step, moment=moment)
        with running_worker(servers, queue, death) as dying:
            assert await asyncio.to_thread(dying.wait, DIES_WITHIN_SECONDS) == -signal.SIGKILL
        with running_worker(servers, queue):
            await beginning
            await _verify(lab, offer, place, canary)
