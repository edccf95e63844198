"""A proxy as companies have them: with a password it lets TLS through to where CONNECT asks for."""

import base64
import contextlib
import socket
import socketserver
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread

_PASSWORD = "hunter2"  # noqa: S105 - of a proxy on loopback


@dataclass
class ConnectProxy:
    """Where it is, and where it was asked to connect."""

    port: int
    targets: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://server:{_PASSWORD}@127.0.0.1:{self.port}"


@contextlib.contextmanager
def connect_proxy() -> Iterator[ConnectProxy]:
    """Run it on loopback."""
    login = base64.b64encode(f"server:{_PASSWORD}".encode()).decode()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().decode().split()[1]
            head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
            if f"Basic {login}" not in head:
                self.wfile.write(b"HTTP/1.1 407 Who are you\r\nconnection: close\r\n\r\n")
                return
            proxy.targets.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as away:
                self.wfile.write(b"HTTP/1.1 200 Go on\r\n\r\n")
                back = Thread(target=_copy, args=(away, self.connection))
                back.start()
                _copy(self.connection, away)
                back.join()

    with _Server(("127.0.0.1", 0), Handler) as server:
        proxy = ConnectProxy(server.server_address[1])
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
