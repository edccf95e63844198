import io
import re
import time
from collections.abc import Callable

import pytest

from domain.errors import BulkheadError, Reason
from infra.tools.progress import Progress

INTERVAL_SECONDS = 0.05


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_log_gets_a_line_at_each_interval_with_the_elapsed_time() -> None:
    log = io.StringIO()
    began = time.monotonic()

    with (
        Progress(log, log_interval=INTERVAL_SECONDS) as progress,
        progress.task("building x") as task,
    ):
        task.proceed("12 packages so far")
        wait_until(lambda: log.getvalue().count("\n") >= 3)

    lines = log.getvalue().splitlines()
    assert len(lines) <= (time.monotonic() - began) / INTERVAL_SECONDS
    for line in lines:
        assert re.fullmatch(r"  building x: \d+ s \(12 packages so far\)", line)


def test_a_terminal_gets_one_line_that_is_redrawn_and_then_cleared() -> None:
    screen = Screen()

    with Progress(screen, log_interval=INTERVAL_SECONDS) as progress, progress.task("building x"):
        wait_until(lambda: screen.getvalue().count("building x") >= 2)

    assert "\n" not in screen.getvalue()
    assert re.match(r"\r\x1b\[Kbuilding x: \d+ s\r\x1b\[K", screen.getvalue())
    assert screen.getvalue().endswith("\r\x1b[K")


def test_a_stopped_task_ends_at_its_next_step() -> None:
    with Progress(io.StringIO()) as progress, progress.task("building x") as task:
        progress.stop()
        with pytest.raises(BulkheadError, match="building x was stopped") as caught:
            task.proceed("more")

    assert caught.value.reason is Reason.ABORTED
