"""What a person sees: progress with seconds, the status table, and what to do when it failed."""

import contextlib
import textwrap
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from domain.errors import BulkheadError
from infra.embedded.owner import Owner
from infra.embedded.server import PartFailedError
from infra.embedded.stack import Report, Stack
from infra.embedded.status import ComponentStatus

_MEBIBYTE = 1024 * 1024


def say(console: Console, text: str, style: str = "") -> None:
    """Print a paragraph as it is: no markup, and on a terminal broken between words only."""
    lines = [text]
    if console.is_terminal:
        lines = textwrap.wrap(
            text, console.width, break_long_words=False, break_on_hyphens=False
        ) or [""]
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


@contextlib.contextmanager
def progress_on(console: Console, done: str) -> Iterator[Report]:
    """Show what is being done and for how long; in a log, one line when each thing is `done`."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    width = max(len(done), len("failed"))
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:

        @contextlib.contextmanager
        def report(title: str) -> Iterator[None]:
            task = progress.add_task(title, total=None)
            began = time.monotonic()
            try:
                yield
                seconds = time.monotonic() - began
                word = f"[green]{done:<{width}}[/]"
                progress.console.print(f"  {word} {title:<20} {seconds:5.1f} s", soft_wrap=True)
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                word = "[yellow]cut short[/]" if interrupted else f"[red]{'failed':<{width}}[/]"
                progress.console.print(f"  {word} {title}", soft_wrap=True)
                raise
            finally:
                progress.remove_task(task)

        yield report


def print_addresses(console: Console, stack: Stack, owner: Owner) -> None:
    """Say where everything is; the token only when it is new."""
    rows = [
        ("API", stack.api.address),
        ("", stack.api.https_address),
        ("Authority", str(stack.home.ca_file)),
        ("Temporal UI", f"http://127.0.0.1:{stack.ports.temporal_ui}"),
    ]
    if owner.is_new:
        rows.append(("Owner token", owner.token))
    if stack.local_clouds is not None:
        rows.append(("Cloud keys", f"{stack.home.cloud_accounts}/"))
    console.print()
    for name, value in rows:
        console.print(Text.assemble(f"{name:<13}", (value, "bold")), soft_wrap=True)
    once = "The token is not printed again. " if owner.is_new else ""
    say(
        console,
        f"{once}Address and token are in {stack.home.owner_file}, where `bulkhead` finds them.",
        style="dim",
    )


def print_status(console: Console, components: Sequence[ComponentStatus]) -> None:
    """Print the table, and below it what is not right."""
    rows = [_HEADINGS, *(_row(component) for component in components)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    styles = ["bold", *("green" if component.is_right else "red" for component in components)]
    for row, style in zip(rows, styles, strict=True):
        name, state, pid, uptime, memory, address = row
        line = Text(f"{name:<{widths[0]}}  ")
        line.append(f"{state:<{widths[1]}}  ", style)
        line.append(f"{pid:>{widths[2]}}  {uptime:<{widths[3]}}  {memory:>{widths[4]}}  {address}")
        console.print(line, soft_wrap=True)
    for component in components:
        if component.problem:
            say(console, f"{component.component}: {component.problem}", style="red")


# The address is last: it is the only one that may be wider than expected.
_HEADINGS = ("COMPONENT", "STATE", "PID", "UPTIME", "MEMORY", "ADDRESS")


def _row(component: ComponentStatus) -> tuple[str, str, str, str, str, str]:
    memory = component.memory_bytes
    return (
        component.component,
        component.state,
        str(component.pid or "-"),
        _duration(component.uptime_seconds),
        "-" if memory is None else f"{memory / _MEBIBYTE:.0f} MiB",
        component.address,
    )


def print_failure(console: Console, error: BulkheadError) -> None:
    """Say what failed, with its last words."""
    say(console, f"failed: {error.message}", style="red")
    if isinstance(error, PartFailedError) and error.log_file is not None:
        say(console, f"The last lines of {error.log_file}:")
        for line in error.log_tail():
            console.print(Text(f"  {line}"), soft_wrap=True)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {seconds}s" if minutes else f"{seconds}s"
