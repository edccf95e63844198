"""Every customer keeps control: holds, windows, consent, grants, and clusters that are away."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from domain.rollout import CheckKind, Obstacle, RolloutState, TargetState
from domain.rollout_strategy import Check, Share, Strategy
from domain.rollout_work import RolloutPlace
from infra.database.tables import RolloutTargetRow
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab, Offer

WAVE = Strategy(canary=0, concurrency=2, bake_seconds=0, checks=())


async def _waiting_for(
    lab: Lab, place: RolloutPlace, obstacle: Obstacle, least: int = 1
) -> list[RolloutTargetRow]:
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            found = await lab.targets(place)
            waiting = [each for each in found if each.waiting_for is obstacle]
            states = [each.state for each in found]
            if len(waiting) >= least and len(waiting) == states.count(TargetState.WAITING):
                return waiting
            await asyncio.sleep(0.05)


async def _try_again(lab: Lab, place: RolloutPlace) -> None:
    await lab.sql(
        "UPDATE rollout_targets SET next_try_at = now() WHERE rollout_id = %s"
        " AND waiting_for IS NOT NULL",
        (place.rollout_id,),
    )
    await lab.wake(place)


def _installs(lab: Lab, offer: Offer, count: int) -> list[str]:
    return list(lab.versions(offer))[:count]


async def _is_left_behind_until(
    lab: Lab, offer: Offer, place: RolloutPlace, obstacle: Obstacle, release: str, least: int = 1
) -> None:
    """Assert that the others move, that the blocked move once they may, and that all ends well."""
    blocked = {each.install_id for each in await _waiting_for(lab, place, obstacle, least)}
    wanted = {
        install: offer.old if install in blocked else offer.new for install in lab.versions(offer)
    }
    await lab.until_versions(offer, wanted)
    assert (await lab.row(place)).state is RolloutState.RUNNING
    await lab.sql(release, (list(blocked),))
    await _try_again(lab, place)
    row = await lab.until(place)
    assert row.state is RolloutState.SUCCEEDED
    assert set(lab.versions(offer).values()) == {offer.new}


async def test_a_hold_that_arrives_mid_wave_keeps_its_install_from_moving(lab: Lab) -> None:
    offer = lab.offer(4)
    place = await lab.create(offer, WAVE, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    moving = {each.install_id for each in await lab.until_moving(place, 2)}
    later = [each.install_id for each in await lab.targets(place) if each.install_id not in moving]
    await lab.sql(
        "UPDATE installs SET held_at = now(), hold_reason = 'x' WHERE id = ANY (%s)", (later[:1],)
    )
    lab.set()
    release = "UPDATE installs SET held_at = NULL WHERE id = ANY (%s)"
    await _is_left_behind_until(lab, offer, place, Obstacle.HOLD, release)


async def test_a_window_that_closes_in_the_middle_lets_what_moves_end(lab: Lab) -> None:
    offer = lab.offer(4)
    now = datetime.now(UTC)
    opens, closes = (now + timedelta(hours=hours) for hours in (2, 3))
    window = f'{{"timezone": "UTC", "start": "{opens:%H:%M}", "end": "{closes:%H:%M}"}}'
    place = await lab.create(offer, WAVE, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    await lab.until_moving(place, 2)
    await lab.sql(
        "UPDATE installs SET update_window = %s WHERE product_id = %s", (window, offer.product_id)
    )
    lab.set()
    release = "UPDATE installs SET update_window = NULL WHERE id = ANY (%s)"
    await _is_left_behind_until(lab, offer, place, Obstacle.WINDOW, release, least=2)


@pytest.mark.full
async def test_a_customer_who_wants_to_be_asked_is(lab: Lab) -> None:
    offer = lab.offer(3)
    one = _installs(lab, offer, 1)
    await lab.sql("UPDATE grants SET consent = 'ask' WHERE install_id = ANY (%s)", (one,))
    place = await lab.create(offer, WAVE)
    release = f"UPDATE grants SET consented_version_id = '{offer.new}' WHERE install_id = ANY (%s)"  # noqa: S608 - an id of ours
    await _is_left_behind_until(lab, offer, place, Obstacle.CONSENT, release)


async def test_an_emergency_stop_keeps_what_it_covers(lab: Lab) -> None:
    offer = lab.offer(3, customers=3)
    stopped = offer.customers[0]
    await lab.sql(
        "INSERT INTO emergency_stops (workspace_id, id, scope, subject, reason, stopped_by)"
        " VALUES (%s, %s, 'workspace', '', 'x', 'x')",
        (stopped, f"stop_{stopped[3:]}"),
    )
    place = await lab.create(offer, WAVE)
    release = (
        "UPDATE emergency_stops SET lifted_at = now() WHERE workspace_id IN"
        " (SELECT workspace_id FROM installs WHERE id = ANY (%s))"
    )
    await _is_left_behind_until(lab, offer, place, Obstacle.EMERGENCY_STOP, release)


@pytest.mark.parametrize("scope", ["workspace", "product"])
async def test_a_stop_of_the_vendors_holds_its_rollout_until_it_is_lifted(
    lab: Lab, scope: str
) -> None:
    offer = lab.offer(6)
    waves = (Share(count=1), Share(percent=100))
    strategy = Strategy(canary=1, waves=waves, concurrency=2, bake_seconds=0, checks=())
    place = await lab.create(offer, strategy, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    canary = (await lab.until_moving(place))[0].install_id
    vendor = offer.vendor.workspace_id
    await lab.sql(
        "INSERT INTO emergency_stops (workspace_id, id, scope, subject, reason, stopped_by)"
        " VALUES (%s, %s, %s, %s, 'x', 'x')",
        (vendor, f"stop_{vendor[3:]}", scope, offer.product_id if scope == "product" else ""),
    )
    lab.set()
    await lab.until_versions(offer, {**lab.versions(offer), canary: offer.new})
    await _waiting_for(lab, place, Obstacle.EMERGENCY_STOP)
    await asyncio.sleep(1)
    row = await lab.row(place)
    assert (row.state, row.wave) == (RolloutState.RUNNING, 1)
    begun = await lab.sql(
        "SELECT id FROM lab.operations WHERE rollout_id = %s", (place.rollout_id,)
    )
    assert len(begun) == 1
    await lab.sql("UPDATE emergency_stops SET lifted_at = now() WHERE workspace_id = %s", (vendor,))
    await _try_again(lab, place)
    row = await lab.until(place)
    assert (row.state, row.waves) == (RolloutState.SUCCEEDED, 3)
    assert set(lab.versions(offer).values()) == {offer.new}


@pytest.mark.full
async def test_clusters_that_come_back_are_moved_then(lab: Lab) -> None:
    offer = lab.offer(10)
    away = _installs(lab, offer, 3)
    await lab.sql(
        "UPDATE installs SET observed_at = now() - interval '1 hour' WHERE id = ANY (%s)", (away,)
    )
    place = await lab.create(offer, Strategy(canary=2, concurrency=3, bake_seconds=0, checks=()))
    release = "UPDATE installs SET observed_at = now() WHERE id = ANY (%s)"
    await _is_left_behind_until(lab, offer, place, Obstacle.OFFLINE, release, least=3)


async def test_clusters_that_stay_away_are_left_out_at_the_deadline(lab: Lab) -> None:
    offer = lab.offer(10)
    away = _installs(lab, offer, 3)
    await lab.sql(
        "UPDATE installs SET observed_at = now() - interval '1 hour' WHERE id = ANY (%s)", (away,)
    )
    strategy = Strategy(
        canary=1, waves=(Share(count=3),), concurrency=3, bake_seconds=0, deadline_seconds=4
    )
    place = await lab.create(offer, strategy)
    row = await lab.until(place)
    assert row.state is RolloutState.SUCCEEDED
    assert row.counts == {TargetState.SUCCEEDED: 7, TargetState.SKIPPED: 3}
    left = {each.install_id for each in await lab.targets(place) if each.last_error}
    assert left == set(away)


async def test_nobody_moves_before_a_canary_did_when_the_canary_is_away(lab: Lab) -> None:
    offer = lab.offer(6)
    place = await lab.create(
        offer, Strategy(canary=1, concurrency=6, bake_seconds=3600), start=False
    )
    canary = (await lab.targets(place))[0].install_id
    await lab.sql("UPDATE installs SET observed_at = NULL WHERE id = %s", (canary,))
    await lab.wake(place)
    await lab.until_baking(place)
    assert list(lab.versions(offer).values()).count(offer.new) == 1
    assert lab.versions(offer)[canary] == offer.old
    await lab.ask(place, "cancel", offer.vendor)
    await lab.until(place)


async def test_a_grant_that_is_revoked_mid_rollout_ends_the_vendors_reach(lab: Lab) -> None:
    offer = lab.offer(4)
    place = await lab.create(offer, WAVE, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    moving = {each.install_id for each in await lab.until_moving(place, 2)}
    later = [install for install in lab.versions(offer) if install not in moving]
    await lab.sql("UPDATE grants SET revoked_at = now() WHERE install_id = ANY (%s)", (later,))
    lab.set()
    row = await lab.until(place)
    assert row.state is RolloutState.SUCCEEDED
    assert row.counts == {TargetState.SUCCEEDED: 2, TargetState.SKIPPED: 2}
    assert all(lab.versions(offer)[install] == offer.old for install in later)


async def test_a_grant_that_is_revoked_while_its_install_moves_tells_the_vendor_nothing_more(
    lab: Lab,
) -> None:
    offer = lab.offer(3)
    strategy = Strategy(canary=0, bake_seconds=3600)
    place = await lab.create(offer, strategy, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    await lab.until_moving(place, 3)
    moving, baking, _ = lab.versions(offer)
    await lab.sql("UPDATE grants SET revoked_at = now() WHERE install_id = %s", (moving,))
    lab.set()
    await lab.until_baking(place)
    await lab.sql("UPDATE grants SET revoked_at = now() WHERE install_id = %s", (baking,))
    await lab.sql(
        "UPDATE installs SET health = 'Degraded' WHERE id = ANY (%s)", ([moving, baking],)
    )
    await lab.sql("UPDATE rollouts SET bake_until = now() WHERE id = %s", (place.rollout_id,))
    await lab.wake(place)
    row = await lab.until(place)
    assert (row.state, row.counts[TargetState.SUCCEEDED]) == (RolloutState.SUCCEEDED, 1)
    for target in await lab.targets(place):
        if target.install_id in {moving, baking}:
            assert target.state is TargetState.SKIPPED
            assert target.health == "Healthy"
            assert (target.last_error or {})["message"] == "The customer revoked the grant."


async def test_no_check_begins_in_the_cluster_of_who_holds_an_install_or_revokes_the_grant(
    lab: Lab,
) -> None:
    offer = lab.offer(3)
    checks = (Check(kind=CheckKind.HTTP, service="web", port=80),)
    strategy = Strategy(canary=0, bake_seconds=0, checks=checks)
    place = await lab.create(offer, strategy, start=False)
    lab.set(gate_open=False)
    await lab.wake(place)
    await lab.until_moving(place, 3)
    held, revoked, other = lab.versions(offer)
    await lab.sql("UPDATE installs SET held_at = now(), hold_reason = 'x' WHERE id = %s", (held,))
    await lab.sql("UPDATE grants SET revoked_at = now() WHERE install_id = %s", (revoked,))
    lab.set()
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while True:
            if Obstacle.HOLD in [each.waiting_for for each in await lab.targets(place)]:
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    query = "SELECT DISTINCT install_id FROM lab.looks WHERE install_id = ANY (%s)"
    assert await lab.sql(query, ([held, revoked, other],)) == [(other,)]
    await lab.sql("UPDATE installs SET held_at = NULL WHERE id = %s", (held,))
    row = await lab.until(place)
    assert row.counts == {TargetState.SUCCEEDED: 2, TargetState.SKIPPED: 1}
    assert len(await lab.sql(query, ([held, revoked, other],))) == 2


@pytest.mark.parametrize(
    "change",
    [
        """compatibility = '{"placement": {"regions": ["elsewhere"]}}'""",
        """compatibility = '{"kaas": {"networkProfile": "other"}}'""",
        """input_schema = '{"properties": {"replicas": {"type": "integer"}}}'""",
    ],
    ids=["region", "network", "values"],
)
async def test_a_version_that_does_not_fit_is_not_brought(lab: Lab, change: str) -> None:
    offer = lab.offer(2)
    await lab.sql(f"UPDATE package_versions SET {change} WHERE id = %s", (offer.new,))  # noqa: S608
    await lab.sql(
        """UPDATE installs SET "values" = '{"replicas": "many"}' WHERE product_id = %s""",
        (offer.product_id,),
    )
    row = await lab.until(place := await lab.create(offer, WAVE))
    assert (row.state, row.counts) == (RolloutState.FAILED, {TargetState.SKIPPED: 2})
    assert set(lab.versions(offer).values()) == {offer.old}
    assert all("fit" in (each.last_error or {})["message"] for each in await lab.targets(place))


async def test_nobody_moves_after_the_deadline_when_nobody_was_the_canary(lab: Lab) -> None:
    offer = lab.offer(4)
    await lab.sql(
        "UPDATE installs SET observed_at = NULL WHERE product_id = %s", (offer.product_id,)
    )
    place = await lab.create(offer, Strategy(canary=1, bake_seconds=0, checks=()))
    await lab.until(place, RolloutState.RUNNING)
    await lab.sql("UPDATE rollouts SET deadline_at = now() WHERE id = %s", (place.rollout_id,))
    await lab.sql(
        "UPDATE installs SET observed_at = now() WHERE product_id = %s", (offer.product_id,)
    )
    await lab.wake(place)
    row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.FAILED, {TargetState.SKIPPED: 4})
    assert row.reason == "No install could be the canary before the deadline."
    assert set(lab.versions(offer).values()) == {offer.old}


@pytest.mark.full
async def test_two_rollouts_take_turns_on_one_install(lab: Lab) -> None:
    offer = lab.offer(3)
    lab.set(gate_open=False)
    first = await lab.create(offer, WAVE)
    await lab.until_moving(first, 2)
    second = await lab.create(offer, WAVE)
    await _waiting_for(lab, second, Obstacle.BUSY)
    lab.set()
    assert (await lab.until(first)).state is RolloutState.SUCCEEDED
    await _try_again(lab, second)
    assert (await lab.until(second)).state is RolloutState.SUCCEEDED
    lab.check_effects()
    assert set(lab.versions(offer).values()) == {offer.new}
