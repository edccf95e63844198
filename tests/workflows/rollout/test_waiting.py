"""Operations that wait for their customers, or do not end, hold nobody else up."""

import asyncio

import pytest

from domain.rollout import Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Strategy
from domain.rollout_work import RolloutPlace
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab

WAVE = Strategy(canary=0, concurrency=2, bake_seconds=0, checks=())


async def _lose_patience(lab: Lab, place: RolloutPlace, column: str = "updated_at") -> None:
    """Have the time be over for which a wave waits; and with `deadline_at` the rollout's too."""
    targets = "UPDATE rollout_targets SET next_try_at = now() WHERE rollout_id = %s"
    for statement in (
        f"{targets} AND state IN ('moving', 'rolling_back')",
        f"UPDATE rollouts SET {column} = now() WHERE id = %s",  # noqa: S608 - a column of ours
    ):
        # In a thread: the lab's worker holds the rows now and then, and runs in this very loop.
        await lab.sql(statement, (place.rollout_id,))
    await lab.wake(place)


async def _until_cancelled(lab: Lab, install_id: str) -> None:
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        query = "SELECT id FROM lab.operations WHERE install_id = %s AND cancelled AND failed"
        while True:
            if await lab.sql(query, (install_id,)):
                return
            await asyncio.sleep(0.05)


async def test_an_approval_that_never_comes_holds_nobody_up_and_is_cancelled_at_the_deadline(
    lab: Lab,
) -> None:
    offer = lab.offer(5)
    strategy = Strategy(canary=1, concurrency=1, bake_seconds=0, checks=())
    place = await lab.create(offer, strategy, start=False)
    waits = (await lab.targets(place))[0].install_id
    lab.wait([waits], Obstacle.APPROVAL)
    await lab.wake(place)
    told = await lab.told(place, waits, Obstacle.APPROVAL)
    assert told.state is TargetState.MOVING
    assert told.next_try_at is not None
    await _lose_patience(lab, place)
    wanted = {each: offer.old if each == waits else offer.new for each in lab.versions(offer)}
    await lab.until_versions(offer, wanted)
    assert (await lab.row(place)).state is RolloutState.RUNNING
    await _lose_patience(lab, place, "deadline_at")
    row = await lab.until(place)
    assert row.state is RolloutState.SUCCEEDED
    assert row.counts == {TargetState.SUCCEEDED: 4, TargetState.SKIPPED: 1}
    await _until_cancelled(lab, waits)
    assert lab.versions(offer) == wanted


async def test_an_install_that_is_approved_late_is_moved_and_judged_with_the_wave_of_that_moment(
    lab: Lab,
) -> None:
    offer = lab.offer(4)
    place = await lab.create(offer, WAVE, start=False)
    waits = (await lab.targets(place))[0].install_id
    lab.wait([waits], Obstacle.APPROVAL)
    lab.fail([waits], offer.new)
    await lab.wake(place)
    await lab.told(place, waits, Obstacle.APPROVAL)
    await _lose_patience(lab, place)
    wanted = {each: offer.old if each == waits else offer.new for each in lab.versions(offer)}
    await lab.until_versions(offer, wanted)
    lab.wait([waits], None)
    row = await lab.until(place)
    assert (row.state, row.counts[TargetState.FAILED]) == (RolloutState.FAILED, 1)
    assert waits in (row.reason or "")


@pytest.mark.parametrize(
    ("verb", "ended"),
    [("cancel", RolloutState.CANCELLED), ("rollback", RolloutState.ROLLED_BACK)],
)
async def test_a_vendor_ends_a_rollout_although_an_operation_waits_for_ever(
    lab: Lab, verb: str, ended: RolloutState
) -> None:
    offer = lab.offer(3)
    place = await lab.create(offer, WAVE, start=False)
    waits = (await lab.targets(place))[0].install_id
    lab.wait([waits], Obstacle.EMERGENCY_STOP)
    await lab.wake(place)
    await lab.told(place, waits, Obstacle.EMERGENCY_STOP)
    moved = {each: offer.old if each == waits else offer.new for each in lab.versions(offer)}
    await lab.until_versions(offer, moved)
    await lab.ask(place, verb, offer.vendor)
    assert (await lab.until(place)).state is ended
    target = (await lab.targets(place))[0]
    assert target.state is TargetState.SKIPPED
    assert "emergency_stop" in (target.last_error or {})["message"]
    await _until_cancelled(lab, waits)
    assert lab.versions(offer) == (moved if verb == "cancel" else dict.fromkeys(moved, offer.old))


async def test_what_could_not_be_taken_back_by_the_deadline_is_tried_by_the_next_rollback(
    lab: Lab,
) -> None:
    offer = lab.offer(3)
    place = await lab.create(offer, WAVE)
    await lab.until(place)
    waits, fails, _ = lab.versions(offer)
    lab.wait([waits], Obstacle.APPROVAL)
    lab.fail([fails], offer.old)
    await lab.ask(place, "rollback", offer.vendor)
    await lab.told(place, waits, Obstacle.APPROVAL)
    back = dict.fromkeys((waits, fails), offer.new)
    await lab.until_versions(offer, {**dict.fromkeys(lab.versions(offer), offer.old), **back})
    assert (await lab.row(place)).state is RolloutState.ROLLING_BACK
    await _lose_patience(lab, place, "deadline_at")
    row = await lab.until(place)
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.FAILED: 2}
    await _until_cancelled(lab, waits)
    lab.wait([waits], None)
    await lab.sql("DELETE FROM lab.failures WHERE install_id = %s", (fails,))
    await lab.ask(place, "rollback", offer.vendor)
    row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.ROLLED_BACK, {TargetState.ROLLED_BACK: 3})
    assert set(lab.versions(offer).values()) == {offer.old}
    assert [each.last_error for each in await lab.targets(place)] == [None] * 3


async def test_a_failure_that_cannot_be_undone_spends_the_budget_before_it_is(lab: Lab) -> None:
    offer = lab.offer(3)
    strategy = Strategy(canary=1, bake_seconds=0, checks=())
    place = await lab.create(offer, strategy, start=False)
    canary = (await lab.targets(place))[0].install_id
    lab.wait([canary], Obstacle.UNDO)
    await lab.wake(place)
    await lab.told(place, canary, Obstacle.UNDO)
    await _lose_patience(lab, place)
    row = await lab.until(place)
    assert row.state is RolloutState.FAILED
    assert row.counts == {TargetState.FAILED: 1, TargetState.SKIPPED: 2}
    assert not await lab.sql(
        "SELECT id FROM lab.operations WHERE install_id = %s AND (cancelled OR failed)", (canary,)
    )
