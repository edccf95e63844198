"""Disks whose copies end when they are let, or fail."""

import threading
import time
from typing import Protocol

from domain.cloud import Snapshot
from infra.local_cloud.boots import NoBoots

_COPIED_WITHIN_SECONDS = 60


class HeldDisks(NoBoots):
    """Copies a disk when it is free to, and not when it is broken."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self._broken = False

    def fail_once(self) -> None:
        """Let the next copy fail."""
        self._broken = True
        self.free.set()

    def snapshot(self, key: str) -> str:
        self.free.wait(_COPIED_WITHIN_SECONDS)
        if self._broken:
            self._broken = False
            message = "the disk cannot be read"
            raise OSError(message)
        return key


class Keep(Protocol):
    """Asks a cloud for a snapshot, whichever it is."""

    def __call__(self, *, begun: bool = False) -> Snapshot | None: ...


def end_of_copy(keep: Keep) -> Snapshot:
    """Look until a copy that was begun is there; raises what the cloud raises."""
    until = time.monotonic() + _COPIED_WITHIN_SECONDS
    while (kept := keep(begun=True)) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return kept
