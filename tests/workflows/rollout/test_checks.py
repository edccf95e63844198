"""Checks from here: what they find is heard at once, and whoever stops a rollout ends them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from domain.rollout import CheckKind, RolloutState, TargetState
from domain.rollout_strategy import Check, Strategy
from tests.durability import FaultInjector
from tests.rollout_lab import COMES_WITHIN_SECONDS, Lab


class _Hanging:
    """Answers 503 for those who are ill, and nobody else."""

    def __init__(self) -> None:
        self.ill: set[str] = set()
        self.asked = asyncio.Event()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.set()
        if any(each in head for each in self.ill):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        else:
            # Until the client loses its patience.
            await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def _hanging() -> AsyncIterator[_Hanging]:
    server = _Hanging()
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        server.url = f"http://{host}:{port}"
        yield server


def _strategy(server: _Hanging, bake_seconds: int = 3600) -> Strategy:
    check = Check(kind=CheckKind.HTTP, url=f"{server.url}/$install_id")
    return Strategy(canary=0, concurrency=2, bake_seconds=bake_seconds, checks=(check,))


async def test_a_wave_stops_itself_although_a_check_of_it_has_no_answer_yet(lab: Lab) -> None:
    offer = lab.offer(2)
    async with _hanging() as server:
        place = await lab.create(offer, _strategy(server), start=False)
        ill, hangs = (each.install_id for each in await lab.targets(place))
        server.ill.add(ill)
        await lab.wake(place)
        row = await lab.until(place)
    assert (row.state, row.counts) == (RolloutState.FAILED, {TargetState.ROLLED_BACK: 2})
    errors = {each.install_id: each.last_error for each in await lab.targets(place)}
    assert "answered 503" in (errors[ill] or {})["message"]
    assert errors[hangs] is None


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("pause", RolloutState.PAUSED),
        ("cancel", RolloutState.CANCELLED),
        ("rollback", RolloutState.ROLLED_BACK),
    ],
)
async def test_who_stops_a_rollout_does_not_wait_for_addresses_that_hang(
    lab: Lab, verb: str, state: RolloutState
) -> None:
    offer = lab.offer(2)
    async with _hanging() as server:
        place = await lab.create(offer, _strategy(server))
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            await server.asked.wait()
        await lab.ask(place, verb, offer.vendor)
        await lab.until(place, state)
        if state is RolloutState.PAUSED:
            await lab.ask(place, "cancel", offer.vendor)
            await lab.until(place)
    # Nobody was judged by an answer that did not come.
    assert [each.last_error for each in await lab.targets(place)] == [None, None]


async def test_a_look_ends_although_addresses_hang_and_the_last_one_reaches_everybody(
    lab: Lab, injector: FaultInjector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.rollouts.checks._LONGEST_LOOK_SECONDS", 0.2)
    offer = lab.offer(2)
    async with _hanging() as server:
        before = injector.executions["check_targets"]
        # Looked at each two seconds.
        place = await lab.create(offer, _strategy(server, bake_seconds=10))
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                if injector.executions["check_targets"] >= before + 3:
                    break
                await asyncio.sleep(0.05)
        assert (await lab.row(place)).counts == {TargetState.BAKING: 2}
        row = await lab.until(place)
    assert row.counts == {TargetState.ROLLED_BACK: 2}
    assert all(
        (each.last_error or {})["message"] == "Its http check got no answer."
        for each in await lab.targets(place)
    )
