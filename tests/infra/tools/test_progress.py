import io
import time

import pytest

from domain.errors import BulkheadError, Reason
from infra.tools.progress import Progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_at_each_interval_with_the_elapsed_time() -> None:
    log = io.StringIO()

    with Progress(log, log_interval=0.05) as progress, progress.task("building x") as task:
        task.proceed("12 packages so far")
        time.sleep(0.3)

    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) <= 6
    assert set(lines) == {"  building x: 0 s (12 packages so far)"}


def test_a_terminal_gets_one_line_that_is_redrawn_and_then_cleared() -> None:
    screen = Screen()

    with Progress(screen, log_interval=0.05) as progress, progress.task("building x"):
        time.sleep(0.2)

    assert "\n" not in screen.getvalue()
    assert "\r\x1b[Kbuilding x: 0 s" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_a_stopped_task_ends_at_its_next_step() -> None:
    with Progress(io.StringIO()) as progress, progress.task("building x") as task:
        progress.stop()
        with pytest.raises(BulkheadError, match="building x was stopped") as caught:
            task.proceed("more")

    assert caught.value.reason is Reason.ABORTED
