"""Following an operation to its end."""

import threading
import time
from collections.abc import Callable

from rich.live import Live

from cli.client import NO_RETRY, ApiClient, JsonObject, segment
from cli.errors import ApiError, CliError, ExitCode, StillRunningError, UnreachableError
from cli.interrupts import remembered_interrupts
from cli.output import Output
from cli.progress import OperationProgress
from cli.text import clean, duration
from cli.views import LineView, LiveView

# Steps of a create last 0.2 to 4 seconds: a person sees each of them go by. Later the long poll
# still reports the end at once, and the steps may lag a second.
_FAST_INTERVAL_SECONDS = 0.25
_SLOW_INTERVAL_SECONDS = 1.0
_FAST_PERIOD_SECONDS = 60.0

# A restart of the whole stack takes less; the operation itself goes on meanwhile.
PATIENCE_SECONDS = 120.0


class _EndListener(threading.Thread):
    """Long-polls for the end of an operation; only an accelerator, its failures are harmless."""

    def __init__(self, client: ApiClient, operation_id: str) -> None:
        super().__init__(name=f"wait {operation_id}", daemon=True)
        self._client = client
        self._operation_id = operation_id
        self._stopped = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        """Poll until the operation ends or nobody listens."""
        while not self._stopped.is_set():
            try:
                if self._client.wait(self._operation_id).get("done"):
                    self.ended.set()
                    return
            except CliError:
                self._stopped.wait(_SLOW_INTERVAL_SECONDS)
            except RuntimeError:
                # The client was closed by the command, which has ended.
                return

    def stop(self) -> None:
        """Stop after the poll that is under way."""
        self._stopped.set()


def follow(
    client: ApiClient, output: Output, operation: JsonObject, title: str
) -> OperationProgress:
    """Show an operation until it ends, and return what was seen of it.

    Raises:
        StillRunningError: a person interrupted, or the API stayed away for too long.
        CliError: the API refuses to show it.
    """
    progress = OperationProgress(operation)
    listener = _EndListener(client, operation["id"])
    listener.start()
    try:
        with remembered_interrupts() as interrupted:
            if output.shows_live_progress:
                view = LiveView(progress, title, ascii_only=_is_ascii(output))
                with Live(view, console=output.progress_console, refresh_per_second=10):
                    _poll(client, progress, listener, interrupted, lambda: None)
            else:
                lines = LineView(progress, title, output)
                _poll(client, progress, listener, interrupted, lines.refresh)
    except KeyboardInterrupt as error:
        why = "Stopped watching."
        raise StillRunningError(progress.operation, why, ExitCode.INTERRUPTED) from error
    finally:
        listener.stop()
    return progress


def _is_ascii(output: Output) -> bool:
    return not output.progress_console.encoding.lower().startswith("utf")


def _poll(
    client: ApiClient,
    progress: OperationProgress,
    listener: _EndListener,
    interrupted: threading.Event,
    refresh: Callable[[], None],
) -> None:
    path = f"/operations/{segment(progress.operation['id'])}"
    begin = last_answer = time.monotonic()
    while True:
        try:
            progress.update(client.get(path, retry=NO_RETRY))
        except (UnreachableError, ApiError) as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                why = f"The API has been away for {duration(PATIENCE_SECONDS)}."
                raise StillRunningError(progress.operation, why, ExitCode.UNAVAILABLE) from error
            progress.trouble = f"{clean(error.message)} Asking again."
        else:
            progress.trouble = ""
            last_answer = time.monotonic()
        refresh()
        if interrupted.is_set():
            raise KeyboardInterrupt
        if progress.done:
            return
        early = time.monotonic() - begin < _FAST_PERIOD_SECONDS
        interval = _FAST_INTERVAL_SECONDS if early else _SLOW_INTERVAL_SECONDS
        if listener.ended.is_set():
            # The long poll saw the end and this read did not yet: do not spin meanwhile.
            time.sleep(interval)
        else:
            listener.ended.wait(interval)
