"""A rollout on a screen, redrawn in place, or in a log, line by line."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.client import JsonObject
from cli.output import STATE_STYLES, Output
from cli.rollout_progress import ENDED, UNDER_WAY, RolloutProgress, WaveView, timeline
from cli.text import clean, duration, plural

_MARKS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "pending": ("·", "dim"),
}
_ASCII_MARKS = {"✓": "+", "✗": "x", "·": "."}
# What a person counts, and the states that it is made of.
_COUNTED = (
    ("moved", ("succeeded",)),
    ("baking", ("baking",)),
    ("moving", ("moving",)),
    ("waiting", ("waiting",)),
    ("failed", ("failed",)),
    ("skipped", ("skipped",)),
    ("taken back", ("rolling_back", "rolled_back")),
)
_BAR_CELLS = 20
_NEWEST_EVENTS = 3


class LiveRollout:
    """The rollout as tables of waves and installs that are redrawn in place."""

    def __init__(self, progress: RolloutProgress, title: str, *, ascii_only: bool) -> None:
        self._progress = progress
        self._title = title
        self._ascii_only = ascii_only
        self._spinner = Spinner("line" if ascii_only else "dots", style="yellow")

    def __rich__(self) -> RenderableType:
        """Draw the newest state."""
        progress = self._progress
        rollout = progress.rollout
        state = clean(rollout["state"])
        head = Table.grid(padding=(0, 1))
        head.add_column(no_wrap=True)
        head.add_column()
        head.add_row(
            self._mark(_status_of(rollout)),
            Text.assemble(
                (self._title, "bold"),
                "  ",
                (state.replace("_", " "), STATE_STYLES.get(state, "yellow")),
                "  ",
                (duration(progress.elapsed_seconds), "cyan"),
            ),
        )
        parts: list[RenderableType] = [head, Text(f"  {clean(rollout['id'])}", "dim")]
        if waves := progress.waves():
            parts.append(self._indented(self._waves(waves)))
        if progress.targets:
            parts += [Text(""), self._indented(self._targets())]
        if notice := progress.notice or progress.baking:
            parts += [Text(""), Text(f"  {notice}", "yellow", overflow="fold")]
        lines = timeline(progress, progress.events[-_NEWEST_EVENTS:])
        if lines:
            parts += [Text(""), *(Text(f"  {line}", "dim", overflow="ellipsis") for line in lines)]
        return Group(*parts)

    def _waves(self, waves: list[WaveView]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("", Text("WAVE", "bold"), "", Text("MOVED", "bold"), "")
        for wave in waves:
            quiet = "dim" if wave.status in {"pending", "skipped"} else ""
            table.add_row(
                self._mark(wave.status),
                Text(wave.name, quiet),
                self._bar(wave),
                Text(f"{wave.moved}/{wave.targets}", quiet),
                Text(counts_text(wave.counts), quiet),
            )
        return table

    def _targets(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=36)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(*(Text(title, "bold") for title in ("INSTALL", "WAVE", "STATE", "WHY")))
        for target in self._progress.target_views():
            style = STATE_STYLES.get(target.state, "yellow")
            why = Text(target.detail)
            if target.command:
                why.append(f"\n{target.command}", "cyan")
            shown = Text(target.state.replace("_", " "), style)
            table.add_row(Text(target.name), Text(target.wave), shown, why)
        if self._progress.more_targets > 0:
            more = f"and {plural(self._progress.more_targets, 'more install')}"
            table.add_row(Text(more, "dim"), "", "", "")
        return table

    def _bar(self, wave: WaveView) -> Text:
        full = _BAR_CELLS * wave.moved // wave.targets if wave.targets else 0
        done, open_ = ("#", ".") if self._ascii_only else ("█", "░")
        style = "red" if wave.status == "failed" else "green"
        return Text.assemble((done * full, style), (open_ * (_BAR_CELLS - full), "dim"))

    def _indented(self, table: Table) -> Padding:
        # Not padded to the screen's edge, as the echo of ^C would break the redrawing there.
        return Padding(table, (0, 0, 0, 2), expand=False)

    def _mark(self, status: str) -> RenderableType:
        if status == "running":
            return self._spinner
        mark, style = _MARKS.get(status, ("?", ""))
        return Text(_ASCII_MARKS.get(mark, mark) if self._ascii_only else mark, style)


class RolloutLines:
    """The rollout as lines of a log: its timeline, and each install that begins to wait."""

    def __init__(self, progress: RolloutProgress, title: str, output: Output) -> None:
        self._progress = progress
        self._output = output
        self._said: dict[str, str] = {}
        output.note(f"{title} ({clean(progress.rollout['id'])})")

    def refresh(self, events: list[JsonObject]) -> None:
        """Say what is new."""
        for line in timeline(self._progress, events):
            self._output.note(f"  {line}")
        for target in self._progress.targets:
            if target.get("waiting_for") and target["state"] in UNDER_WAY:
                view = self._progress.view_of(target)
                # When it is tried again changes with each look, and is no news.
                reason = clean(target.get("waiting_for"))
                line = f"  {view.name} waits: {view.detail}"
                if view.command:
                    line += f"; next: {view.command}"
                self._say_once(clean(target["install_id"]), reason, line)
        if not self._progress.done:
            # At the end the timeline has said it.
            self._say_once("", self._progress.notice, f"  {self._progress.notice}")

    def _say_once(self, subject: str, fact: str, line: str) -> None:
        if self._said.get(subject, "") != fact:
            self._said[subject] = fact
            if fact:
                self._output.note(line)


def counts_text(counts: JsonObject, *, without: frozenset[str] = frozenset()) -> str:
    """Return how many installs are in which state, without those whose turn has not come.

    Args:
        counts: of the API, by state.
        without: the words of what is shown elsewhere.
    """
    told = []
    for name, states in _COUNTED:
        if name in without:
            continue
        number = sum(counts.get(state, 0) for state in states)
        if number:
            told.append(f"{number} {name}")
    return ", ".join(told)


def _status_of(rollout: JsonObject) -> str:
    ended = {"succeeded": "completed", "cancelled": "skipped"}
    state = rollout["state"]
    if state in ENDED:
        return ended.get(state, "failed")
    return "completed" if rollout.get("done") else "running"
