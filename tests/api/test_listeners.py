"""The process itself: what listens where, with which certificate, and how it ends."""

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.certificates import CertificateFiles, PlatformCertificate, new_context
from api.main import check
from infra.database.engine import DatabaseRole
from infra.openbao.signing import ApiOpenBao
from infra.settings import ApiSettings
from tests.api import contract
from tests.api.gate import Gate
from tests.api.process import Process, answers, free_port, running_process


def trusting(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority)


@pytest.fixture(scope="module")
async def process(gate: Gate) -> AsyncIterator[Process]:
    with running_process(gate) as found:
        await answers(found.http)
        yield found
        assert found.stop() == 0


@pytest.fixture(scope="module")
def trust(gate: Gate) -> ssl.SSLContext:
    return trusting(gate.clients.openbao.platform_authority())


async def test_https_has_a_certificate_of_the_platforms_authority(
    gate: Gate, process: Process, trust: ssl.SSLContext
) -> None:
    await answers(process.https, trust=trust)
    person = gate.new_person()
    headers = {"authorization": f"Bearer {person.token}"}
    for url, verify in ((process.http, True), (process.https, trust)):
        async with httpx.AsyncClient(verify=verify) as client:
            answer = await client.get(f"{url}/v1/workspaces", headers=headers)
            assert answer.json()["data"][0]["id"] == person.workspace
            assert "server" not in answer.headers


async def test_plain_http_and_tls_1_1_are_refused_on_the_https_port(
    process: Process, trust: ssl.SSLContext
) -> None:
    await answers(process.https, trust=trust)
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{process.https_port}/healthz")
    # OpenSSL's own client, for Python's refuses to speak TLS 1.1 whatever it is told.
    for version, accepted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        address = f"127.0.0.1:{process.https_port}"
        spoken = await asyncio.to_thread(
            subprocess.run,
            [
                "openssl",
                "s_client",
                "-connect",
                address,
                version,
                "-cipher",
                "ALL:@SECLEVEL=0",
            ],
            input=b"",
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (spoken.returncode == 0) == accepted, (version, spoken.stderr[-400:])


async def test_what_is_no_http_is_answered_as_everything_else(process: Process) -> None:
    host, port = process.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"NONSENSE\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert contract.differences(httpx.Response(400, content=body).json(), contract.ERROR) == []


async def test_a_head_without_an_end_is_refused(process: Process) -> None:
    host, port = process.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
    for _ in range(40):
        writer.write(b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        head = await asyncio.wait_for(reader.read(), 10)
        assert head.startswith(b"HTTP/1.1 400 ")
    writer.close()
    await answers(process.http)


@pytest.mark.parametrize(
    "settings", [{}, {"https_address": "[::]:1", "certificate_file": Path("tls.crt")}]
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SystemExit, match="Set "):
        check(ApiSettings.model_validate(settings))


async def test_a_body_of_a_megabyte_is_refused_before_it_is_sent(process: Process) -> None:
    host, port = process.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/regions HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n"
        b"content-type: application/json\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_the_process_starts_without_openbao_and_opens_https_when_it_can(
    gate: Gate, trust: ssl.SSLContext
) -> None:
    port = free_port()
    openbao = gate.settings.openbao
    target = openbao.address.removeprefix("http://").split(":")
    away = openbao.model_copy(update={"address": f"http://127.0.0.1:{port}"})
    with running_process(gate, openbao=away) as process:
        await answers(process.http)
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(verify=trust) as client:
                await client.get(f"{process.https}/healthz")
        async with forwarding(port, target[0], int(target[1])):
            await answers(process.https, trust=trust)
        assert process.stop() == 0


@contextlib.asynccontextmanager
async def forwarding(port: int, host: str, target: int) -> AsyncIterator[None]:
    """Pass connections of a port on: OpenBao comes back at the address where it was missed."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away_reader, away_writer = await asyncio.open_connection(host, target)
        await asyncio.gather(copy(reader, away_writer), copy(away_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def database_sessions(gate: Gate) -> set[int]:
    """Return the sessions that API processes have for their requests."""
    with gate.administrator() as connection:
        return {
            pid
            for (pid,) in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s",
                (DatabaseRole.API,),
            )
        }


async def new_database_session(gate: Gate, before: set[int]) -> None:
    """Wait until an API process has one more: it has read a request."""
    deadline = time.monotonic() + 30
    while not await asyncio.to_thread(database_sessions, gate) - before:
        assert time.monotonic() < deadline, "no request arrived"
        await asyncio.sleep(0.1)


async def test_an_end_lets_long_polls_answer(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    with running_process(gate, https_address=None) as process:
        await answers(process.http)
        before = database_sessions(gate)
        async with httpx.AsyncClient(base_url=process.http, timeout=60) as client:
            waiting = asyncio.create_task(
                client.post(
                    f"/v1/operations/{operation['id']}:wait?timeout=60",
                    headers={"authorization": f"Bearer {person.token}"},
                )
            )
            await new_database_session(gate, before)
            started = time.monotonic()
            status = await asyncio.to_thread(process.stop)
            assert (await waiting).json()["state"] == "RUNNING"
        assert status == 0
        assert time.monotonic() - started < 10


async def test_the_log_is_json_and_holds_neither_tokens_nor_queries_nor_bodies(
    gate: Gate,
) -> None:
    person = gate.new_person()
    with running_process(gate, https_address=None) as process:
        await answers(process.http)
        async with httpx.AsyncClient(base_url=process.http) as client:
            await client.post(
                "/v1/regions?canary-query=1",
                json={"name": "canary-body"},
                headers={"authorization": f"Bearer {person.token}", "x-request-id": "mine"},
            )
        process.stop()
        lines = process.log.read_text().splitlines()
    entries = [httpx.Response(200, content=line).json() for line in lines]
    request = next(entry for entry in entries if entry.get("request_id") == "mine")
    assert (request["path"], request["status"]) == ("/v1/regions", 400)
    assert not [line for line in lines if "canary" in line or person.token in line]


def self_signed(directory: Path, name: str) -> x509.Certificate:
    """Write a certificate and its key over those that are there."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    Path(directory, "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(directory, "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate


async def certificate_of(port: int) -> x509.Certificate:
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode())


async def test_a_new_certificate_serves_new_connections_and_keeps_old_ones(
    gate: Gate, tmp_path: Path
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    first = self_signed(tmp_path, "first.test")
    context = new_context()
    files = CertificateFiles(context, tmp_path / "tls.crt", tmp_path / "tls.key")
    await files.load()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unchecked)
    assert await certificate_of(port) == first
    second = self_signed(tmp_path, "second.test")
    await files.load()
    assert await certificate_of(port) == second
    renewal = await PlatformCertificate(context, gate.clients.openbao, ["localhost"]).load()
    issued = await certificate_of(port)
    life = (issued.not_valid_after_utc - issued.not_valid_before_utc).total_seconds()
    assert 0.6 * life < renewal < 0.7 * life
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    server.close()


async def test_a_given_certificate_is_served(gate: Gate, tmp_path: Path) -> None:
    first = self_signed(tmp_path, "localhost")
    with running_process(
        gate,
        certificate_file=tmp_path / "tls.crt",
        certificate_key_file=tmp_path / "tls.key",
    ) as process:
        trust = trusting(first.public_bytes(serialization.Encoding.PEM).decode())
        await answers(process.https.replace("127.0.0.1", "localhost"), trust=trust)
        assert await certificate_of(process.https_port) == first


async def test_the_platform_certificate_is_for_the_names_that_it_shall_have(gate: Gate) -> None:
    openbao = ApiOpenBao(gate.settings.openbao)
    context = new_context()
    await PlatformCertificate(context, openbao, ["api.example.test", "192.0.2.7"]).load()
    openbao.close()
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    found = await certificate_of(server.sockets[0].getsockname()[1])
    server.close()
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["api.example.test"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
