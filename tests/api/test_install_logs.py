"""Logs and pods of installs: a real API server is asked, and nothing that is read is kept."""

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from api import log_events
from api.server import Listener, serve_until
from domain.caller import Role
from tests.api import contract
from tests.api.gate import JSON, Gate
from tests.api.keeper import error_of, ok
from tests.api.log_site import LogSite, running_log_site
from tests.api.process import answers, free_port, running_process
from tests.servers import Servers

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    position: str | None
    data: JSON


@pytest.fixture(scope="module")
async def site(
    gate: Gate, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LogSite]:
    async with running_log_site(gate, servers, tmp_path_factory.mktemp("logs")) as found:
        ok(await found.set_logs(enabled=True))
        yield found


@pytest.fixture(autouse=True)
async def _nothing_runs(site: LogSite, gate: Gate) -> None:
    site.stop_pods()
    site.clear()
    # The server notices a moment later that the client of the test before is gone.
    await gone(lambda: gate.app.state.log_streams.total)


@pytest.fixture(scope="module")
async def listening(gate: Gate) -> AsyncIterator[str]:
    """Serve the application: a client that holds an answer in memory sees no stream."""
    address, stop = f"127.0.0.1:{free_port()}", asyncio.Event()
    serving = asyncio.create_task(serve_until(stop, Listener(gate.app, address)))
    await answers(f"http://{address}")
    yield f"http://{address}"
    stop.set()
    await serving


def events_in(text: str) -> list[Event]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [event_of(block.splitlines()) for block in blocks]


def event_of(lines: list[str]) -> Event:
    fields = dict(line.split(": ", 1) for line in lines)
    return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))


async def read(site: LogSite, **query: object) -> list[Event]:
    """Read a log to its end."""
    parameters: dict[str, str] = {"follow": "false", **{k: str(v) for k, v in query.items()}}
    answer = await site.customer.person.get(f"{site.path}/logs", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return events_in(answer.text)


@contextlib.asynccontextmanager
async def following(
    site: LogSite, url: str, position: str | None = None, **query: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """Follow a log, as long as the block lasts."""
    headers = {"authorization": f"Bearer {site.customer.person.token}"}
    if position is not None:
        headers["last-event-id"] = position
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        client.stream("GET", f"{site.path}/logs", params=query) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Event]:
    lines: list[str] = []
    async for line in answer.aiter_lines():
        if line:
            lines.append(line)
            continue
        if not lines[0].startswith(":"):
            yield event_of(lines)
        lines = []


async def gone(look: Callable[[], object]) -> None:
    """Look again and again until there is nothing."""
    deadline = time.monotonic() + 30
    while found := look():
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def contents(events: AsyncIterator[Event], count: int) -> list[str]:
    async with asyncio.timeout(30):
        return [(await anext(events)).data["content"] for _ in range(count)]


async def test_pods_are_listed_with_their_containers_and_how_they_are(site: LogSite) -> None:
    site.run_pod("front", "web", "db")
    container = {"image": "registry.test/any", "imageID": "", "ready": True}
    crashed = {"waiting": {"reason": "CrashLoopBackOff"}}
    seen = [
        {**container, "name": "web", "restartCount": 0, "state": {"running": {}}},
        {**container, "name": "db", "restartCount": 3, "state": crashed, "ready": False},
    ]
    status = {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": seen}
    path = f"/api/v1/namespaces/{site.space}/pods/front/status"
    site.client.patch(path, {"status": status})
    pods = ok(await site.customer.person.get(f"{site.path}/pods"))
    assert contract.differences(pods, contract.POD_LIST) == []
    (pod,) = pods["data"]
    assert (pod["name"], pod["containers"]) == ("front", ["web", "db"])
    assert (pod["phase"], pod["ready"]) == ("Running", False)
    assert (pod["reason"], pod["restarts"]) == ("CrashLoopBackOff", 3)


async def test_every_container_is_read_to_its_end(site: LogSite) -> None:
    site.write("web", "one", "two")
    site.write("db", "three")
    site.run_pod("front", "web", "db")
    *lines, end = await read(site)
    assert (end.name, end.data) == ("end", {})
    assert {line.name for line in lines} == {"message"}
    found = [(each.data["containerName"], each.data["content"]) for each in lines]
    assert sorted(found) == [("db", "three"), ("web", "one"), ("web", "two")]
    assert [each.data["content"] for each in lines if not each.data["last"]] == ["one"]
    assert {each.data["podName"] for each in lines} == {"front"}
    assert all(each.data["timestamp"].endswith("Z") for each in lines)


async def test_a_pod_a_container_and_the_last_lines_are_chosen(site: LogSite) -> None:
    site.write("web", *(f"line {number}" for number in range(20)))
    site.write("db", "not chosen")
    site.run_pod("front", "web", "db")
    site.run_pod("back", "db")
    chosen = await read(site, pod="front", container="web", tail=2)
    assert [each.data.get("content") for each in chosen] == ["line 18", "line 19", None]
    assert len(await read(site, container="db")) == 3
    assert len(await read(site, pod="front", since_seconds=3600)) == 22
    path = f"{site.path}/logs"
    for query in ({"pod": "nobody"}, {"container": "nobody"}):
        error_of(await site.customer.person.get(path, params=query), 404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["../secrets", "a/b", "A", "a?x=y", "", "a" * 254, "a%2fb", ".."])
async def test_names_are_names_of_kubernetes_and_nothing_else(site: LogSite, name: str) -> None:
    for field in ("pod", "container"):
        answer = await site.customer.person.get(f"{site.path}/logs", params={field: name})
        error_of(answer, 400, "INVALID_ARGUMENT")


async def test_a_long_line_comes_in_pieces_and_odd_bytes_as_replacements(site: LogSite) -> None:
    site.write("web", "x" * 40_000, "plain")
    with (site.folder / "web.log").open("ab") as log:
        log.write(b"2099-01-01T00:00:00.5Z stdout F \xff\r\n")
    site.run_pod("front", "web")
    *lines, _ = await read(site)
    texts = [each.data["content"] for each in lines]
    assert "".join(texts[:-2]) == "x" * 40_000
    assert max(map(len, texts)) <= 16 * 1024
    assert texts[-2] == "plain"
    assert texts[-1] == "\ufffd"


async def test_what_was_read_is_in_no_store(site: LogSite, gate: Gate) -> None:
    canary = f"canary-{uuid4().hex}"
    site.write("web", canary)
    site.run_pod("front", "web")
    assert (await read(site))[0].data["content"] == canary
    assert files_with(canary, gate.servers.home) == ""


async def test_what_is_written_and_what_begins_meanwhile_is_followed(
    site: LogSite, listening: str
) -> None:
    site.write("web", "before")
    site.run_pod("front", "web")
    async with following(site, listening) as events:
        assert await contents(events, 1) == ["before"]
        site.write("web", "after")
        assert await contents(events, 1) == ["after"]
        site.write("db", "of another pod")
        await asyncio.to_thread(site.run_pod, "back", "db")
        assert await contents(events, 1) == ["of another pod"]
        site.stop_pods()
        site.clear()
        site.write("job", "of a third")
        await asyncio.to_thread(site.run_pod, "late", "job")
        assert await contents(events, 1) == ["of a third"]


async def test_a_client_that_comes_back_goes_on_where_it_was(site: LogSite, listening: str) -> None:
    site.write("web", "first", "second")
    site.run_pod("front", "web")
    async with following(site, listening) as events:
        first = await anext(events)
        assert (first.data["content"], await contents(events, 1)) == ("first", ["second"])
    site.write("web", "third")
    async with following(site, listening, first.position) as events:
        assert await contents(events, 2) == ["second", "third"]
    for strange in ("", "x", "../..", "0:0"):
        async with following(site, listening, strange, tail="1") as events:
            assert await contents(events, 1) == ["third"]


async def test_following_a_pod_ends_with_the_pod(site: LogSite, listening: str) -> None:
    site.write("web", "only")
    site.run_pod("front", "web")
    async with following(site, listening, pod="front") as events:
        assert await contents(events, 1) == ["only"]
        site.stop_pods()
        async with asyncio.timeout(30):
            assert [each.name async for each in events] == ["end"]


async def test_a_client_that_goes_away_leaves_no_connection_behind(
    site: LogSite, gate: Gate, listening: str
) -> None:
    site.write("web", "line")
    site.run_pod("front", "web")
    before = connections_to(site)
    async with following(site, listening) as events:
        await contents(events, 1)
        assert gate.app.state.log_streams.total == 1
        assert connections_to(site) - before
    await gone(lambda: gate.app.state.log_streams.total)
    await gone(lambda: connections_to(site) - before)


def connections_to(site: LogSite) -> set[str]:
    """Return this process's ends of its connections to the API server."""
    port = site.url.rpartition(":")[2]
    command = ["ss", "-Htnp", "state", "established", f"( dport = :{port} )"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    own = [line for line in listed.splitlines() if f"pid={os.getpid()}," in line]
    return {line.split()[2] for line in own}


async def test_only_so_many_streams_are_open_at_once(
    site: LogSite, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_events, "_MOST_STREAMS_OF_WORKSPACE", 1)
    site.run_pod("front", "web")
    async with following(site, listening):
        answer = await site.customer.person.get(f"{site.path}/logs", params={"follow": "false"})
        error_of(answer, 429, "RATE_LIMITED")


async def test_turning_logs_off_ends_the_streams_that_are_open(
    site: LogSite, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_events, "RECHECK_SECONDS", 0.2)
    site.write("web", "line")
    site.run_pod("front", "web")
    try:
        async with following(site, listening) as events:
            await contents(events, 1)
            ok(await site.set_logs(enabled=False))
            async with asyncio.timeout(30):
                failure = await anext(events)
        assert failure.name == "effect/httpapi/stream/failure"
        assert failure.data["reason"] == "FAILED_PRECONDITION"
    finally:
        ok(await site.set_logs(enabled=True))


async def test_logs_are_off_until_an_owner_turns_them_on(site: LogSite, gate: Gate) -> None:
    person = site.customer.person
    logs = f"{site.path}/logs"
    admin = gate.new_person(person.workspace, Role.ADMIN)
    workspace = f"/v1/workspaces/{person.workspace}"
    off = ok(await site.set_logs(enabled=False))
    assert (off["install_logs_enabled"], off.get("install_logs_warning")) == (False, None)
    try:
        error = error_of(await person.get(logs), 409, "FAILED_PRECONDITION")
        assert "PATCH /v1/workspaces" in error["message"]
        body, etag = {"install_logs_enabled": True}, {"if-match": off["etag"]}
        refused = await admin.call("PATCH", workspace, json=body, headers=etag)
        error_of(refused, 403, "PERMISSION_DENIED")
    finally:
        on = ok(await site.set_logs(enabled=True))
    assert "secrets" in on["install_logs_warning"]
    member = gate.new_person(person.workspace, Role.MEMBER)
    error_of(await member.get(logs), 403, "PERMISSION_DENIED")
    assert (await admin.get(logs, params={"follow": "false"})).status_code == 200
    audited = [line[:2] for line in gate.audit(person.workspace)]
    for action in ("workspace.install_logs.enable", "workspace.install_logs.disable"):
        assert (action, "allowed") in audited
    assert {("install.logs", "denied"), ("install.logs", "allowed")} <= set(audited)


@pytest.mark.full
async def test_a_slow_reader_slows_the_source_and_not_the_memory(site: LogSite, gate: Gate) -> None:
    """And what passed through is in no store of the platform, nor in the process's own log."""
    canary = f"canary-{uuid4().hex}"
    filler = f"2026-11-27T00:00:00.000000001Z stdout F {canary} {'x' * 960}\n"
    with (site.folder / "web.log").open("w") as log:
        for _ in range(120):
            log.write(filler * 1024)
    site.run_pod("front", "web")
    with running_process(gate, https_address=None) as process:
        await answers(process.http)
        before = memory_of(process.process.pid)
        headers = {"authorization": f"Bearer {site.customer.person.token}"}
        async with (
            httpx.AsyncClient(base_url=process.http, headers=headers, timeout=30) as client,
            client.stream("GET", f"{site.path}/logs", params={"follow": "false"}) as answer,
        ):
            assert answer.status_code == 200
            chunks = answer.aiter_bytes()
            await anext(chunks)
            await asyncio.sleep(3)
            assert memory_of(process.process.pid) - before < 40 * MEBIBYTE
            assert canary.encode() in await anext(chunks)
            read = sum([len(chunk) async for chunk in chunks])
        assert read > 120 * MEBIBYTE
        assert process.stop() == 0
        assert canary not in process.log.read_text()
    assert files_with(canary, gate.servers.home) == ""


def files_with(text: str, folder: Path) -> str:
    command = ["grep", "--recursive", "--files-with-matches", "--text", text, str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def memory_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
