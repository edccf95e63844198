"""Every read of a value has one audit line of its own, or somebody hears of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import hvac
import pytest
import pytest_asyncio

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from domain.names import secret_namespace_of
from domain.secret import VersionPlace
from infra.openbao.policies import API, AUDIT_ID_HEADER
from infra.openbao.session import OpenBaoSession
from infra.secret_store.cross_check import CrossCheck
from tests.infra.secret_store.world import World, path_of
from tests.servers import Servers

BYPASS = "secret_store.bypass_detected"


@pytest.fixture
def devices(servers: Servers) -> list[Path]:
    return servers.stack.secret_store.audit_log_dirs


@pytest.fixture
def check(world: World, devices: list[Path]) -> CrossCheck:
    return world.cross_check(*devices)


@pytest_asyncio.fixture
async def place(world: World, caller: Caller) -> VersionPlace:
    secret = await world.new_secret(caller)
    return secret.version(next(iter(secret.values)))


@pytest_asyncio.fixture
async def thief(servers: Servers) -> AsyncIterator[OpenBaoSession]:
    """Whoever has the API's key, and asks OpenBao past the API."""
    session = OpenBaoSession(servers.openbao("api"), API)
    yield session
    session.close()


def steal(
    thief: OpenBaoSession,
    place: VersionPlace,
    audit_id: str | None = None,
    *,
    wrap: str | None = None,
) -> None:
    namespace = secret_namespace_of(place.workspace_id)

    def read(client: hvac.Client) -> object:
        headers = {} if audit_id is None else {AUDIT_ID_HEADER: audit_id}
        return client.adapter.get(f"/v1/{path_of(place)}", headers=headers, wrap_ttl=wrap)

    assert thief.call("steal", read, namespace=namespace, login_namespace=namespace)


async def reasons(world: World, place: VersionPlace) -> list[str]:
    return [event.details["reason"] for event in await world.events(place.workspace_id, BYPASS)]


async def test_reads_with_a_line_of_their_own_are_fine(
    world: World, check: CrossCheck, place: VersionPlace
) -> None:
    world.values.read(place, await world.audited(place))
    world.values.wrap(place, await world.audited(place), 60)
    world.values.look(place)
    world.values.seal(place)
    assert (await check.run()).is_on
    assert await reasons(world, place) == []


async def test_a_stolen_read_is_reported_once_wrapped_or_not(
    world: World, check: CrossCheck, place: VersionPlace, thief: OpenBaoSession
) -> None:
    steal(thief, place)
    steal(thief, place, wrap="60s")
    await check.run()
    await check.run()
    assert await reasons(world, place) == ["it carried no audit line's id"] * 2
    event = (await world.events(place.workspace_id, BYPASS))[0]
    assert event.outcome == "failed"
    assert event.details["version_id"] == place.version_id


async def test_an_id_that_belongs_to_something_else_is_no_excuse(
    world: World, check: CrossCheck, caller: Caller, place: VersionPlace, thief: OpenBaoSession
) -> None:
    other = await world.new_secret(caller)
    used = await world.audited(place)
    world.values.read(place, used)
    of_other = await world.audited(other.version(next(iter(other.values))))
    old = await world.audited(place)
    world.overwrite_states(
        "UPDATE audit_events SET occurred_at = now() - interval '2 hours' WHERE id = %s", old
    )
    for audit_id in (used, of_other, old, new_id(Prefix.AUDIT_EVENT)):
        steal(thief, place, audit_id)
    await check.run()
    assert sorted(await reasons(world, place)) == [
        "it carried an id of no audit line of this workspace",
        "its audit line allows no read of this secret",
        "its audit line is of another time",
        "the audit line was used for another read",
    ]


async def test_a_denied_attempt_allows_no_read(
    world: World, check: CrossCheck, place: VersionPlace, thief: OpenBaoSession
) -> None:
    denied = await world.audited(place)
    world.overwrite_states("UPDATE audit_events SET outcome = 'denied' WHERE id = %s", denied)
    steal(thief, place, denied)
    await check.run()
    assert await reasons(world, place) == ["its audit line allows no read of this secret"]


async def test_each_line_of_a_log_is_compared_once_also_after_it_was_rotated(
    world: World, devices: list[Path], place: VersionPlace, tmp_path: Path
) -> None:
    real = devices[0] / "audit.log"
    device = tmp_path / "audit-9"
    device.mkdir()
    log = device / "audit.log"
    first = real.read_bytes()[: real.read_bytes().find(b"\n") + 1].replace(b"root", b"ROOT")
    log.write_bytes(first)
    check = world.cross_check(device)

    async def read_values(count: int) -> bytes:
        size = real.stat().st_size
        for _ in range(count):
            await asyncio.to_thread(world.values.read, place, await world.audited(place))
        return real.read_bytes()[size:]

    with log.open("ab") as file:
        file.write(await read_values(2))
        file.write(b'{"time":"half a line')
    assert (await check.run()).reads == 2
    assert (await check.run()).reads == 0
    log.write_bytes(log.read_bytes().removesuffix(b'{"time":"half a line') + await read_values(1))
    log.rename(device / "audit-20260102T030405.678901Z.log")
    (device / "audit.log").write_bytes(await read_values(3))
    assert (await check.run()).reads == 4
    assert (await check.run()).reads == 0
    assert await reasons(world, place) == []


async def test_without_logs_it_says_that_it_is_off(world: World) -> None:
    assert not (await world.cross_check().run()).is_on
