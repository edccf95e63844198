"""The address of this machine at which servers that join reach the stack: chosen once and kept."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from domain.errors import BulkheadError, Reason
from infra.supervisor.files import write_atomically

# What BULKHEAD_NODE_ADDRESS may say beside an address.
LOCAL: Final = "local"
NONE: Final = "none"

# Carrier-grade NAT's network: neither a private network of a data center nor one that is routed.
# One address a stack, at the place of the stack's ports among all blocks of ports.
_LOCAL_ADDRESS: Final = "100.64.{number}.1"
_LARGEST_NUMBER: Final = 255

_INTERFACE: Final = "lo"


class NodeAddress(BaseModel):
    """What was chosen.

    Attributes:
        address: where servers reach the stack.
        made: whether `up` makes it, and a purge takes it away.
    """

    address: str
    made: bool


def load(path: Path) -> NodeAddress | None:
    """Return what was chosen, None when servers cannot reach the stack."""
    with contextlib.suppress(FileNotFoundError):
        return NodeAddress.model_validate_json(path.read_text(encoding="utf-8"))
    return None


def ensure(path: Path, setting: str | None, number: int) -> None:
    """Choose or keep the address, and have it on this machine.

    Args:
        path: the file that keeps it.
        setting: an address of this machine; `local` for one that only this machine and what runs
            on it can reach; `none` for no address; None for what was chosen before.
        number: of the stack among those of this machine.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the machine has no such address, or cannot have it.
    """
    before = load(path)
    chosen = before if setting is None else _chosen(setting, number)
    if before is not None and before.made and before != chosen:
        _drop(before.address)
    if chosen is None:
        path.unlink(missing_ok=True)
        return
    if chosen.made:
        _make(chosen.address, number)
    if problem := problem_of(chosen.address):
        raise BulkheadError(Reason.FAILED_PRECONDITION, problem)
    write_atomically(path, chosen.model_dump_json(indent=2) + "\n")


def forget(path: Path) -> None:
    """Take the address from this machine if it was made for the stack."""
    chosen = load(path)
    if chosen is not None and chosen.made:
        _drop(chosen.address)
    path.unlink(missing_ok=True)


def _chosen(setting: str, number: int) -> NodeAddress | None:
    if setting == NONE:
        return None
    if setting == LOCAL:
        address = _LOCAL_ADDRESS.format(number=number % (_LARGEST_NUMBER + 1))
        return NodeAddress(address=address, made=True)
    return NodeAddress(address=setting, made=False)


def _make(address: str, number: int) -> None:
    if address in _addresses():
        return
    if sys.platform != "linux" or os.geteuid() != 0 or _program() is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"BULKHEAD_NODE_ADDRESS={LOCAL} needs root on Linux, and the program `ip` (package "
            "iproute2). Set it to an address that this machine has, or to `none`.",
        )
    # On the loopback interface, which every kernel has; a dummy one needs a module.
    label = f"{_INTERFACE}:bulkhead{number}"
    _ip("address", "add", f"{address}/32", "dev", _INTERFACE, "label", label)


def _drop(address: str) -> None:
    if address in _addresses() and os.geteuid() == 0:
        _ip("address", "del", f"{address}/32", "dev", _INTERFACE)


def _addresses() -> set[str]:
    """Return the addresses of the loopback interface; none where they cannot be listed."""
    if _program() is None:
        return set()
    interfaces = json.loads(_ip("-json", "address", "show", "dev", _INTERFACE))
    return {found["local"] for interface in interfaces for found in interface["addr_info"]}


def _program() -> str | None:
    return shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")


def _ip(*arguments: str) -> str:
    program = _program()
    assert program is not None  # noqa: S101 - whoever calls this has looked
    result = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"`ip {' '.join(arguments)}` fails: {result.stderr.strip()}. Set BULKHEAD_NODE_ADDRESS "
            "to an address that this machine has, or to `none`.",
        )
    return result.stdout


def problem_of(address: str) -> str:
    """Say why nothing can listen on an address; empty when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return (
                f"This machine cannot listen on {address} ({error.strerror}). `make up` makes a "
                "`local` address again; otherwise set BULKHEAD_NODE_ADDRESS to an address that the "
                "machine has, to `local`, or to `none`."
            )
    return ""
