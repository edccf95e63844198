"""Supervisord's XML-RPC interface over its unix socket, with typed errors."""

import http.client
import socket
import xmlrpc.client
from enum import IntEnum
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

from domain.errors import BulkheadError, Reason

# Every call that we make returns at once; supervisord serves them in one thread.
_TIMEOUT_SECONDS = 10.0


class FaultCode(IntEnum):
    """The faults of supervisord that are answers rather than failures."""

    SHUTDOWN_STATE = 6
    BAD_NAME = 10
    NO_FILE = 20
    NOT_EXECUTABLE = 21
    ALREADY_STARTED = 60
    NOT_RUNNING = 70
    ALREADY_ADDED = 90
    STILL_RUNNING = 91
    CANT_REREAD = 92


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: tuple[str, dict[str, str]] | str) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        # `close` closes what is kept here, also after an answer that broke off.
        self._connection = host, connection
        return connection


class SupervisorClient:
    """One call at a time, each on a connection of its own; safe to share between threads."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    def call(
        self, method: str, *arguments: str | bool, expected: tuple[FaultCode, ...] = ()
    ) -> Any:  # noqa: ANN401 - what XML-RPC answers has no static type
        """Call `supervisor.<method>` and return its answer, or the fault if it is expected.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when supervisord does not answer or is going
                down, INTERNAL for a fault that is not in `expected`.
        """
        transport = _UnixTransport(self._socket_path)
        try:
            # The address is not used: the transport knows its socket.
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport) as proxy:
                # XML-RPC takes no subclass of str, such as the members of our enumerations.
                plain = [str(value) if isinstance(value, str) else value for value in arguments]
                return getattr(proxy.supervisor, method)(*plain)
        except Fault as fault:
            if fault.faultCode in expected:
                return FaultCode(fault.faultCode)
            if fault.faultCode == FaultCode.SHUTDOWN_STATE:
                raise self._unavailable() from fault
            raise BulkheadError(
                Reason.INTERNAL,
                f"supervisord refused {method}: {fault.faultString}. Its log is beside "
                f"{self._socket_path}.",
                metadata={"dependency": "supervisord", "fault": str(fault.faultCode)},
            ) from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise self._unavailable() from error

    def _unavailable(self) -> BulkheadError:
        return BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"supervisord does not answer on {self._socket_path}. It comes back by itself "
            "within seconds unless it was stopped on purpose.",
            metadata={"dependency": "supervisord"},
        )
