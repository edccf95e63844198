"""Records the histories of rollouts; `tests.workflows.record_histories` says what they are for.

`python -m tests.workflows.rollout.recording PREFIX` records these alone.
"""

import asyncio
import sys
from pathlib import Path

from domain.names import rollout_workflow_id_of, target_workflow_id_of
from domain.rollout import CheckKind, RolloutState
from domain.rollout_strategy import Check, Share, Strategy
from domain.rollout_work import Verb
from tests.histories import keep_history
from tests.rollout_lab import Lab, Offer, running_lab
from tests.servers import Servers, running_servers

_HISTORIES = Path(__file__).parents[1] / "histories"
_STRATEGY = Strategy(canary=1, waves=(Share(percent=100),), concurrency=2, bake_seconds=0)


async def record_rollouts(servers: Servers, prefix: str) -> None:
    """Record a rollout that is approved and ends well, and one that takes a wave back."""
    async with running_lab(servers, "recorded-rollouts") as lab:
        offer = lab.offer(2)
        place = await lab.create(offer, _STRATEGY, plan_only=True)
        row = await lab.until(place, RolloutState.PLANNED)
        await lab.approve(place, row.plan_digest or "", offer.vendor)
        await lab.until(place)
        run = rollout_workflow_id_of(place.rollout_id)
        await _keep(lab, run, f"{prefix}-rollout-run-succeeded")
        install = (await lab.targets(place))[0].install_id
        for verb in (Verb.PLAN, Verb.MOVE):
            target = target_workflow_id_of(place.rollout_id, install, verb)
            await _keep(lab, target, f"{prefix}-rollout-{verb}-target-succeeded")
        await _record_failure(lab, lab.offer(4), prefix)
        await _record_checks(lab, lab.offer(1), prefix)


async def _record_checks(lab: Lab, offer: Offer, prefix: str) -> None:
    checks = (Check(kind=CheckKind.HTTP, service="web", port=80),)
    place = await lab.create(offer, Strategy(bake_seconds=0, checks=checks))
    await lab.until(place)
    await _keep(lab, rollout_workflow_id_of(place.rollout_id), f"{prefix}-rollout-run-checked")
    install = (await lab.targets(place))[0].install_id
    for verb, name in ((Verb.MOVE, "move-target-checked"), (Verb.CHECK, "check-target-succeeded")):
        target = target_workflow_id_of(place.rollout_id, install, verb)
        await _keep(lab, target, f"{prefix}-rollout-{name}")


async def _record_failure(lab: Lab, offer: Offer, prefix: str) -> None:
    strategy = Strategy(canary=1, concurrency=2, bake_seconds=0)
    place = await lab.create(offer, strategy, start=False)
    _, first, *_, last = [each.install_id for each in await lab.targets(place)]
    lab.fail([last], offer.new)
    await lab.wake(place)
    await lab.until(place)
    await _keep(lab, rollout_workflow_id_of(place.rollout_id), f"{prefix}-rollout-run-failed")
    target = target_workflow_id_of(place.rollout_id, first, Verb.ROLL_BACK)
    await _keep(lab, target, f"{prefix}-rollout-{Verb.ROLL_BACK}-target-succeeded")


async def _keep(lab: Lab, workflow_id: str, name: str) -> None:
    handle = lab.client.get_workflow_handle(workflow_id)
    await handle.result()
    if await keep_history(handle, lab.connection.codec, _HISTORIES / f"{name}.json"):
        sys.stderr.write(f"{name}.json\n")


async def _record(prefix: str) -> None:
    with running_servers() as servers:
        await record_rollouts(servers, prefix)


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1]))
