"""A real HTTPS server in the test's process, with a certificate of an authority of its own."""

import contextlib
import ipaddress
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Response:
    """What is answered."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Authority:
    """An authority, and one server certificate of it. All PEM."""

    ca: str
    certificate: str
    key: str


@dataclass
class HttpsServer:
    """A server whose answers the test sets; it keeps what it was asked."""

    port: int
    authority: Authority
    answer: Callable[[Request], Response] = lambda _: Response()
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


def new_authority(*names: str, lasts: timedelta = timedelta(days=1)) -> Authority:
    """Make an authority and a certificate for these names and addresses, which may have ended."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("ca", ca_key, "ca", ca_key, [x509.BasicConstraints(ca=True, path_length=0)])
    key = ec.generate_private_key(ec.SECP256R1())
    alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
    leaf = _certificate("server", key, "ca", ca_key, [alternative], lasts)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Authority(ca=_pem(ca), certificate=_pem(leaf), key=private.decode())


@contextlib.contextmanager
def https_server(*names: str, lasts: timedelta = timedelta(days=1)) -> Iterator[HttpsServer]:
    """Serve on loopback, with a certificate for these names: by default the right ones."""
    authority = new_authority(*(names or ("localhost", "127.0.0.1")), lasts=lasts)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length", 0))
            request = Request(self.command, self.path, self.headers, self.rfile.read(length))
            server.requests.append(request)
            response = server.answer(request)
            self.send_response_only(response.status)
            for name, value in {"date": self.date_time_string(), **response.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            # A client that has read enough hangs up.
            with contextlib.suppress(OSError):
                self.wfile.write(response.body)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the names that the library asks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            """Keep quiet."""

    with _Quiet(("127.0.0.1", 0), Handler) as http:
        http.socket = server_context(authority).wrap_socket(http.socket, server_side=True)
        server = HttpsServer(http.server_port, authority)
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up or do not trust the certificate."""


def server_context(authority: Authority) -> ssl.SSLContext:
    """Return what a server of the authority shows its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(authority.certificate + authority.key)
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: list[x509.ExtensionType],
    lasts: timedelta = timedelta(days=1),
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lasts)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
