"""Checks inside a cluster: nothing passes unseen, and nobody waits for them who wants an end."""

import asyncio

import pytest

from domain.rollout import CheckKind, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Check, Strategy
from domain.rollout_work import RolloutPlace
from tests.rollout_engine import AWAY, HANGS
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab, Offer

SERVICE = Check(kind=CheckKind.HTTP, service="web", port=80)
JOB = Check(kind=CheckKind.JOB, image="check.example.com/passes")
BAKES = Strategy(canary=1, bake_seconds=3600, checks=(SERVICE,))


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


async def _checks_wait(lab: Lab, offer: Offer) -> tuple[RolloutPlace, str]:
    """Have the one install of an offer held when its operation has succeeded."""
    (install,) = lab.versions(offer)
    lab.set(gate_open=False)
    place = await lab.create(offer, Strategy(canary=0, checks=(SERVICE,)))
    await lab.until_moving(place)
    await lab.sql("UPDATE installs SET held_at = now() WHERE id = %s", (install,))
    lab.set()
    await lab.told(place, install, Obstacle.HOLD)
    return place, install


async def test_of_an_install_whose_checks_wait_is_told_that_it_has_the_version(lab: Lab) -> None:
    offer = lab.offer(1)
    place, install = await _checks_wait(lab, offer)
    await lab.ask(place, "cancel", offer.vendor)
    assert (await lab.until(place)).state is RolloutState.CANCELLED
    (target,) = await lab.targets(place)
    message = "It has the version, and was not checked in time (hold)."
    assert (target.last_error or {})["message"] == message
    assert lab.versions(offer) == {install: offer.new}


async def test_an_install_whose_checks_wait_is_taken_back_when_its_hold_ends(lab: Lab) -> None:
    offer = lab.offer(1)
    place, install = await _checks_wait(lab, offer)
    await lab.ask(place, "rollback", offer.vendor)
    await lab.until(place, RolloutState.ROLLING_BACK)
    await lab.sql("UPDATE installs SET held_at = NULL WHERE id = %s", (install,))
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while (await lab.row(place)).state is not RolloutState.ROLLED_BACK:
            await lab.sql(
                "UPDATE rollout_targets SET next_try_at = now() WHERE rollout_id = %s"
                " AND waiting_for IS NOT NULL",
                (place.rollout_id,),
            )
            await lab.wake(place)
            await asyncio.sleep(0.2)
    assert lab.versions(offer) == {install: offer.old}


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


async def test_services_are_asked_until_the_bake_ends_and_a_job_runs_once(lab: Lab) -> None:
    offer = lab.offer(2)
    strategy = Strategy(canary=1, bake_seconds=0, checks=(JOB, SERVICE))
    place = await lab.create(offer, strategy)
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    for install in lab.versions(offer):
        assert await lab.looks(install, CheckKind.HTTP) >= 2
        assert await lab.looks(install, CheckKind.JOB) == 1


async def test_an_install_that_has_the_version_already_is_asked_too(lab: Lab) -> None:
    offer = lab.offer(1)
    (install,) = lab.versions(offer)
    await lab.deploy(install, offer.new)
    await lab.answer(install, CheckKind.HTTP, "Its http check was not answered by 200.")
    row = await lab.until(await lab.create(offer, Strategy(bake_seconds=0, checks=(SERVICE,))))
    assert row.state is RolloutState.FAILED


async def _ask_now(lab: Lab, place: RolloutPlace, *, bake_ends: str | None = None) -> None:
    """Have what bakes asked now, and its bake be over."""
    asks = (
        "UPDATE rollout_targets SET next_try_at = now() WHERE rollout_id = %s AND state = 'baking'"
    )
    if bake_ends is not None:
        ends = "UPDATE rollouts SET bake_until = now() - %s::interval WHERE id = %s"
        await lab.sql(ends, (bake_ends, place.rollout_id))
    await lab.sql(asks, (place.rollout_id,))
    await lab.wake(place)


async def test_an_application_that_dies_while_it_bakes_stops_its_wave(lab: Lab) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, BAKES)
    await lab.until_baking(place)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.HTTP, "Its http check was not answered by 200.")
    await _ask_now(lab, place)
    row = await lab.until(place)
    assert row.state is RolloutState.FAILED
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.SKIPPED: 1}


async def test_a_hold_keeps_a_wave_whose_bake_is_over_for_a_while_and_no_longer(lab: Lab) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, BAKES)
    await lab.until_baking(place)
    canary = (await lab.targets(place))[0].install_id
    before = await lab.looks(canary, CheckKind.HTTP)
    await lab.sql("UPDATE installs SET held_at = now() WHERE id = %s", (canary,))
    await _ask_now(lab, place, bake_ends="0 s")
    told = await lab.told(place, canary, Obstacle.HOLD)
    assert told.state is TargetState.BAKING
    row = await lab.row(place)
    assert (row.state, row.wave) == (RolloutState.RUNNING, 0)
    await _ask_now(lab, place, bake_ends="1 h")
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            if (await lab.targets(place))[0].state is TargetState.SUCCEEDED:
                break
            await asyncio.sleep(0.05)
    assert (await lab.targets(place))[0].waiting_for is None
    assert await lab.looks(canary, CheckKind.HTTP) == before
    await lab.ask(place, "cancel", offer.vendor)
    await lab.until(place)


async def test_a_cluster_that_is_away_while_its_install_bakes_is_asked_when_it_is_back(
    lab: Lab,
) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, BAKES)
    await lab.until_baking(place)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.HTTP, AWAY)
    await _ask_now(lab, place, bake_ends="0 s")
    told = await lab.told(place, canary, Obstacle.OFFLINE)
    assert told.state is TargetState.BAKING
    await lab.answer(canary, CheckKind.HTTP, "Its http check was not answered by 200.")
    await _ask_now(lab, place)
    row = await lab.until(place)
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.SKIPPED: 1}


async def test_a_rollback_does_not_wait_for_looks_at_what_bakes(lab: Lab) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, BAKES)
    await lab.until_baking(place)
    canary = (await lab.targets(place))[0].install_id
    await lab.answer(canary, CheckKind.HTTP, HANGS)
    before = await lab.looks(canary, CheckKind.HTTP)
    await _ask_now(lab, place)
    await _until_asked(lab, canary, CheckKind.HTTP, before + 1)
    await lab.ask(place, "rollback", offer.vendor)
    assert (await lab.until(place)).state is RolloutState.ROLLED_BACK
    assert set(lab.versions(offer).values()) == {offer.old}
