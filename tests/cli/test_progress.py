import io
from typing import Any

import pytest
from rich.console import Console

from cli.output import Output
from cli.progress import OperationProgress
from cli.views import LineView, LiveView
from cli.waiting import OperationEndedError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _step(name: str, status: str, **more: object) -> dict[str, Any]:
    times = {"started_at": 0, "completed_at": None, "error_message": None, "retryable": False}
    return {"name": name, "status": status, "execution_type": "system", **times, **more}


def _operation(*steps: dict[str, Any], **more: object) -> dict[str, Any]:
    base = {"id": "op_1", "owner_id": "clu_1", "state": "RUNNING", "done": False}
    facts = {"error": None, "last_error": None, "started_at": 1000, "completed_at": None}
    metadata = {"metadata": {"type": "cluster.create", "name": "demo"}}
    return {**base, **facts, **metadata, "steps": list(steps), **more}


def _progress(operation: dict[str, Any], clock: Clock) -> OperationProgress:
    return OperationProgress(operation, clock=clock, wall_clock=lambda: 1000.5)


def test_a_steps_time_is_finer_than_the_whole_seconds_of_the_api(clock: Clock) -> None:
    progress = _progress(_operation(_step("start", "running", started_at=1000)), clock)
    clock.now += 0.75
    assert progress.steps()[0].seconds == pytest.approx(0.75)

    done = _step("start", "completed", started_at=1000, completed_at=1001)
    progress.update(_operation(done, state="SUCCEEDED", done=True, completed_at=1001))
    clock.now += 10
    assert progress.steps()[0].seconds == pytest.approx(0.75)
    assert progress.elapsed_seconds == pytest.approx(0.75)


def test_an_operation_of_the_past_took_what_the_api_says(clock: Clock) -> None:
    step = _step("start", "completed", started_at=900, completed_at=907)
    ended = _operation(step, state="SUCCEEDED", done=True, started_at=900, completed_at=910)
    progress = _progress(ended, clock)
    assert progress.elapsed_seconds == 10
    assert progress.steps()[0].seconds == 7


def test_an_operation_that_was_met_on_its_way_has_run_before(clock: Clock) -> None:
    progress = _progress(_operation(started_at=970), clock)
    clock.now += 2
    assert progress.elapsed_seconds == pytest.approx(32.5)


def test_a_step_that_takes_minutes_says_how_far_it_is(clock: Clock) -> None:
    step = _step("create_server", "running", progress="server: creating, 2 of 4")
    assert _progress(_operation(step), clock).steps()[0].detail == "server: creating, 2 of 4"
    failed = _step("create_server", "running", progress="2 of 4", error_message="no capacity")
    assert _progress(_operation(failed), clock).steps()[0].detail == "no capacity"
    done = _step("create_server", "completed", progress="4 of 4")
    assert _progress(_operation(done), clock).steps()[0].detail == ""


def test_an_operation_whose_credential_was_refused_says_what_to_do(clock: Clock) -> None:
    notice = _progress(_operation(waiting_for="credential"), clock).notice
    assert "bulkhead secrets add-version" in notice


def test_a_step_says_its_attempt_and_its_last_error_on_one_line(clock: Clock) -> None:
    step = _step("start", "running", attempt=3, error_message="refused\nby \x1b[31mpeer")
    detail = _progress(_operation(step), clock).steps()[0].detail
    assert detail.startswith("attempt 3: refused")
    assert "\n" not in detail
    assert "\x1b" not in detail


def test_a_step_that_a_cancel_ended_has_not_failed(clock: Clock) -> None:
    cut = _step("start", "failed", started_at=1000, completed_at=1002)
    broken = _step("wait", "failed", error_message="no disk")
    ended = _operation(cut, broken, state="CANCELLED", done=True, completed_at=1002)
    assert [step.status for step in _progress(ended, clock).steps()] == ["cancelled", "failed"]
    ended["state"] = "FAILED"
    assert _progress(ended, clock).steps()[0].status == "failed"


def test_a_log_gets_one_line_for_each_change(clock: Clock) -> None:
    err = io.StringIO()
    progress = _progress(_operation(_step("make", "running"), _step("wait", "pending")), clock)
    view = LineView(progress, "Creating cluster demo", Output(err=err))
    view.refresh()
    view.refresh()
    clock.now += 1.5
    failing = _step("wait", "running", attempt=2, error_message="not yet")
    progress.update(_operation(_step("make", "completed"), failing, waiting_for="its server"))
    view.refresh()
    view.refresh()

    assert err.getvalue().splitlines() == [
        "Creating cluster demo (op_1)",
        "  make: running",
        "  make: completed in 1.50 s",
        "  wait: running (attempt 2: not yet)",
        "  waits for: its server",
    ]


def test_a_log_tells_steps_in_the_order_in_which_they_ran(clock: Clock) -> None:
    err = io.StringIO()
    plan, approve = _step("plan", "completed"), _step("approve", "pending")
    progress = _progress(_operation(plan, approve, _step("apply", "running")), clock)
    view = LineView(progress, "Installing shop", Output(err=err))
    view.refresh()
    clock.now += 2
    ended = [plan, {**approve, "status": "skipped"}, _step("apply", "completed")]
    progress.update(_operation(*ended, state="SUCCEEDED", done=True))
    view.refresh()

    assert err.getvalue().splitlines()[2:] == [
        "  apply: running",
        "  apply: completed in 2.00 s",
        "  not run: approve",
    ]


def test_a_stop_is_told_in_words_with_what_shows_it(clock: Clock) -> None:
    notice = _progress(_operation(waiting_for="emergency_stop"), clock).notice
    assert "an emergency stop" in notice
    assert "bulkhead stops list" in notice


def test_a_stop_of_anothers_is_told_with_who_can_end_it(clock: Clock) -> None:
    own = {"id": "stop_1", "by": "workspace", "reason": "a drill"}
    notice = _progress(_operation(waiting_for="emergency_stop", emergency_stop=own), clock).notice
    assert "stop_1 covers it (a drill)" in notice
    assert "bulkhead stops lift stop_1" in notice
    vendors = {"id": "stop_2", "by": "vendor", "reason": None}
    operation = _operation(waiting_for="emergency_stop", emergency_stop=vendors)
    notice = _progress(operation, clock).notice
    assert "stop_2" in notice
    assert "vendor" in notice
    assert "lift" not in notice
    assert "a cancel passes the stop: bulkhead operations cancel op_1" in notice


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_screen_shows_every_step_with_its_time(clock: Clock, *, ascii_only: bool) -> None:
    steps = [_step("make_keys", "running"), _step("start", "failed", error_message="no disk")]
    progress = _progress(_operation(*steps, _step("wait", "pending")), clock)
    clock.now += 2.25
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(LiveView(progress, "Creating cluster demo", ascii_only=ascii_only))
    shown = console.export_text()

    assert "Creating cluster demo" in shown
    assert "op_1" in shown
    assert "make keys" in shown
    assert "2.25 s" in shown
    assert "no disk" in shown
    assert shown.isascii() == ascii_only


@pytest.mark.parametrize(
    ("state", "exit_code", "message"),
    [
        ("FAILED", 7, "cluster.create failed at start: No disk."),
        ("CANCELLED", 8, "cluster.create was cancelled: No disk."),
    ],
)
def test_the_end_of_an_operation_decides_the_exit_code(
    state: str, exit_code: int, message: str
) -> None:
    ended = _operation(
        state=state,
        done=True,
        error={"message": "No disk.", "reason": "CAPACITY_UNAVAILABLE"},
        last_error={"message": "No disk.", "step_name": "start"},
    )
    failure = OperationEndedError(ended)
    assert (failure.exit_code, failure.message) == (exit_code, message)
    assert failure.detail_lines() == (("reason", "CAPACITY_UNAVAILABLE"),)
    assert failure.next_commands == ("bulkhead operations get op_1",)


_FAILS = {
    "started_at": 1000,
    "attempt": 4,
    "retryable": True,
    "error_message": "No such host.",
    "gives_up_at": 1600,
}


def test_a_step_that_fails_says_since_when_until_when_and_how_to_end_it(clock: Clock) -> None:
    step = _step("resolve_chart", "running", **_FAILS)
    notice = _progress(_operation(step, cancellable=True), clock).notice
    assert notice == (
        "resolve chart fails since 1970-01-01 00:16:40 UTC, and is tried again until "
        "1970-01-01 00:26:40 UTC; to end it now: bulkhead operations cancel op_1"
    )


@pytest.mark.parametrize(
    ("changed", "of_operation", "told"),
    [
        ({"gives_up_at": None}, {"cancellable": False}, "tried again until it succeeds"),
        ({"retryable": False, "error_message": None}, {"cancellable": True}, ""),
        ({}, {"cancellable": False, "cancel_requested_at": 1001}, "is being undone"),
    ],
)
def test_a_cancel_is_proposed_only_where_it_helps(
    changed: dict[str, Any], of_operation: dict[str, Any], told: str, clock: Clock
) -> None:
    step = _step("resolve_chart", "running", **{**_FAILS, **changed})
    notice = _progress(_operation(step, **of_operation), clock).notice
    assert notice.endswith(told)
    assert bool(notice) == bool(told)


def test_the_way_back_is_not_told_to_be_cancelled(clock: Clock) -> None:
    step = _step("undo_make_keys", "running", **{**_FAILS, "gives_up_at": None})
    assert "cancel" not in _progress(_operation(step, cancellable=True), clock).notice


def test_a_log_tells_once_that_a_step_is_tried_again(clock: Clock) -> None:
    err = io.StringIO()
    step = _step("resolve_chart", "running", **_FAILS)
    progress = _progress(_operation(step, cancellable=True), clock)
    view = LineView(progress, "Resolving package shop", Output(err=err))
    for attempt in (4, 5, 6):
        progress.update(_operation({**step, "attempt": attempt}, cancellable=True))
        view.refresh()
    assert err.getvalue().count("operations cancel op_1") == 1
