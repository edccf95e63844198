"""Checks inside a cluster: nothing passes unseen, and nobody waits for them who wants an end."""

import asyncio

import pytest

from domain.rollout import CheckKind, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Check, Strategy
from tests.rollout_engine import AWAY, HANGS
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab

SERVICE = Check(kind=CheckKind.HTTP, service="web", port=80)
JOB = Check(kind=CheckKind.JOB, image="check.example.com/passes")


async def _until_asked(lab: Lab, install_id: str, kind: CheckKind, times: int = 1) -> None:
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            if await lab.looks(install_id, kind) >= times:
                return
            await asyncio.sleep(0.05)


async def test_a_cluster_that_does_not_answer_a_check_is_waited_for(lab: Lab) -> None:
    offer = lab.offer(2)
    strategy = Strategy(canary=1, bake_seconds=0, checks=(JOB, SERVICE))
    place = await lab.create(offer, strategy, start=False)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.HTTP, AWAY)
    await lab.wake(place)
    told = await lab.told(place, canary, Obstacle.OFFLINE)
    assert told.state is TargetState.MOVING
    before = await lab.looks(canary, CheckKind.HTTP)
    # More than one attempt, of which none passes and each keeps the patience of the wave.
    await _until_asked(lab, canary, CheckKind.HTTP, before + 8)
    still = await lab.told(place, canary, Obstacle.OFFLINE)
    assert (still.state, still.next_try_at) == (TargetState.MOVING, told.next_try_at)
    await lab.answer(canary, CheckKind.HTTP, None)
    row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.SUCCEEDED, {TargetState.SUCCEEDED: 2})
    # A Job that has passed is not made again by a later attempt.
    assert await lab.looks(canary, CheckKind.JOB) == 1


async def test_an_install_that_a_check_in_its_cluster_finds_ill_is_taken_back(lab: Lab) -> None:
    offer = lab.offer(2)
    strategy = Strategy(canary=1, bake_seconds=0, checks=(SERVICE,))
    place = await lab.create(offer, strategy, start=False)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.HTTP, "Its http check was not answered by 200.")
    await lab.wake(place)
    row = await lab.until(place)
    assert row.state is RolloutState.FAILED
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.SKIPPED: 1}
    assert set(lab.versions(offer).values()) == {offer.old}


@pytest.mark.parametrize(
    ("verb", "ended"),
    [("cancel", RolloutState.CANCELLED), ("rollback", RolloutState.ROLLED_BACK)],
)
async def test_who_ends_a_rollout_does_not_wait_for_its_checks(
    lab: Lab, verb: str, ended: RolloutState
) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, Strategy(canary=1, checks=(JOB,)), start=False)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.JOB, HANGS)
    await lab.wake(place)
    await _until_asked(lab, canary, CheckKind.JOB)
    await lab.ask(place, verb, offer.vendor)
    assert (await lab.until(place)).state is ended
    has = offer.new if verb == "cancel" else offer.old
    assert lab.versions(offer)[canary] == has


async def test_a_wave_that_stops_itself_does_not_wait_for_its_checks(lab: Lab) -> None:
    offer = lab.offer(2)
    strategy = Strategy(canary=0, concurrency=2, checks=(JOB,))
    place = await lab.create(offer, strategy, start=False)
    hangs, fails = (each.install_id for each in await lab.targets(place))
    await lab.answer(hangs, CheckKind.JOB, HANGS)
    await lab.answer(fails, CheckKind.JOB, "Its Job failed.")
    await lab.wake(place)
    row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.FAILED, {TargetState.ROLLED_BACK: 2})
    assert set(lab.versions(offer).values()) == {offer.old}
