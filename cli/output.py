"""What a command shows: to a person on a terminal, to a pipe, or to a program as JSON.

Results go to standard output; progress, hints and errors go to standard error, so that a pipe
gets the result alone. Without a terminal there are no control codes and no wrapped lines.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cli.api_words import in_commands
from cli.errors import CliError
from cli.invocation import Invocation
from cli.text import clean

_GAP = 2
# Longer than any id. What has a longer word without a space is free text, and is cut.
_LONGEST_WORD = 40

STATE_STYLES = {
    "active": "green",
    "completed": "green",
    "SUCCEEDED": "green",
    "healthy": "green",
    "Healthy": "green",
    "Synced": "green",
    "deployed": "green",
    "pending": "dim",
    "planning": "yellow",
    "planned": "yellow",
    "paused": "blue",
    "waiting": "yellow",
    "rolling_back": "magenta",
    "rolled_back": "magenta",
    "rendering": "yellow",
    "syncing": "yellow",
    "Progressing": "yellow",
    "OutOfSync": "yellow",
    "degraded": "red",
    "Degraded": "red",
    "Missing": "red",
    "Running": "green",
    "Pending": "yellow",
    "Terminating": "magenta",
    "CrashLoopBackOff": "red",
    "ImagePullBackOff": "red",
    "ErrImagePull": "red",
    "Unschedulable": "red",
    "Failed": "red",
    "provisioning": "yellow",
    "running": "yellow",
    "RUNNING": "yellow",
    "suspended": "blue",
    "skipped": "dim",
    "deleting": "magenta",
    "failed": "red",
    "enabled": "green",
    "allowed": "green",
    "succeeded": "green",
    "disabled": "yellow",
    "soft_deleted": "magenta",
    "destroyed": "dim",
    "denied": "red",
    "cancelled": "magenta",
    "FAILED": "red",
    "CANCELLED": "magenta",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list.

    Attributes:
        title: its heading.
        key: the field of each entry.
        right: whether its values line up on the right.
        wraps: whether its values may be broken between words on a narrow terminal.
        minor: whether it moves below its row, the last one first, where a row would not fit.
    """

    title: str
    key: str
    right: bool = False
    wraps: bool = False
    minor: bool = False


class Output:
    """Standard output and standard error of one command.

    Args:
        as_json: the result is printed as JSON, and nothing else goes to standard output.
        out: where results go.
        err: where progress, hints and errors go.
        invocation: how proposed commands are written.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        invocation: Invocation | None = None,
    ) -> None:
        self.as_json = as_json
        self.invocation = invocation or Invocation()
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._out_console = _console(self._out)
        self.progress_console = _console(self._err)

    @property
    def shows_live_progress(self) -> bool:
        """Whether progress may be redrawn in place."""
        console = self.progress_console
        return self.shows_progress and console.is_terminal and not console.is_dumb_terminal

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown at all: a program that wants JSON gets none in its logs."""
        return not self.as_json or self.progress_console.is_terminal

    def data(self, value: object) -> None:
        """Print a value as JSON, in ASCII: no text of the outside world reaches a terminal raw."""
        self._out.write(json.dumps(value, indent=2) + "\n")

    def line(self, value: object) -> None:
        """Print one of many values as a line of JSON, at once, for a program that reads along."""
        self._out.write(json.dumps(value) + "\n")
        self._out.flush()

    def raw(self, text: str) -> None:
        """Print a text exactly as it is, for a pipe."""
        self._out.write(text)

    def raw_bytes(self, data: bytes) -> None:
        """Print bytes exactly as they are, for a pipe."""
        self._out.flush()
        self._out.buffer.write(data)
        self._out.buffer.flush()

    @property
    def prints_to_terminal(self) -> bool:
        """Whether the result goes to a terminal, which what it is sent can control."""
        return self._out.isatty()

    def say(self, *parts: str | tuple[str, str], copied: bool = False) -> None:
        """Print one line of the result for a person; each part may carry a style.

        `copied`: it is meant to be copied, so no line break may be put into it.
        """
        if not self.as_json:
            _print_line(self._out_console, self._out, parts, copied=copied)

    def note(self, *parts: str | tuple[str, str], copied: bool = False) -> None:
        """Print one line beside the result: a hint, progress; `copied` as in `say`."""
        if self.shows_progress:
            _print_line(self.progress_console, self._err, parts, copied=copied)

    def warn(self, sentence: str) -> None:
        """Print one line beside the result that a program's logs shall have too."""
        _print_line(self.progress_console, self._err, ((sentence, "yellow"),))

    def next_commands(self, *commands: str, beside: bool = False) -> None:
        """Tell a person what they may want to type next.

        `beside`: on standard error, because the result is a document that files are made of.
        """
        if not self.as_json:
            tell = self.note if beside else self.say
            for command in commands:
                typed = clean(self.invocation.typed(command))
                tell(("  next: ", "dim"), (typed, "cyan"), copied=True)

    def listing(
        self, entries: Sequence[dict[str, Any]], columns: Sequence[Column], empty: Sequence[str]
    ) -> None:
        """Print a list; `empty` is said, one line each, where there is nothing."""
        if self.as_json:
            self.data(list(entries))
        elif not entries:
            # A pipe that counts lines must count none.
            for line in empty:
                self.note(self.invocation.typed(line), copied=True)
        elif self._out_console.is_terminal:
            _print_table(self._out_console, entries, columns)
        else:
            self.raw(plain_table(entries, columns))

    def fields(self, entry: dict[str, Any], labels: Sequence[tuple[str, object]]) -> None:
        """Print one resource: as JSON whole, for a person the labelled values."""
        if self.as_json:
            self.data(entry)
            return
        shown = [(label, clean(value)) for label, value in labels if value is not None]
        width = max(len(label) for label, _ in shown) + 2
        for label, value in shown:
            style = STATE_STYLES.get(value, "")
            self.say((label.ljust(width), "bold"), (value, style))

    def error(self, failure: CliError) -> None:
        """Print a failure: as one JSON object, or for a person with what to do next."""
        next_commands = [self.invocation.typed(command) for command in failure.next_commands]
        if self.as_json:
            facts = {**failure.facts(), "next": next_commands}
            self._err.write(json.dumps({"error": facts}) + "\n")
            return
        message = self._in_commands(failure.message)
        error_line = ((f"{failure.title}: ", "bold red"), (message, ""))
        _print_line(self.progress_console, self._err, error_line)
        for label, value in (*failure.notes, *failure.detail_lines()):
            line = ((f"  {label}: ", "dim"), (self._in_commands(value), ""))
            _print_line(self.progress_console, self._err, line)
        for command in next_commands:
            line = (("  next: ", "dim"), (clean(command), "cyan"))
            _print_line(self.progress_console, self._err, line, copied=True)

    def _in_commands(self, text: str) -> str:
        return clean(in_commands(text, self.invocation.typed))


def _console(stream: TextIO) -> Console:
    # Rich would take FORCE_COLOR for a terminal and write control codes into a pipe.
    return Console(
        file=stream, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False
    )


def _print_line(
    console: Console,
    stream: TextIO,
    parts: Sequence[str | tuple[str, str]],
    *,
    copied: bool = False,
) -> None:
    if console.is_terminal:
        whole = Text.assemble(*parts)
        breaks = [] if copied else _breaks(whole.plain, console.width)
        for line in whole.divide(breaks):
            line.rstrip()
            console.print(line, soft_wrap=True)
    else:
        text = "".join(part if isinstance(part, str) else part[0] for part in parts)
        stream.write(text.rstrip() + "\n")


def _breaks(text: str, width: int) -> list[int]:
    """Return where lines begin anew: between words only.

    Rich would cut a path or an address that is longer than a line in two; here it stays whole.
    """
    breaks = []
    column = len(text) - len(text.lstrip())
    for index, word in enumerate(re.finditer(r"\S+\s*", text)):
        if index and column + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            column = 0
        column += cell_len(word[0])
    return breaks


def _cell(entry: dict[str, Any], column: Column) -> str:
    value = entry.get(column.key)
    return "-" if value is None or value == "" else clean(value)


def plain_table(entries: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    """Return a list as aligned lines of any width, with headings and without control codes."""
    rows = [[column.title for column in columns]]
    rows += [[_cell(entry, column) for column in columns] for entry in entries]
    widths = [max(cell_len(row[index]) for row in rows) for index in range(len(columns))]
    lines = []
    for row in rows:
        cells = []
        for value, width, column in zip(row, widths, columns, strict=True):
            padding = " " * (width - cell_len(value))
            cells.append(padding + value if column.right else value + padding)
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _print_table(
    console: Console, entries: Sequence[dict[str, Any]], columns: Sequence[Column]
) -> None:
    """Print a list for a terminal; an id is never cut in two, because it could not be copied."""
    beside = list(columns)
    while _width_of(widths := _narrowest(entries, beside)) > console.width:
        moved = next((column for column in reversed(beside) if column.minor), None)
        if moved is None:
            break
        beside.remove(moved)
    _widen(widths, entries, beside, console.width)
    below = [column for column in columns if column not in beside]
    headings = {column.key: Text(column.title, "bold") for column in beside}
    _print_row(console, headings, beside, widths)
    for entry in entries:
        cells = {column.key: _styled(_cell(entry, column)) for column in beside}
        _print_row(console, cells, beside, widths)
        for column in below:
            line = Text.assemble("  ", (f"{column.title.lower()}: ", "dim"), _cell(entry, column))
            console.print(line, soft_wrap=True)


def _narrowest(entries: Sequence[dict[str, Any]], columns: Sequence[Column]) -> dict[str, int]:
    """Return the least width of each column that breaks no word of it."""
    widths = {}
    for column in columns:
        cells = [_cell(entry, column) for entry in entries]
        if column.wraps:
            words = [word for cell in cells for word in cell.split()]
            cells = [word for word in words if cell_len(word) <= _LONGEST_WORD]
        widths[column.key] = max(cell_len(cell) for cell in [column.title, *cells])
    return widths


def _widen(
    widths: dict[str, int],
    entries: Sequence[dict[str, Any]],
    columns: Sequence[Column],
    available: int,
) -> None:
    """Give the columns that wrap, in place, the room that is left."""
    for column in columns:
        if column.wraps:
            wanted = max(cell_len(_cell(entry, column)) for entry in entries)
            room = max(available - _width_of(widths), 0)
            widths[column.key] = max(min(wanted, widths[column.key] + room), widths[column.key])


def _width_of(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _print_row(
    console: Console, cells: dict[str, Text], columns: Sequence[Column], widths: dict[str, int]
) -> None:
    wrapped = [cells[column.key].wrap(console, widths[column.key]) for column in columns]
    for parts in zip_longest(*wrapped):
        line = Text()
        for column, part in zip(columns, parts, strict=True):
            cell = Text() if part is None else part
            cell.rstrip()
            cell.align("right" if column.right else "left", widths[column.key])
            line.append(" " * (_GAP if line else 0)).append_text(cell)
        line.rstrip()
        console.print(line, soft_wrap=True)


def _styled(cell: str) -> Text:
    return Text(cell, STATE_STYLES.get(cell, ""))
