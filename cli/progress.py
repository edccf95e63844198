"""What has been seen of an operation: its steps, their times, and what it waits for."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cli.client import JsonObject
from cli.text import clean, duration, moment

_CANCELLED = "cancelled"
_UNDO = "undo_"
ENDED_STEPS = frozenset({"completed", "failed", "skipped", _CANCELLED})

# What helps an operation that waits, by what it waits for.
_WAITS = {
    "credential": (
        "waits for a credential that the provider accepts: give the secret of the compute config "
        "a new version (bulkhead secrets add-version)"
    ),
    "new_value": (
        "waits for a person's new token: make one in the provider's console and add it to the "
        "secret that the rotation's settings name (bulkhead secrets add-version)"
    ),
    "emergency_stop": (
        "waits because an emergency stop covers it: bulkhead stops list shows it, and whoever may "
        "ends it with bulkhead stops lift"
    ),
    "approval": (
        "waits for an approval of its plan: bulkhead installs plan {owner}, then bulkhead installs "
        "approve {owner}"
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepView:
    """One step as it is shown.

    Attributes:
        name: the step's name.
        status: the contract's step status, or `cancelled` for one that a cancel ended.
        seconds: how long it took or has been running; None before it starts.
        detail: attempt, and the last error or how far it is; may be empty.
    """

    name: str
    status: str
    seconds: float | None
    detail: str


class OperationProgress:
    """What has been seen of one operation.

    The API's times are whole seconds where it has no finer ones, so the moments at which this
    client saw a step start and end are kept as well.

    Args:
        operation: the operation as the API gave it.
        clock: a monotonic clock, in seconds.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        operation: JsonObject,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen_running: dict[str, float] = {}
        self._seen_ended: dict[str, float] = {}
        self._first_seen = clock()
        self._end_seen: float | None = None
        self._was_done = bool(operation.get("done"))
        started_at = operation.get("started_at")
        earlier = wall_clock() - started_at if isinstance(started_at, int) else 0.0
        # Within two seconds of its start the operation was made by this very command, and its
        # whole-second start would only add noise.
        self._age_when_seen = earlier if earlier >= 2 else 0.0  # noqa: PLR2004 - said above
        self.trouble = ""
        self.operation: JsonObject = {}
        self.update(operation)

    def update(self, operation: JsonObject) -> None:
        """Take in a newer state of the operation; the steps stay when it comes without them."""
        now = self._clock()
        steps = operation.get("steps") or self.operation.get("steps") or []
        self.operation = {**operation, "steps": steps}
        for step in steps:
            if step["status"] == "running":
                self._seen_running.setdefault(step["name"], now)
            elif step["status"] in ENDED_STEPS:
                self._seen_ended.setdefault(step["name"], now)
        if self.done and self._end_seen is None:
            self._end_seen = now

    @property
    def done(self) -> bool:
        """Whether the operation has ended."""
        return bool(self.operation.get("done"))

    @property
    def elapsed_seconds(self) -> float:
        """How long the operation has been running, or took."""
        exact = _exact_seconds(self.operation)
        if exact is not None:
            return exact
        begin, end = self.operation.get("started_at"), self.operation.get("completed_at")
        if self._was_done and begin and end:
            return float(end - begin)
        now = self._clock() if self._end_seen is None else self._end_seen
        return self._age_when_seen + now - self._first_seen

    @property
    def notice(self) -> str:
        """What a person should know beside the steps; may be empty."""
        if self.trouble:
            return self.trouble
        if self.done:
            return ""
        if self.wait:
            return self.wait
        if self.operation.get("cancel_requested_at"):
            return "a cancel was asked for: what was done is being undone"
        return self.repeats

    @property
    def wait(self) -> str:
        """What it waits for, in words, and what helps; may be empty."""
        waiting_for = clean(self.operation.get("waiting_for"))
        if not waiting_for:
            return ""
        stop = self.operation.get("emergency_stop")
        if stop:
            return _held_by(stop, clean(self.operation.get("id")))
        known = _WAITS.get(waiting_for)
        if known is None:
            return f"waits for: {waiting_for}"
        return known.format(owner=clean(self.operation.get("owner_id")))

    @property
    def repeats(self) -> str:
        """Which step fails and is tried again, since when and until when; may be empty."""
        step = self._running_step()
        if step is None or not (step.get("retryable") and step.get("error_message")):
            return ""
        name, until = clean(step["name"]).replace("_", " "), step.get("gives_up_at")
        end = "it succeeds" if until is None else moment(until)
        told = f"{name} fails since {moment(step['started_at'])}, and is tried again until {end}"
        if step["name"].startswith(_UNDO) or not self.operation.get("cancellable"):
            return told
        return f"{told}; to end it now: bulkhead operations cancel {clean(self.operation['id'])}"

    @property
    def doing(self) -> str:
        """What is being done, and for how long."""
        step = self._running_step()
        if step is None:
            return "the next step is about to begin"
        view = self._view(step, self.operation.get("last_error") or {})
        took = "" if view.seconds is None else f" for {duration(view.seconds)}"
        detail = f" ({view.detail})" if view.detail else ""
        return f"{view.name.replace('_', ' ')} runs{took}{detail}"

    def steps(self) -> list[StepView]:
        """Return the steps as they stand now."""
        last_error = self.operation.get("last_error") or {}
        return [self._view(step, last_error) for step in self.operation["steps"]]

    def _running_step(self) -> JsonObject | None:
        running = (step for step in self.operation["steps"] if step["status"] == "running")
        return next(running, None)

    def _view(self, step: JsonObject, last_error: JsonObject) -> StepView:
        details = []
        attempt = step.get("attempt")
        if isinstance(attempt, int) and attempt > 1:
            details.append(f"attempt {attempt}")
        error = step.get("error_message")
        if not error and last_error.get("step_name") == step["name"]:
            error = last_error.get("message")
        if error and step["status"] != "completed":
            details.append(clean(error))
        elif step.get("progress") and step["status"] == "running":
            details.append(clean(step["progress"]))
        # The contract has no such state of a step: it ended without an error of its own.
        was_cut = self.operation["state"] == "CANCELLED" and step["status"] == "failed"
        return StepView(
            name=clean(step["name"]),
            status=_CANCELLED if was_cut and not error else step["status"],
            seconds=self._seconds(step),
            detail=": ".join(details),
        )

    def _seconds(self, step: JsonObject) -> float | None:
        exact = _exact_seconds(step)
        if exact is not None:
            return exact
        started = self._seen_running.get(step["name"])
        ended = self._seen_ended.get(step["name"])
        if started is not None:
            return (self._clock() if ended is None else ended) - started
        begin, end = step.get("started_at"), step.get("completed_at")
        if begin and end:
            return float(end - begin)
        return None


def _held_by(stop: JsonObject, operation_id: str) -> str:
    """Say which emergency stop holds an operation, and who can end it."""
    stop_id, reason = clean(stop["id"]), clean(stop.get("reason"))
    said = f"waits because the emergency stop {stop_id} covers it" + (
        f" ({reason})" if reason else ""
    )
    match stop["by"]:
        case "workspace":
            return f"{said}: whoever may ends it with bulkhead stops lift {stop_id}"
        case "vendor":
            passes = f"a cancel passes the stop: bulkhead operations cancel {operation_id}"
            return f"{said}: the product's vendor stopped it, and can end that; {passes}"
        case _:
            return f"{said}: the platform's people stopped it, and can end that"


def _exact_seconds(thing: JsonObject) -> float | None:
    """Return the seconds that the API measured, where it gives them finer than whole ones."""
    measured = thing.get("duration_ms")
    return measured / 1000 if isinstance(measured, int | float) else None
