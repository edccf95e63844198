"""A rollout moves wave after wave, and stops by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from domain.rollout import CheckKind, RolloutState, TargetState
from domain.rollout_strategy import Check, Share, Strategy
from tests.rollout_lab import Lab

QUICK = Strategy(canary=1, waves=(Share(percent=50),), concurrency=4, bake_seconds=0)


async def test_every_install_has_the_version_at_the_end(lab: Lab) -> None:
    offer = lab.offer(9)
    place = await lab.create(offer, QUICK)
    row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.SUCCEEDED, {TargetState.SUCCEEDED: 9})
    assert set(lab.versions(offer).values()) == {offer.new}
    events = await lab.events(place)
    assert events.count("wave.started") == events.count("wave.passed") == 3
    lab.check_effects()


@pytest.mark.full
async def test_nothing_but_the_canary_moves_while_it_bakes(lab: Lab) -> None:
    offer = lab.offer(4)
    place = await lab.create(offer, Strategy(canary=1, bake_seconds=3600))
    await lab.until_baking(place)
    states = [each.state for each in await lab.targets(place)]
    assert states == [TargetState.BAKING, *[TargetState.PENDING] * 3]
    await lab.ask(place, "cancel", offer.vendor)
    row = await lab.until(place)
    assert row.state is RolloutState.CANCELLED
    assert row.counts == {TargetState.SUCCEEDED: 1, TargetState.SKIPPED: 3}


async def test_who_has_the_version_already_is_no_canary(lab: Lab) -> None:
    offer = lab.offer(12)
    await lab.sql(
        "UPDATE grants SET current_version_id = %s WHERE product_id = %s"
        " AND (labels ->> 'n')::int > 1",
        (offer.new, offer.product_id),
    )
    place = await lab.create(offer, Strategy(canary=2), start=False)
    canaries = [each for each in await lab.targets(place) if each.wave == 0]
    assert [each.from_version_id for each in canaries] == [offer.old, offer.old]


async def test_a_version_that_fails_is_stopped_at_the_canary(lab: Lab) -> None:
    offer = lab.offer(6)
    lab.fail(list(lab.versions(offer)), offer.new)
    row = await lab.until(place := await lab.create(offer, QUICK))
    assert row.state is RolloutState.FAILED
    assert row.counts == {TargetState.FAILED: 1, TargetState.SKIPPED: 5}
    failed = next(each for each in await lab.targets(place) if each.state is TargetState.FAILED)
    assert failed.install_id in (row.reason or "")
    assert (row.reason or "").endswith("1 install went back by itself, when its operation failed.")
    assert failed.last_error is not None
    assert failed.last_error["message"] == "Its operation failed. It has what it had before."
    assert set(lab.versions(offer).values()) == {offer.old}


async def test_the_wave_that_failed_is_taken_back_and_the_waves_before_it_stay(lab: Lab) -> None:
    offer = lab.offer(7)
    strategy = Strategy(canary=1, waves=(Share(percent=100),), concurrency=2, bake_seconds=0)
    place = await lab.create(offer, strategy, start=False)
    canary, *wave = [each.install_id for each in await lab.targets(place)]
    lab.fail(wave[-1:], offer.new)
    await lab.wake(place)
    row = await lab.until(place)
    assert row.state is RolloutState.FAILED
    versions = lab.versions(offer)
    assert versions.pop(canary) == offer.new
    assert set(versions.values()) == {offer.old}
    renders = await lab.sql(
        "SELECT r.restored_from_render_id IS NOT DISTINCT FROM t.from_render_id AS is_back"
        " FROM rollout_targets t JOIN installs i ON i.id = t.install_id"
        " JOIN renders r ON r.id = i.current_render_id"
        " WHERE t.rollout_id = %s AND t.wave = 1 AND t.state = 'rolled_back'",
        (place.rollout_id,),
    )
    assert set(renders) == {(True,)}
    lab.check_effects()


@pytest.mark.full
async def test_failures_within_the_budget_stop_nothing(lab: Lab) -> None:
    offer = lab.offer(10)
    strategy = Strategy(canary=0, concurrency=5, bake_seconds=0, error_budget=Share(percent=20))
    lab.fail(list(lab.versions(offer))[:2], offer.new)
    row = await lab.until(await lab.create(offer, strategy))
    assert row.state is RolloutState.SUCCEEDED
    assert row.counts == {TargetState.SUCCEEDED: 8, TargetState.FAILED: 2}


@pytest.mark.full
async def test_without_automatic_rollback_what_moved_stays(lab: Lab) -> None:
    offer = lab.offer(5)
    strategy = Strategy(canary=0, concurrency=5, bake_seconds=0, automatic_rollback=False)
    lab.fail(list(lab.versions(offer))[:1], offer.new)
    row = await lab.until(await lab.create(offer, strategy))
    assert row.state is RolloutState.FAILED
    assert list(lab.versions(offer).values()).count(offer.new) == 4


@asynccontextmanager
async def _answering(status: str, body: str) -> AsyncIterator[str]:
    """Answer every request on loopback in the same way, and give the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def test_targets_whose_http_check_fails_are_taken_back(lab: Lab) -> None:
    offer = lab.offer(2)
    async with _answering("503 Service Unavailable", "") as url:
        check = Check(kind=CheckKind.HTTP, url=f"{url}/$install_id/health")
        strategy = Strategy(canary=1, bake_seconds=1, checks=(check,))
        row = await lab.until(await lab.create(offer, strategy))
    assert row.state is RolloutState.FAILED
    assert row.counts == {TargetState.ROLLED_BACK: 1, TargetState.SKIPPED: 1}
    assert set(lab.versions(offer).values()) == {offer.old}


@pytest.mark.full
async def test_a_metric_below_its_threshold_lets_a_rollout_pass(lab: Lab) -> None:
    offer = lab.offer(2)
    sample = '{"data": {"resultType": "vector", "result": [{"value": [1, "0.5"]}]}}'
    async with _answering("200 OK", sample) as url:
        check = Check(kind=CheckKind.METRIC, url=url, query="errors", threshold=1.0)
        strategy = Strategy(canary=1, bake_seconds=0, checks=(check,))
        row = await lab.until(await lab.create(offer, strategy))
        assert row.state is RolloutState.SUCCEEDED
        worse = Strategy(
            canary=1,
            bake_seconds=0,
            checks=(Check.from_json({**check.to_json(), "threshold": 0.1}),),
        )
        row = await lab.until(await lab.create(lab.offer(2), worse))
    assert row.state is RolloutState.FAILED


@pytest.mark.parametrize("checks", [Strategy().checks, ()], ids=["by default", "unnamed"])
async def test_an_install_that_becomes_degraded_while_it_bakes_fails_its_wave(
    lab: Lab, checks: tuple[Check, ...]
) -> None:
    offer = lab.offer(3)
    place = await lab.create(offer, Strategy(canary=1, bake_seconds=3600, checks=checks))
    await lab.until_baking(place)
    canary = (await lab.targets(place))[0].install_id
    await lab.sql(
        "UPDATE installs SET health = 'Degraded', health_since = now() WHERE id = %s", (canary,)
    )
    # A bake of an hour is looked at each half minute; a wake does not wait for that.
    await lab.sql("UPDATE rollouts SET bake_until = now() WHERE id = %s", (place.rollout_id,))
    await lab.wake(place)
    row = await lab.until(place)
    assert row.state is RolloutState.FAILED
    assert lab.versions(offer)[canary] == offer.old
