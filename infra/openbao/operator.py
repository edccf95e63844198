"""What runs the server itself asks: set it up again, save and restore it, wrap its root key anew.

Only commands on the server's own machine log in as the operator; no process of the platform does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import hvac
from hvac import adapters, exceptions

from domain.errors import BulkheadError, Reason
from infra.openbao import policies
from infra.openbao.answers import listing, read, write
from infra.openbao.session import OpenBaoSession
from infra.openbao.setup import PLATFORM_MOUNT, FromFile, SetupRequest, setup_requests
from infra.settings import OpenBaoSettings

_T = TypeVar("_T")

_CHUNK_BYTES: Final = 1 << 20
_SNAPSHOT: Final = "/v1/sys/storage/raft/snapshot"


class Operator:
    """The operator's calls. Each may be repeated.

    Every method raises `BulkheadError` DEPENDENCY_UNAVAILABLE when the server is down or sealed,
    FAILED_PRECONDITION when it does not know the operator.
    """

    def __init__(self, settings: OpenBaoSettings) -> None:
        self._session = OpenBaoSession(settings, policies.OPERATOR)

    def close(self) -> None:
        """Close every connection."""
        self._session.close()

    def ensure_set_up(self, directory: Path) -> None:
        """Bring the root namespace of an older store up to this version's.

        Args:
            directory: the server's own folder, with the files of the logins.
        """

        def fill(client: hvac.Client) -> None:
            for request in setup_requests(directory):
                if not _is_made(client, request):
                    write(client, request.path, _resolved(request.data))

        self._call("set the server up", fill)

    def save_snapshot(self, file: Path) -> None:
        """Write all that the server stores, as it is sealed, into an existing private file."""

        def save(client: hvac.Client) -> None:
            answer = _raw(client).get(_SNAPSHOT, stream=True)
            with file.open("wb") as target:
                for chunk in answer.iter_content(_CHUNK_BYTES):
                    target.write(chunk)

        self._call("save a snapshot", save)

    def restore_snapshot(self, file: Path) -> None:
        """Have the server replace all that it stores; it is away for some seconds afterwards.

        A snapshot of another seal key is refused before anything is replaced.
        """

        def restore(client: hvac.Client) -> None:
            with file.open("rb") as source:
                _raw(client).post(_SNAPSHOT, data=source)

        self._call("restore a snapshot", restore)

    def rotate_root_key(self) -> None:
        """Have the server make a new root key, which it wraps with its current seal key."""
        self._call("rotate the root key", lambda client: write(client, "sys/rotate/root", {}))

    def _call(self, operation: str, request: Callable[[hvac.Client], _T]) -> _T:
        try:
            return self._session.call(operation, request)
        except BulkheadError as error:
            if error.metadata.get("denied"):
                raise _unknown_operator() from error
            raise


def _is_made(client: hvac.Client, request: SetupRequest) -> bool:
    """Tell whether something is there that cannot be written a second time."""
    if request.path.startswith(("sys/mounts/", "sys/auth/")):
        try:
            return read(client, request.path) is not None
        except exceptions.InvalidRequest:
            return False
    if request.path.startswith(f"{PLATFORM_MOUNT}/root/"):
        return bool(listing(client, f"{PLATFORM_MOUNT}/issuers").get("keys"))
    return False


def _resolved(data: dict[str, object]) -> dict[str, object]:
    return {name: _content(value) for name, value in data.items()}


def _content(value: object) -> object:
    match value:
        case FromFile():
            return value.path.read_text()
        case list():
            return [_content(item) for item in value]
        case _:
            return value


def _raw(client: hvac.Client) -> adapters.RawAdapter:
    # The usual adapter would take a snapshot for text, and search it for its encoding.
    return adapters.RawAdapter.from_adapter(client.adapter)


def _unknown_operator() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "OpenBao does not let the operator in. Either operator.key was replaced: put it back. Or "
        "an earlier version of Bulkhead made the store, which cannot be brought up to this one: "
        "`make purge` removes it with all other state, and `make up` makes a new one.",
        metadata={"dependency": "openbao"},
    )
