"""An operation on a screen, redrawn in place, or in a log, line by line."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.client import JsonObject
from cli.output import Output
from cli.progress import ENDED_STEPS, OperationProgress, StepView
from cli.text import clean, duration

_MARKS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "cancelled": ("-", "yellow"),
    "pending": ("·", "dim"),
}
_ASCII_MARKS = {"✓": "+", "✗": "x", "·": "."}


class LiveView:
    """The operation as a table that is redrawn in place."""

    def __init__(self, progress: OperationProgress, title: str, *, ascii_only: bool) -> None:
        self._progress = progress
        self._title = title
        self._ascii_only = ascii_only
        self._spinner = Spinner("line" if ascii_only else "dots", style="yellow")

    def __rich__(self) -> RenderableType:
        """Draw the newest state."""
        progress = self._progress
        operation = progress.operation
        head = Table.grid(padding=(0, 1))
        head.add_column(no_wrap=True)
        head.add_column()
        head.add_row(
            self._mark(_status_of(operation)),
            Text.assemble(
                (self._title, "bold"), "  ", (duration(progress.elapsed_seconds), "cyan")
            ),
        )
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        for step in progress.steps():
            table.add_row(*self._cells(step))
        parts: list[RenderableType] = [head, Text(f"  {clean(operation['id'])}", "dim")]
        if progress.operation["steps"]:
            # Not padded to the screen's edge: the ^C that a terminal echoes there would begin a
            # line of its own, and the redrawing would miss the first line by one.
            parts.append(Padding(table, (0, 0, 0, 2), expand=False))
        if progress.notice:
            parts.append(Text(f"  {progress.notice}", "yellow"))
        return Group(*parts)

    def _cells(self, step: StepView) -> tuple[RenderableType, ...]:
        quiet = "dim" if step.status in {"pending", "skipped"} else ""
        seconds = "" if step.seconds is None else duration(step.seconds)
        detail_style = "red" if step.status == "failed" else "yellow"
        return (
            self._mark(step.status),
            Text(step.name.replace("_", " "), quiet),
            Text(seconds, "cyan" if step.status != "running" else ""),
            Text(step.detail, detail_style),
        )

    def _mark(self, status: str) -> RenderableType:
        if status == "running":
            return self._spinner
        mark, style = _MARKS.get(status, ("?", ""))
        return Text(_ASCII_MARKS.get(mark, mark) if self._ascii_only else mark, style)


def _status_of(operation: JsonObject) -> str:
    ended = {"SUCCEEDED": "completed", "FAILED": "failed", "CANCELLED": "skipped"}
    return ended.get(operation["state"], "running")


class LineView:
    """The operation as lines of a log: one for each thing that changes."""

    def __init__(self, progress: OperationProgress, title: str, output: Output) -> None:
        self._progress = progress
        self._output = output
        self._said: dict[str, str] = {}
        output.note(f"{title} ({clean(progress.operation['id'])})")

    def refresh(self) -> None:
        """Say what is new."""
        not_run = []
        for step in self._progress.steps():
            if step.status == "skipped":
                not_run.append(step.name)
            # Steps that were not needed are known at the end only, when later ones were said.
            if step.status in {"pending", "skipped"}:
                continue
            took = ""
            if step.status in ENDED_STEPS and step.seconds is not None:
                took = f" in {duration(step.seconds)}"
            detail = f" ({step.detail})" if step.detail else ""
            self._say_once(step.name, f"  {step.name}: {step.status}{took}{detail}")
        self._say_once("", f"  {self._progress.notice}" if self._progress.notice else "")
        if self._progress.done and not_run:
            self._say_once("skipped", f"  not run: {', '.join(not_run)}")

    def _say_once(self, subject: str, line: str) -> None:
        if self._said.get(subject, "") != line:
            self._said[subject] = line
            if line:
                self._output.note(line)
