"""Following a rollout to its end."""

import time
from collections.abc import Callable

from rich.live import Live

from cli.client import ApiClient, JsonObject
from cli.errors import ApiError, CliError, ExitCode, UnreachableError
from cli.follow import PATIENCE_SECONDS
from cli.interrupts import remembered_interrupts
from cli.output import Output
from cli.rollout_progress import RolloutProgress
from cli.rollout_views import LiveRollout, RolloutLines
from cli.text import clean, duration

# A pause shows within two seconds; each look are a few requests.
_INTERVAL_SECONDS = 1.0


class StillRollingError(CliError):
    """The client stopped watching a rollout; the rollout goes on."""

    def __init__(self, rollout: JsonObject, why: str, exit_code: ExitCode) -> None:
        rollout_id = clean(rollout["id"])
        told = (
            "The rollout stays paused"
            if rollout["state"] == "paused"
            else "The rollout goes on without this terminal"
        )
        super().__init__(
            f"{why} {told}.",
            exit_code,
            next_commands=(
                f"bulkhead rollouts watch {rollout_id}",
                *_what_can_be_asked(rollout_id, rollout),
            ),
        )
        if exit_code is ExitCode.INTERRUPTED:
            self.title = "Interrupted"


def _what_can_be_asked(rollout_id: str, rollout: JsonObject) -> tuple[str, ...]:
    """Return what a person may ask of a rollout in its state."""
    if rollout["state"] == "rolling_back" or rollout.get("rollback_requested_at"):
        # It is neither paused nor taken back once more.
        return (f"bulkhead rollouts targets {rollout_id}",)
    if rollout["state"] == "paused":
        return (
            f"bulkhead rollouts resume {rollout_id}",
            f"bulkhead rollouts rollback {rollout_id}",
        )
    return (f"bulkhead rollouts pause {rollout_id}", f"bulkhead rollouts rollback {rollout_id}")


def follow(client: ApiClient, output: Output, rollout: JsonObject, title: str) -> RolloutProgress:
    """Show a rollout until it ends, or until a plan that was asked for is made.

    Raises:
        StillRollingError: a person interrupted, or the API stayed away for too long.
        CliError: the API refuses to show it.
    """
    progress = RolloutProgress(client, rollout)
    ascii_only = not output.progress_console.encoding.lower().startswith("utf")
    try:
        with remembered_interrupts() as interrupted:
            if output.shows_live_progress:
                view = LiveRollout(progress, title, ascii_only=ascii_only)
                with Live(view, console=output.progress_console, refresh_per_second=8):
                    _poll(progress, None, interrupted.is_set)
            else:
                _poll(progress, RolloutLines(progress, title, output), interrupted.is_set)
    except KeyboardInterrupt as error:
        why = "Stopped watching."
        raise StillRollingError(progress.rollout, why, ExitCode.INTERRUPTED) from error
    return progress


def _poll(
    progress: RolloutProgress, lines: RolloutLines | None, interrupted: Callable[[], bool]
) -> None:
    last_answer = time.monotonic()
    while True:
        events: list[JsonObject] = []
        try:
            events = progress.refresh()
        except (UnreachableError, ApiError) as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                why = f"The API has been away for {duration(PATIENCE_SECONDS)}."
                raise StillRollingError(progress.rollout, why, ExitCode.UNAVAILABLE) from error
            progress.trouble = f"{clean(error.message)} Asking again."
        else:
            progress.trouble = ""
            last_answer = time.monotonic()
        if lines is not None:
            lines.refresh(events)
        if interrupted():
            raise KeyboardInterrupt
        if progress.done:
            return
        time.sleep(_INTERVAL_SECONDS)
