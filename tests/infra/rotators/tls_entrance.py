"""TLS in front of a PostgreSQL server whose build has none."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

from tests.infra.https_server import Authority, new_authority, server_context

# What a client sends first, and what a server answers that will speak TLS.
_TLS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
_YES = b"S"


@dataclass(frozen=True)
class TlsEntrance:
    """Where PostgreSQL is reached with TLS, under the name `localhost`."""

    port: int
    authority: Authority


@contextlib.contextmanager
def tls_entrance_to(postgresql_port: int) -> Iterator[TlsEntrance]:
    """Serve on loopback, and pass on what comes."""
    authority = new_authority("localhost")
    context = server_context(authority)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if self.request.recv(len(_TLS_REQUEST)) != _TLS_REQUEST:
                    return
                self.request.sendall(_YES)
                client = context.wrap_socket(self.request, server_side=True)
                with client, socket.create_connection(("127.0.0.1", postgresql_port)) as real:
                    Thread(target=_copy, args=(real, client), daemon=True).start()
                    _copy(client, real)

    class Entrance(ThreadingTCPServer):
        daemon_threads = True

    with Entrance(("127.0.0.1", 0), Handler) as entrance:
        thread = Thread(target=entrance.serve_forever, args=(0.05,))
        thread.start()
        yield TlsEntrance(entrance.server_address[1], authority)
        entrance.shutdown()
        thread.join()


def _copy(source: socket.socket | ssl.SSLSocket, target: socket.socket | ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
