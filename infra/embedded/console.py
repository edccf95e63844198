"""What a person sees: progress with seconds, the status table, and what to do when it failed."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from domain.errors import BulkheadError
from infra.embedded.owner import Owner
from infra.embedded.server import PartFailedError
from infra.embedded.stack import Report, Stack
from infra.embedded.status import ComponentStatus

_MEBIBYTE = 1024 * 1024


@contextlib.contextmanager
def progress_on(console: Console) -> Iterator[Report]:
    """Show what is being done and for how long; in a log, one line when each thing is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        @contextlib.contextmanager
        def report(title: str) -> Iterator[None]:
            task = progress.add_task(title, total=None)
            began = time.monotonic()
            try:
                yield
                seconds = time.monotonic() - began
                progress.console.print(f"  [green]ready[/]  {title:<20} {seconds:5.1f} s")
            except BaseException:
                progress.console.print(f"  [red]failed[/] {title}")
                raise
            finally:
                progress.remove_task(task)

        yield report


def print_addresses(console: Console, stack: Stack, owner: Owner) -> None:
    """Say where everything is; the token only when it is new."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("API", stack.api.address)
    table.add_row("", f"{stack.api.https_address} (authority: {stack.home.ca_file})")
    table.add_row("Temporal UI", f"http://127.0.0.1:{stack.ports.temporal_ui}")
    if owner.is_new:
        table.add_row("Owner token", Text(owner.token, style="bold"))
    console.print()
    console.print(table)
    kept = "Address and token are" if not owner.is_new else "Shown once; address and token are"
    console.print(
        f"{kept} in {stack.home.owner_file}, where `bulkhead` finds them.",
        style="dim",
        soft_wrap=True,
    )


def print_status(console: Console, components: Sequence[ComponentStatus]) -> None:
    """Print the table, and below it what is not right."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("COMPONENT", "STATE", "PID", "ADDRESS", "UPTIME", "MEMORY"):
        table.add_column(heading, justify="right" if heading in {"PID", "MEMORY"} else "left")
    for component in components:
        table.add_row(
            component.component,
            Text(component.state, style="green" if component.is_right else "red"),
            str(component.pid or "-"),
            Text(component.address, overflow="fold"),
            _duration(component.uptime_seconds),
            "-"
            if component.memory_bytes is None
            else f"{component.memory_bytes / _MEBIBYTE:.0f} MiB",
        )
    console.print(table)
    for component in components:
        if component.problem:
            console.print(f"[red]{component.component}[/]: {component.problem}", soft_wrap=True)


def print_failure(console: Console, error: BulkheadError) -> None:
    """Say what failed, with its last words."""
    console.print(f"[red]failed[/]: {error.message}", soft_wrap=True, highlight=False)
    if isinstance(error, PartFailedError) and error.log_file is not None:
        console.print(f"The last lines of {error.log_file}:", soft_wrap=True)
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
