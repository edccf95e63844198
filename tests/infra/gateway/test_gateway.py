import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import (
    API_SERVER_NAME,
    Listener,
    api_server_port_of,
    server_name_of,
    tunnel_port_of,
)
from infra.gateway import Gateway, haproxy, write_configuration
from tests.infra.https_server import Authority, new_authority, server_context

# Not the address of the machine's own services, and loopback all the same.
ADDRESS = "127.0.0.2"
LOOPBACK = "127.0.0.1"
SLOTS = 3
CLUSTER = new_id(Prefix.CLUSTER)
HEX = CLUSTER.partition("_")[2]
CLOSED = b""


@dataclass(frozen=True)
class Running:
    gateway: Gateway
    process: psutil.Process
    authority: Authority

    @property
    def api_port(self) -> int:
        return api_server_port_of(self.gateway.first_port, 1)

    @property
    def tunnel_port(self) -> int:
        return tunnel_port_of(self.gateway.first_port, 1)

    @property
    def api_name(self) -> str:
        return server_name_of(CLUSTER, Listener.API, self.api_port)

    @property
    def tunnel_name(self) -> str:
        return server_name_of(CLUSTER, Listener.TUNNEL, self.tunnel_port)

    @contextlib.asynccontextmanager
    async def listening(self, port: int, address: str = ADDRESS) -> AsyncIterator[None]:
        """Answer each line with the port, over TLS."""
        writers: set[asyncio.StreamWriter] = set()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            with contextlib.suppress(OSError):
                while await reader.readline():
                    writer.write(b"%d\n" % port)
                    await writer.drain()
            writer.close()

        context = server_context(self.authority)
        server = await asyncio.start_server(answer, address, port, ssl=context)
        try:
            yield
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()

    async def connect(
        self, name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.authority.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = min(version, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = version
        # An address is never sent as a server name.
        return await asyncio.open_connection(
            ADDRESS, self.gateway.port, ssl=context, server_hostname=name or ADDRESS
        )

    async def ask(self, name: str | None) -> bytes:
        """Return what the listener of a name answers, nothing when the gateway closes."""
        try:
            reader, writer = await self.connect(name)
        except (OSError, ssl.SSLError):
            return CLOSED
        writer.write(b"?\n")
        line = await reader.readline()
        writer.close()
        return line.strip()

    async def send(self, *pieces: bytes) -> bytes:
        """Return the first byte of the answer to raw bytes, nothing when the gateway closes."""
        reader, writer = await asyncio.open_connection(ADDRESS, self.gateway.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            return await asyncio.wait_for(reader.read(1), 10)
        except ConnectionError:
            return CLOSED
        finally:
            writer.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    program = haproxy.find()
    if program is None:
        pytest.skip("haproxy is not installed")
    first = free_block()
    gateway = Gateway(
        address=ADDRESS,
        port=first - 1,
        services={API_SERVER_NAME: first - 2},
        first_port=first,
        slots=SLOTS,
    )
    configuration = write_configuration(tmp_path, gateway)
    haproxy.check(program, configuration)
    process = await asyncio.create_subprocess_exec(
        *haproxy.command(program, configuration), cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while not is_open(gateway.port):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.02)
        yield Running(gateway, psutil.Process(process.pid), new_authority("localhost"))
    finally:
        process.kill()
        await process.wait()


def free_block() -> int:
    """Return the first of enough free ports for all slots, two before it; none is ephemeral."""
    while True:
        first = random.randrange(61002, 65400)
        if not any(is_open(port) for port in range(first - 2, first + 8 * SLOTS)):
            return first


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ADDRESS, port)) == 0


def client_hello(name: bytes) -> bytes:
    """Return a TLS client's first message with any bytes as its server name."""
    stand_in = ("a." * len(name))[: len(name) - 1] + "b"
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=stand_in)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    assert hello.count(stand_in.encode()) == 1
    return hello.replace(stand_in.encode(), name)


async def test_each_name_leads_to_its_own_listener_and_to_no_other(running: Running) -> None:
    service_port = running.gateway.services[API_SERVER_NAME]
    async with (
        running.listening(running.api_port),
        running.listening(running.tunnel_port),
        running.listening(service_port),
    ):
        assert await running.ask(running.api_name) == b"%d" % running.api_port
        assert await running.ask(running.api_name.upper()) == b"%d" % running.api_port
        assert await running.ask(running.tunnel_name) == b"%d" % running.tunnel_port
        assert await running.ask(API_SERVER_NAME) == b"%d" % service_port


async def test_no_crafted_name_reaches_another_port_or_address(running: Running) -> None:
    port = running.api_port
    outside = running.gateway.first_port + 8 * SLOTS
    end = f"{HEX}.clusters.bulkhead.internal"
    names = [
        f"p{port + 1}.api.{end}",  # etcd's
        f"p{running.tunnel_port}.api.{end}",
        f"p{port}.tunnel.{end}",
        f"p{outside}.api.{end}",
        f"p{running.gateway.port}.api.{end}",
        f"p0{port}.api.{end}",
        f"p{port + 65536}.api.{end}",
        f"p-{port}.api.{end}",
        f"p{port}.api.{end}.",
        f"p{port}.api.{end}.example.com",
        f"x.p{port}.api.{end}",
        f"p{port}.api.{end[1:]}",
        f"p{port}.api..clusters.bulkhead.internal",
        f"p{port}.api.{end}\0",
        f"p{port}.api.{end}\n",
        f"\np{port}.api.{end}",
        f"p{port}.api.{HEX}.clusters\0bulkhead.internal",
        f"p{port}.api {port}.{end}",
        f"p{port}.api",
        f"p{port}",
        f"{API_SERVER_NAME}.",
        f"x.{API_SERVER_NAME}",
        "localhost",
        "127.0.0.1",
        f"127.0.0.1:{port}",
        f"*.{end}",
        "a" * 250,
    ]
    async with contextlib.AsyncExitStack() as stack:
        for other in (port, port + 1, running.tunnel_port, outside):
            await stack.enter_async_context(running.listening(other))
        assert await running.send(client_hello(running.api_name.encode())) != CLOSED
        answers = await asyncio.gather(
            *(running.send(client_hello(name.encode())) for name in names)
        )
        assert {name for name, answer in zip(names, answers, strict=True) if answer} == set()
        assert await running.ask(None) == CLOSED


async def test_what_listens_on_loopback_alone_is_not_reached(running: Running) -> None:
    async with running.listening(running.api_port, LOOPBACK):
        assert await running.ask(running.api_name) == CLOSED


async def test_older_tls_is_refused_and_a_hello_in_pieces_is_not(running: Running) -> None:
    async with running.listening(running.api_port):
        hello = client_hello(running.api_name.encode())
        assert await running.send(*(hello[i : i + 1] for i in range(len(hello)))) != CLOSED
        with (
            pytest.raises((OSError, ssl.SSLError)),
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
        ):
            await running.connect(running.api_name, ssl.TLSVersion.TLSv1_1)


async def test_a_restart_of_a_listener_heals_by_itself(running: Running) -> None:
    async with running.listening(running.api_port):
        assert await running.ask(running.api_name)
    waiting = asyncio.create_task(running.ask(running.api_name))
    await asyncio.sleep(0.5)
    async with running.listening(running.api_port):
        assert await waiting == b"%d" % running.api_port


@pytest.mark.full
async def test_200_quiet_connections_stay_and_cost_next_to_nothing(running: Running) -> None:
    async with running.listening(running.tunnel_port):
        before = running.process.memory_info().rss
        streams = [await running.connect(running.tunnel_name) for _ in range(200)]
        busy = sum(running.process.cpu_times()[:2])
        silent = asyncio.create_task(running.send(b""))
        # Longer than the gateway waits for anyone who has not said what it wants.
        await asyncio.sleep(11)
        assert sum(running.process.cpu_times()[:2]) - busy < 0.1

        assert running.process.memory_info().rss - before < 200 * 40 * 1024
        assert silent.done()
        for reader, writer in streams:
            writer.write(b"?\n")
            assert await reader.readline() == b"%d\n" % running.tunnel_port
            writer.close()


def test_a_program_that_does_not_end_its_check_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy, "_CHECK_SECONDS", 0.2)
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    with pytest.raises(BulkheadError) as given_up:
        haproxy.check(str(program), tmp_path / "haproxy.cfg")
    assert given_up.value.reason is Reason.DEPENDENCY_UNAVAILABLE
