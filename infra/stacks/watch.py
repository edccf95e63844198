"""How a runner ends: when it is told to, and when nobody tells it anything any more.

The worker writes a line to the runner's standard input after each renewal of its lease. A runner
that has not heard of one for long, or whose worker is gone, ends everything that it started while
the lease still lasts: nobody else acts on the stack before that.
"""

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Final

from domain.stack import LEASE_SECONDS
from infra.stacks import sessions

ALIVE: Final = b"alive\n"
CANCEL: Final = b"cancel\n"
# How often a worker renews and says so.
RENEW_SECONDS: Final = 10.0
# After it 20 more may pass until everything is ended; together less than a lease lasts.
SILENCE_SECONDS: Final = LEASE_SECONDS / 2.0
# How long the engine may finish what the provider is doing, when someone waits for it.
CANCEL_SECONDS: Final = 60.0
_ABANDON_SECONDS: Final = 12.0
_POLL_SECONDS: Final = 0.5
# What the exit status of a runner says that ended without its worker.
ABANDONED: Final = 75


class Watch:
    """Listens to the worker, in threads of their own."""

    def __init__(self, stack_id: str, work: Path) -> None:
        self._stack_id = stack_id
        self._work = work
        self._heard_at = time.monotonic()
        self._stopping = threading.Event()
        self._gone = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._guard, daemon=True).start()

    @property
    def stopping(self) -> bool:
        """Nothing new may be begun."""
        return self._stopping.is_set()

    def _listen(self) -> None:
        for line in iter(sys.stdin.buffer.readline, b""):
            self._heard_at = time.monotonic()
            if line == CANCEL and not self.stopping:
                self._stopping.set()
                threading.Thread(target=self._cancel, daemon=True).start()
        self._gone.set()

    def _guard(self) -> None:
        while not self._gone.wait(_POLL_SECONDS):
            if time.monotonic() - self._heard_at > SILENCE_SECONDS:
                break
        self._stopping.set()
        own = os.getpid()
        sessions.end_engine(self._stack_id, patience=_ABANDON_SECONDS)
        sessions.kill_processes(self._stack_id, spare=own)
        # It has secrets, and nobody is left to remove it.
        shutil.rmtree(self._work, ignore_errors=True)
        os._exit(ABANDONED)

    def _cancel(self) -> None:
        sessions.end_engine(self._stack_id, patience=CANCEL_SECONDS)
