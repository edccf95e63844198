"""Says on standard error what is being made and for how long, so that minutes never look stuck."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from domain.errors import BulkheadError, Reason

# A log that is not a terminal gets a line each quarter of a minute: alive, and still readable.
LOG_INTERVAL_SECONDS = 15.0
_SCREEN_INTERVAL_SECONDS = 0.5
_DEFAULT_WIDTH = 100


@dataclass(slots=True)
class Task:
    """One thing under way; `detail` is what it is doing at this moment."""

    title: str
    stopped: threading.Event
    detail: str = ""
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.started

    def proceed(self, detail: str) -> None:
        """Tell what is being done, at least once a second or so.

        Raises:
            BulkheadError: ABORTED, when everything under way was told to stop.
        """
        if self.stopped.is_set():
            raise BulkheadError(
                Reason.ABORTED, f"{self.title} was stopped before its end; run it again."
            )
        self.detail = detail

    def line(self) -> str:
        """Describe it in one line."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.title}: {self.seconds:.0f} s{detail}"


class Progress:
    """Shows tasks while they run: one updating line on a terminal, lines at intervals elsewhere."""

    def __init__(
        self, stream: TextIO | None = None, log_interval: float = LOG_INTERVAL_SECONDS
    ) -> None:
        self._stream = stream or sys.stderr
        self._log_interval = log_interval
        self._is_screen = self._stream.isatty()
        self._tasks: list[Task] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._finished = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finished.set()
        self._ticker.join()

    def stop(self) -> None:
        """Make every task end at its next step."""
        self._stopped.set()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._write_line(text)

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        """Show something for as long as the block runs."""
        task = Task(title, self._stopped)
        with self._lock:
            self._tasks.append(task)
        try:
            yield task
        finally:
            with self._lock:
                self._tasks.remove(task)
                self._clear()

    def _tick(self) -> None:
        interval = min(_SCREEN_INTERVAL_SECONDS, self._log_interval)
        while not self._finished.wait(interval):
            with self._lock:
                if self._is_screen:
                    self._draw()
                else:
                    self._log()

    def _log(self) -> None:
        now = time.monotonic()
        for task in self._tasks:
            if now - task.shown >= self._log_interval:
                task.shown = now
                self._write_line(f"  {task.line()}")

    def _draw(self) -> None:
        text = " | ".join(task.line() for task in self._tasks)
        width = shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
        if text:
            self._stream.write(f"\r\x1b[K{text[: width - 1]}")
            self._stream.flush()

    def _clear(self) -> None:
        if self._is_screen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write_line(self, text: str) -> None:
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()
