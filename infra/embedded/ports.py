"""Ports: chosen once in a block of their own, kept in a file, or set by the environment."""

import contextlib
import ipaddress
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, model_validator

from domain.errors import BulkheadError, Reason
from infra.settings import EmbeddedSettings
from infra.supervisor.files import write_atomically

# Above what common servers listen on, and below Linux's default range of ephemeral ports, from
# which any outgoing connection could take one of ours while its server is down.
_FIRST_PORT = 10240
_END_PORT = 32768

# The stack's own listeners, then eight for each of 100 control planes.
_OWN_PORTS = 16
_CONTROL_PLANE_PORTS = 8 * 100
_BLOCK_PORTS = _OWN_PORTS + _CONTROL_PLANE_PORTS
_BLOCKS = (_END_PORT - _FIRST_PORT) // _BLOCK_PORTS

# Stacks of one machine that run as root give each control plane a user of its own from disjoint
# ranges: as far apart as their ports, times ten.
_FIRST_UID = 210_000

# Where those of the stack's own parts begin among its 8,160: after as many slots as can be set.
_OWN_UIDS = 1000


class Ports(BaseModel):
    """The port of each listener, on loopback or where servers reach it; new ones are added last."""

    api: int
    api_https: int
    temporal: int
    temporal_http: int
    temporal_metrics: int
    temporal_ui: int
    postgresql: int
    openbao: int
    openbao_cluster: int
    registry: int
    gateway: int
    clouds_hcloud: int
    clouds_aws: int
    clouds_gcp: int
    charts: int
    control_planes: int

    @model_validator(mode="before")
    @classmethod
    def fill_in_new_ones(cls, data: dict[str, int]) -> dict[str, int]:
        """Give each listener that a stack did not have yet its place in the stack's block."""
        return _own_ports(data["control_planes"] - _OWN_PORTS) | data

    @property
    def number(self) -> int:
        """The number of this stack among those of the machine."""
        return (self.control_planes - _FIRST_PORT) // _BLOCK_PORTS

    @property
    def first_uid(self) -> int:
        """The first user id of this stack's control planes."""
        return _FIRST_UID + 10 * (self.control_planes - _FIRST_PORT)

    @property
    def registry_uid(self) -> int:
        """The user id of the registry, after those of all control planes."""
        return self.first_uid + _OWN_UIDS

    @property
    def charts_uid(self) -> int:
        """The user id of the registry of charts."""
        return self.first_uid + _OWN_UIDS + 2

    @property
    def gateway_uid(self) -> int:
        """The user id of the gateway."""
        return self.first_uid + _OWN_UIDS + 1


def load(path: Path) -> Ports:
    """Return the ports that were chosen.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the stack was never started.
    """
    try:
        return Ports.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"There is no stack in {path.parent} yet; `make up` makes one.",
        ) from error


@contextlib.contextmanager
def chosen(path: Path, settings: EmbeddedSettings) -> Iterator[Ports]:
    """Keep or choose the ports, and hold the claim on their block until the servers listen."""
    with contextlib.ExitStack() as claim:
        ports = load(path) if path.exists() else _ports_of(_claim_free_block(path, claim))
        fixed = {
            name.removesuffix("_port"): port
            for name, port in settings.model_dump(exclude_none=True).items()
            if name.endswith("_port")
        }
        ports = ports.model_copy(update=fixed)
        write_atomically(path, ports.model_dump_json(indent=2) + "\n")
        yield ports


def _ports_of(first: int) -> Ports:
    return Ports(**_own_ports(first), control_planes=first + _OWN_PORTS)


def _own_ports(first: int) -> dict[str, int]:
    names = [name for name in Ports.model_fields if name != "control_planes"]
    return {name: first + index for index, name in enumerate(names)}


def address_of(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    is_six = ipaddress.ip_address(host).version == 6  # noqa: PLR2004 - IPv6
    return f"[{host}]:{port}" if is_six else f"{host}:{port}"


def taken_by_others(ports: Ports, part: str) -> list[str]:
    """Say which ports of a part, whose program does not run, somebody else listens on."""
    return [
        f"Port {port} is taken by another program: end that, or choose another port with "
        f"BULKHEAD_{name.upper()}_PORT."
        for name, port in ports.model_dump(exclude={"control_planes"}).items()
        if name.partition("_")[0] == part and not _is_free(port)
    ]


def _claim_free_block(path: Path, claim: contextlib.ExitStack) -> int:
    """Return the first port of a block in which nobody listens and that no other stack keeps.

    What two first starts find at the same time is told apart by the claim.
    """
    kept = _kept_by_others(path)
    start = zlib.crc32(os.fsencode(path)) % _BLOCKS
    for index in range(_BLOCKS):
        block = (start + index) % _BLOCKS
        first = _FIRST_PORT + block * _BLOCK_PORTS
        if first in kept:
            continue
        # An abstract address: machine-wide, and gone with the process.
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0bulkhead-ports-{first}")
        except OSError:
            holder.close()
            continue
        if all(_is_free(port) for port in range(first, first + _BLOCK_PORTS)):
            claim.callback(holder.close)
            _remember(path)
            return first
        holder.close()
    raise BulkheadError(
        Reason.CAPACITY_UNAVAILABLE,
        f"No {_BLOCK_PORTS} adjacent ports are free between {_FIRST_PORT} and {_END_PORT}. Stop "
        "what listens there, or remove the directory of a stack that is not needed any more.",
    )


def _registry() -> Path:
    """Return the directory that knows this user's stacks, which may be down at the moment."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "bulkhead" / "stacks"


def _remember(path: Path) -> None:
    # Without it only stacks that run are seen, which is right for who has no other stack.
    with contextlib.suppress(OSError):
        _registry().mkdir(parents=True, exist_ok=True)
        entry = _registry() / f"{zlib.crc32(os.fsencode(path)):08x}"
        entry.unlink(missing_ok=True)
        entry.symlink_to(path)


def _kept_by_others(path: Path) -> set[int]:
    try:
        entries = list(_registry().iterdir())
    except OSError:
        return set()
    kept: set[int] = set()
    for entry in entries:
        # Another start may change or remove any of them at the same time.
        with contextlib.suppress(OSError, ValueError, BulkheadError):
            other = entry.readlink()
            if not other.parent.exists():
                entry.unlink()
            elif other != path and other.exists():
                kept.add(load(other).control_planes - _OWN_PORTS)
    return kept


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: an ended connection that lingers is no listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
