"""Ctrl-C while a program is still loading, and while it follows something."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the process at once, where Python would print a traceback of the imports.

    A caller that has interrupts ignored, as `nohup` and background jobs have, keeps that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remembered_interrupts() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C, which raises KeyboardInterrupt as well.

    The exception alone can be lost: one that is raised while Python runs a finaliser is printed
    and ignored. Whoever loops looks at the event, too.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield interrupted
        return

    def interrupt(_signal: int, _frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
