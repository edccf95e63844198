"""How a rollout spreads, as people write it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.arguments import seconds_within
from cli.client import JsonObject
from cli.documents import document_in
from cli.errors import CliError, ExitCode

_WEEK_SECONDS = 7 * 86400
_MONTH_SECONDS = 30 * 86400
_PERCENT = "%"

Gate = Literal["none", "start", "each_wave"]

CanaryOption = Annotated[
    int | None, typer.Option(min=0, max=100, help="How many go first; 1 by default, 0: none.")
]
WaveOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N|N%", help="The next wave; in order. By default all the others at once."
    ),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, max=100, help="How many move at the same time; 5.")
]
BakeOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long each wave is looked at; 60s.")
]
ErrorBudgetOption = Annotated[
    str | None, typer.Option(metavar="N|N%", help="How many of a wave may fail; 0.")
]
ChecksOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="YAML with `checks`: workload, http, metric or job, as documented."
    ),
]
GateOption = Annotated[
    Gate | None, typer.Option(help="Where somebody else than you has to approve.")
]
DeadlineOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long offline installs are tried again; 24h."),
]
KeepFailedOption = Annotated[
    bool, typer.Option("--keep-failed", help="Do not take a failed wave back by itself.")
]


def strategy_of(
    *,
    canary: int | None,
    waves: list[str] | None,
    concurrency: int | None,
    bake: str | None,
    error_budget: str | None,
    checks: Path | None,
    gate: Gate | None,
    deadline: str | None,
    keeps_failed: bool,
) -> JsonObject:
    """Return what is said of how a rollout spreads; the API decides what is absent.

    Raises:
        CliError: a share, a span of time or the file of checks is none.
    """
    said = {
        "canary": canary,
        "waves": [_share(text, "--wave") for text in waves] if waves else None,
        "concurrency": concurrency,
        "bake_seconds": _span(bake, "--bake", 0, _WEEK_SECONDS),
        "error_budget": None if error_budget is None else _share(error_budget, "--error-budget"),
        "checks": None if checks is None else _checks(checks),
        "gate": gate,
        "automatic_rollback": False if keeps_failed else None,
        "deadline_seconds": _span(deadline, "--deadline", 60, _MONTH_SECONDS),
    }
    return {key: value for key, value in said.items() if value is not None}


def _share(text: str, option: str) -> JsonObject:
    number = text.removesuffix(_PERCENT)
    if not number.isdecimal():
        message = f"{option} takes a number of installs or a share: 5 or 10%."
        raise CliError(message, ExitCode.USAGE)
    return {"percent" if text.endswith(_PERCENT) else "count": int(number)}


def _span(text: str | None, option: str, least: int, most: int) -> int | None:
    return None if text is None else seconds_within(text, option, least, most)


def _checks(file: Path) -> list[JsonObject]:
    found = document_in(file).get("checks")
    if not isinstance(found, list):
        message = f"{file} has no list of `checks`."
        raise CliError(message, ExitCode.USAGE)
    return found
