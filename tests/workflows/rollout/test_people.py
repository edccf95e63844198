"""What people ask of a rollout: pause, resume, cancel, rollback, approvals."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType

from domain.caller import Caller, PrincipalKind
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import rollout_workflow_id_of
from domain.rollout import Gate, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Share, Strategy
from domain.rollout_work import RolloutPlace
from infra.database.tables import RolloutRow
from tests.durability import FaultInjector, Moment
from tests.rollout_engine import AWAY
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab, Offer

SLOW = Strategy(canary=0, concurrency=2, bake_seconds=0, checks=())


def _somebody_else(offer: Offer) -> Caller:
    return replace(offer.vendor, principal_id=new_id(Prefix.USER))


async def _waits_in(lab: Lab, place: RolloutPlace, wave: int) -> RolloutRow:
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            row = await lab.until(place, RolloutState.PLANNED)
            if row.wave == wave:
                return row
            await asyncio.sleep(0.05)


async def test_a_pause_bites_within_two_seconds_and_a_resume_goes_on(lab: Lab) -> None:
    offer = lab.offer(12)
    lab.set(seconds=0.2)
    place = await lab.create(offer, SLOW)
    await lab.until_moving(place)
    asked = time.monotonic()
    await lab.ask(place, "pause", offer.vendor)
    await lab.until(place, RolloutState.PAUSED)
    begun = await lab.sql(
        "SELECT id FROM lab.operations WHERE rollout_id = %s", (place.rollout_id,)
    )
    assert time.monotonic() - asked < 2
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            if TargetState.MOVING not in (await lab.row(place)).counts:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    assert len(begun) == len(
        await lab.sql("SELECT id FROM lab.operations WHERE rollout_id = %s", (place.rollout_id,))
    )
    lab.set()
    await lab.ask(place, "resume", offer.vendor)
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    assert set(lab.versions(offer).values()) == {offer.new}
    lab.check_effects()


async def test_a_rollout_looks_seldom_while_targets_move_and_at_once_when_one_ends(
    lab: Lab,
) -> None:
    offer = lab.offer(4)
    place = await lab.create(offer, SLOW, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    await lab.until_moving(place, 2)
    before = await _events(lab, place)
    # Looks after 1 and 3 s; each is an activity, a timer and two tasks of the workflow.
    await asyncio.sleep(5)
    assert await _events(lab, place) - before <= 2 * 11
    lab.set()
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    run = lab.client.get_workflow_handle(rollout_workflow_id_of(place.rollout_id))
    cut_short = EventType.EVENT_TYPE_TIMER_CANCELED
    assert cut_short in [each.event_type for each in (await run.fetch_history()).events]


async def _events(lab: Lab, place: RolloutPlace) -> int:
    run = lab.client.get_workflow_handle(rollout_workflow_id_of(place.rollout_id))
    return (await run.describe()).history_length


@pytest.mark.parametrize("order", [("pause", "rollback"), ("rollback", "pause")])
async def test_a_rollback_wins_over_a_pause_that_is_pressed_at_the_same_time(
    lab: Lab, order: tuple[str, str]
) -> None:
    offer = lab.offer(8)
    lab.set(seconds=0.1)
    place = await lab.create(offer, SLOW)
    await lab.until_moving(place, 2)
    asked = await asyncio.gather(
        *(lab.ask(place, verb, offer.vendor) for verb in order), return_exceptions=True
    )
    # A pause that comes when the rollback has begun is told so.
    assert all(
        error is None or getattr(error, "reason", None) is Reason.FAILED_PRECONDITION
        for error in asked
    )
    row = await lab.until(place)
    assert row.state is RolloutState.ROLLED_BACK
    assert set(lab.versions(offer).values()) == {offer.old}
    assert set(row.counts) == {TargetState.ROLLED_BACK, TargetState.SKIPPED}
    lab.check_effects()


@pytest.mark.full
async def test_a_rollback_takes_every_wave_back(lab: Lab) -> None:
    offer = lab.offer(5)
    strategy = Strategy(
        canary=1, waves=(Share(count=2),), concurrency=5, bake_seconds=0, gate=Gate.NONE
    )
    place = await lab.create(offer, strategy, start=False)
    held = (await lab.targets(place))[-1].install_id
    await lab.sql("UPDATE installs SET held_at = now() WHERE id = %s", (held,))
    await lab.wake(place)
    wanted = {
        install: offer.old if install == held else offer.new for install in lab.versions(offer)
    }
    await lab.until_versions(offer, wanted)
    await lab.ask(place, "rollback", offer.vendor)
    row = await lab.until(place)
    assert row.state is RolloutState.ROLLED_BACK
    assert row.counts == {TargetState.ROLLED_BACK: 4, TargetState.SKIPPED: 1}
    assert set(lab.versions(offer).values()) == {offer.old}


async def test_a_rollout_that_has_ended_can_still_be_taken_back_once(lab: Lab) -> None:
    offer = lab.offer(5)
    place = await lab.create(offer, SLOW)
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    older, changed, corrected, *_ = lab.versions(offer)
    # Another version, or other values, are their customers' own by now, which nobody takes away.
    await lab.deploy(older, offer.old)
    await lab.deploy(changed, offer.new)
    await lab.deploy(corrected, offer.new, corrects=True)
    await lab.ask(place, "rollback", offer.vendor)
    row = await lab.until(place)
    assert row.state is RolloutState.ROLLED_BACK
    assert row.counts == {TargetState.ROLLED_BACK: 3, TargetState.SKIPPED: 2}
    versions = lab.versions(offer)
    assert versions.pop(changed) == offer.new
    assert set(versions.values()) == {offer.old}
    with pytest.raises(BulkheadError, match="bulkhead rollouts create") as refused:
        await lab.ask(place, "rollback", offer.vendor)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    lab.check_effects()


async def test_a_render_that_changed_nothing_does_not_keep_a_version_from_being_taken_back(
    lab: Lab,
) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, SLOW)
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    same, others = lab.versions(offer)
    await lab.deploy(same, offer.new, skips=True)
    await lab.deploy(same, offer.new, skips=True)
    # Whose manifests are the same, and whose values are lost all the same when it is taken back.
    await lab.deploy(others, offer.new, skips=True, values='{"n": "another"}')
    await lab.ask(place, "rollback", offer.vendor)
    row = await lab.until(place)
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.SKIPPED: 1}
    assert lab.versions(offer) == {same: offer.old, others: offer.new}


async def test_a_gate_lets_each_wave_begin_once_somebody_else_approved_it(lab: Lab) -> None:
    offer = lab.offer(3)
    strategy = Strategy(canary=1, bake_seconds=0, gate=Gate.EACH_WAVE)
    place = await lab.create(offer, strategy)
    for wave in (0, 1):
        row = await _waits_in(lab, place, wave)
        assert list(lab.versions(offer).values()).count(offer.new) == wave
        with pytest.raises(BulkheadError) as refused:
            await lab.approve(place, row.plan_digest or "", offer.vendor)
        assert refused.value.reason is Reason.PERMISSION_DENIED
        await lab.approve(place, row.plan_digest or "", _somebody_else(offer))
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED
    assert len((await lab.row(place)).approvals) == 2


async def test_an_approval_of_the_canary_is_not_one_of_whoever_takes_its_place(lab: Lab) -> None:
    offer = lab.offer(3)
    strategy = Strategy(canary=1, bake_seconds=0, gate=Gate.EACH_WAVE)
    place = await lab.create(offer, strategy)
    first = await _waits_in(lab, place, 0)
    canary = (await lab.targets(place))[0].install_id
    await lab.sql("UPDATE installs SET observed_at = NULL WHERE id = %s", (canary,))
    await lab.approve(place, first.plan_digest or "", _somebody_else(offer))
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            again = await lab.row(place)
            if again.plan_digest != first.plan_digest and again.state is RolloutState.PLANNED:
                break
            await asyncio.sleep(0.05)
    assert again.wave == 0
    assert set(lab.versions(offer).values()) == {offer.old}
    with pytest.raises(BulkheadError) as refused:
        await lab.approve(place, first.plan_digest or "", _somebody_else(offer))
    assert refused.value.reason is Reason.ABORTED
    await lab.approve(place, again.plan_digest or "", _somebody_else(offer))
    await _waits_in(lab, place, 1)
    assert list(lab.versions(offer).values()).count(offer.new) == 1
    await lab.ask(place, "cancel", offer.vendor)
    await lab.until(place)


async def test_who_created_a_rollout_does_not_approve_it_with_a_token_of_theirs(lab: Lab) -> None:
    offer = lab.offer(1)
    strategy = Strategy(canary=0, bake_seconds=0, gate=Gate.START)
    place = await lab.create(offer, strategy)
    row = await lab.until(place, RolloutState.PLANNED)
    gone, own, owns_own, others = (new_id(Prefix.API_TOKEN) for _ in range(4))
    somebody_else = _somebody_else(offer).principal_id
    for token, maker in (
        (own, offer.vendor.principal_id),
        (owns_own, own),
        (gone, new_id(Prefix.API_TOKEN)),
        (others, somebody_else),
    ):
        await lab.sql(
            "INSERT INTO api_tokens (workspace_id, id, name, role, scopes, prefix, token_hash,"
            " created_by) VALUES (%s, %s, 'x', 'admin', '{}', 'x', %s, %s)",
            (offer.vendor.workspace_id, token, token.encode(), maker),
        )
    for token in (own, owns_own, gone):
        caller = replace(offer.vendor, kind=PrincipalKind.API_TOKEN, principal_id=token)
        with pytest.raises(BulkheadError) as refused:
            await lab.approve(place, row.plan_digest or "", caller)
        assert refused.value.reason is Reason.PERMISSION_DENIED
    caller = replace(offer.vendor, kind=PrincipalKind.API_TOKEN, principal_id=others)
    await lab.approve(place, row.plan_digest or "", caller)
    assert (await lab.until(place)).state is RolloutState.SUCCEEDED


async def test_only_the_plan_that_was_looked_at_is_approved_and_done(lab: Lab) -> None:
    offer = lab.offer(4)
    away, stale, *_ = lab.versions(offer)
    await lab.sql("UPDATE installs SET observed_at = NULL WHERE id = %s", (away,))
    strategy = Strategy(canary=0, concurrency=4, bake_seconds=0, error_budget=Share(count=1))
    place = await lab.create(offer, strategy, plan_only=True)
    await lab.told(place, away, Obstacle.OFFLINE)
    await lab.sql(
        "UPDATE rollouts SET created_at = now() - interval '2 h' WHERE id = %s", (place.rollout_id,)
    )
    await lab.wake(place)
    row = await lab.until(place, RolloutState.PLANNED)
    assert set(lab.versions(offer).values()) == {offer.old}
    with pytest.raises(BulkheadError) as refused:
        await lab.approve(place, "sha256:another", offer.vendor)
    assert refused.value.reason is Reason.ABORTED
    assert refused.value.metadata["plan_digest"] == row.plan_digest
    await lab.sql("UPDATE installs SET observed_at = now() WHERE id = %s", (away,))
    await lab.sql("UPDATE lab.plans SET digest = 'another' WHERE install_id = %s", (stale,))
    await lab.approve(place, row.plan_digest or "", offer.vendor)
    row = await lab.until(place)
    assert row.state is RolloutState.SUCCEEDED
    states = {each.install_id: each.state for each in await lab.targets(place)}
    assert states[away] is TargetState.SKIPPED
    assert states[stale] is TargetState.FAILED
    assert list(lab.versions(offer).values()).count(offer.new) == 2


@pytest.mark.parametrize("seen", [True, False], ids=["seen lately", "not seen"])
async def test_an_install_that_was_away_is_planned_when_it_is_back(lab: Lab, *, seen: bool) -> None:
    offer = lab.offer(2)
    away = next(iter(lab.versions(offer)))
    observed = "UPDATE installs SET observed_at = %s WHERE id = %s"
    if seen:
        await lab.answer(away, "plan", AWAY)
    else:
        await lab.sql(observed, (None, away))
    place = await lab.create(offer, SLOW, plan_only=True)
    told = await lab.told(place, away, Obstacle.OFFLINE)
    assert told.state is TargetState.PENDING
    assert (await lab.row(place)).state is RolloutState.PLANNING
    await lab.answer(away, "plan", None)
    await lab.sql(observed, (datetime.now(UTC), away))
    await lab.sql(
        "UPDATE rollout_targets SET next_try_at = now() WHERE rollout_id = %s"
        " AND waiting_for IS NOT NULL",
        (place.rollout_id,),
    )
    await lab.wake(place)
    row = await lab.until(place, RolloutState.PLANNED)
    await lab.approve(place, row.plan_digest or "", offer.vendor)
    row = await lab.until(place)
    assert row.counts == {TargetState.SUCCEEDED: 2}


async def test_a_rollback_that_is_asked_for_as_a_rollout_ends_does_not_wait_for_the_schedule(
    lab: Lab, injector: FaultInjector
) -> None:
    offer = lab.offer(2)
    place = await lab.create(offer, Strategy(canary=0, bake_seconds=0, checks=()))
    asked = asyncio.Event()

    async def ask_at_the_end(moment: Moment) -> None:
        info = activity.info()
        is_this = info.workflow_id == rollout_workflow_id_of(place.rollout_id)
        if asked.is_set() or moment is Moment.BEFORE or not is_this:
            return
        if (await lab.row(place)).state is RolloutState.SUCCEEDED:
            asked.set()
            await lab.ask(place, "rollback", offer.vendor)

    injector.besides = ask_at_the_end
    try:
        await asyncio.wait_for(asked.wait(), COMES_WITHIN_SECONDS)
        await lab.until(place, RolloutState.ROLLED_BACK)
    finally:
        injector.besides = None
