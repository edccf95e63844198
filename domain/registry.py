"""Which registry connection is for which address: same host and port, longest path."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from domain.errors import BulkheadError, Reason

# `oci` is HTTPS too. What is given for HTTPS is never sent to the same host without it.
_SCHEMES: Final = {"oci": 443, "https": 443, "http": 80}
# A name of the DNS, which ours and Kubernetes' may have `_` in, or an address; in lower case.
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """A registry, a chart repository, or a part of one.

    Attributes:
        scheme: `oci`, `https` or `http`.
        host: in lower case, without a port.
        port: its own, or the scheme's.
        path: its segments.
    """

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address; without a scheme it is that of an OCI registry.

        Raises:
            BulkheadError: INVALID_ARGUMENT.
        """
        try:
            parts = urlsplit(url if "://" in url else f"oci://{url}")
            port, host = parts.port, parts.hostname or ""
        except ValueError:
            raise _invalid() from None
        if parts.scheme not in _SCHEMES or not _HOST.fullmatch(host):
            raise _invalid()
        if _has_more(parts) or any(map(str.isspace, url)):
            raise _invalid()
        segments = tuple(segment for segment in parts.path.split("/") if segment)
        if any(segment in {".", ".."} for segment in segments):
            raise _invalid()
        return cls(parts.scheme, host, port or _SCHEMES[parts.scheme], segments)

    def covers(self, wanted: "RegistryAddress") -> bool:
        """Tell whether a login for this address is meant for another one, too."""
        if wanted.scheme != "oci" and (wanted.scheme == "http") != (self.scheme == "http"):
            return False
        is_same_host = (self.host, self.port) == (wanted.host, wanted.port)
        return is_same_host and self.path == wanted.path[: len(self.path)]


class HasRegistryUrl(Protocol):
    """A registry connection."""

    id: str
    registry_url: str


Connection = TypeVar("Connection", bound=HasRegistryUrl)


def connection_for(url: str, connections: Iterable[Connection]) -> Connection | None:
    """Return the connection whose login is used for an address; None: there is none.

    The one of the longest path; of two with the same, the older.

    Raises:
        BulkheadError: INVALID_ARGUMENT for an address that is none.
    """
    wanted = RegistryAddress.parse(url)
    by_address = [(RegistryAddress.parse(each.registry_url), each) for each in connections]
    fitting = [(address, each) for address, each in by_address if address.covers(wanted)]
    best = min(fitting, key=lambda pair: (-len(pair[0].path), pair[1].id), default=None)
    return None if best is None else best[1]


def _has_more(parts: SplitResult) -> bool:
    # A login in an address would be stored, shown and logged.
    return bool(parts.username or parts.password or parts.query or parts.fragment)


def _invalid() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        "This is no address of a registry: write `oci://host/path`, or `https://host/path` for a "
        "chart repository, without a login, a query or a fragment.",
    )
