"""Every read of a value has one audit line of its own, or somebody hears of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import hvac
import pytest
import pytest_asyncio

from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import secret_namespace_of
from domain.secret import VersionPlace
from infra.openbao.audit_logs import logs_of, rotate
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


class Device:
    """The folder of an audit device in which we write, lines as OpenBao wrote them elsewhere."""

    def __init__(self, folder: Path, place: VersionPlace, real: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.log = folder / "audit.log"
        self._place = place
        self._real = real
        self.begin()

    def begin(self) -> None:
        """Make a log. Each begins with a line of its own."""
        first = self._real.read_bytes().partition(b"\n")[0] + b"\n"
        self.log.write_bytes(first.replace(b"root", uuid4().hex.encode()))

    def end(self, number: int) -> Path:
        """End the log, and begin the next one."""
        ended = self.log.rename(self.folder / f"audit-20260102T03040{number}.678901Z.log")
        self.begin()
        return ended

    def answers_of(self, read: Callable[[], object]) -> list[bytes]:
        """Return the lines of the answers with this version's value that a call leads to."""
        size = self._real.stat().st_size
        read()
        # Others read at the same time.
        return [
            line
            for line in self._real.read_bytes()[size:].splitlines(keepends=True)
            if path_of(self._place).encode() in line and b'"type":"response"' in line
        ]


@pytest.fixture
def device(devices: list[Path], place: VersionPlace, tmp_path: Path) -> Device:
    return Device(tmp_path / "audit-9", place, devices[0] / "audit.log")


async def test_each_line_of_a_log_is_compared_once_also_after_it_was_rotated(
    world: World, place: VersionPlace, device: Device
) -> None:
    log = device.log
    check = world.cross_check(device.folder)

    async def read_values(count: int) -> bytes:
        lines: list[bytes] = []
        for _ in range(count):
            audit_id = await world.audited(place)
            read = partial(world.values.read, place, audit_id)
            lines += await asyncio.to_thread(device.answers_of, read)
        assert len(lines) == count
        return b"".join(lines)

    with log.open("ab") as file:
        file.write(await read_values(2))
        file.write(b'{"time":"half a line')
    assert (await check.run()).reads == 2
    assert (await check.run()).reads == 0
    log.write_bytes(log.read_bytes().removesuffix(b'{"time":"half a line') + await read_values(1))
    log.rename(device.folder / "audit-20260102T030405.678901Z.log")
    (device.folder / "audit.log").write_bytes(await read_values(3))
    assert (await check.run()).reads == 4
    assert (await check.run()).reads == 0
    assert await reasons(world, place) == []


async def test_a_torn_line_is_told_once_and_hides_nothing_behind_it(
    world: World, place: VersionPlace, thief: OpenBaoSession, device: Device
) -> None:
    check = world.cross_check(device.folder)
    stolen = [device.answers_of(partial(steal, thief, place))[0] for _ in range(3)]
    torn_by_a_full_disk = stolen[0][: stolen[0].index(b'"response"')] + stolen[1]
    torn_by_a_power_loss = b"\0" * 512 + stolen[0][-100:]
    with device.log.open("ab") as file:
        file.write(torn_by_a_full_disk + torn_by_a_power_loss + stolen[2])
    done = await check.run()
    assert (done.reads, done.bypasses, done.torn_lines) == (2, 2, 2)
    assert (await check.run()).torn_lines == 0
    assert len(await reasons(world, place)) == 2
    (told,) = await world.events(place.workspace_id, "secret_store.torn_audit_line")
    assert (told.outcome, told.resource_id) == ("failed", place.workspace_id)


async def test_logs_that_were_removed_before_they_were_compared_are_told(
    world: World, device: Device
) -> None:
    check = world.cross_check(device.folder)
    await check.run()
    # Ended, and the next one begun: both are there.
    device.log.rename(device.folder / "audit-20260102T030405.678901Z.log")
    device.begin()
    assert (await check.run()).gaps == 0
    for log in device.folder.iterdir():
        log.unlink()
    device.begin()
    assert (await check.run()).gaps == 1
    assert (await check.run()).gaps == 0


async def test_a_log_is_removed_once_it_was_compared(world: World, device: Device) -> None:
    check = world.cross_check(device.folder)
    first = device.end(1)
    with first.open("ab") as log:
        log.write(b'{"time":"half a line')
    second = device.end(2)
    rotate(device.folder.parent, kept=1)
    assert logs_of(device.folder) == [first, second, device.log]
    await check.run()
    rotate(device.folder.parent, kept=1)
    assert logs_of(device.folder) == [second, device.log]


async def test_a_workspace_is_told_once_that_its_reads_were_removed_uncompared(
    world: World, place: VersionPlace, device: Device
) -> None:
    check = world.cross_check(device.folder)
    first, _ = device.end(1), device.end(2)
    await check.run()
    read = partial(world.values.read, place, await world.audited(place))
    with first.open("ab") as log:
        log.writelines(await asyncio.to_thread(device.answers_of, read))
    rotate(device.folder.parent, kept=1, most=1)
    assert not first.exists()
    assert (await check.run()).gaps == 1
    assert (await check.run()).gaps == 0
    (told,) = await world.events(place.workspace_id, "secret_store.uncompared_log_removed")
    assert (told.outcome, told.resource_id) == ("failed", place.workspace_id)
    assert told.details == {"log": first.name, "device": device.folder.name}


async def test_a_log_that_cannot_be_read_fails_the_pass_and_hides_no_other_one(
    world: World, place: VersionPlace, thief: OpenBaoSession, device: Device, tmp_path: Path
) -> None:
    (tmp_path / "audit-1" / "audit.log").mkdir(parents=True)
    with device.log.open("ab") as file:
        file.writelines(device.answers_of(partial(steal, thief, place)))
    check = world.cross_check(tmp_path / "audit-1", device.folder)
    for _ in range(2):
        with pytest.raises(BulkheadError, match="cannot be read") as raised:
            await check.run()
        assert raised.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert len(await reasons(world, place)) == 1


async def test_without_logs_it_says_that_it_is_off(world: World) -> None:
    assert not (await world.cross_check().run()).is_on
