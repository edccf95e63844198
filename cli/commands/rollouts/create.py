"""Rollouts made: which version, for which installs, and how it spreads."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.arguments import seconds_within
from cli.client import JsonObject
from cli.commands.installs.group import names_of_installs
from cli.commands.packages import version_of
from cli.commands.products import ProductArgument
from cli.commands.rollouts.group import app, follow_rollout, path_of, tell_end, title_of
from cli.commands.rollouts.selection import selector_of
from cli.completion import finished, names_of
from cli.documents import document_in
from cli.errors import CliError, ExitCode
from cli.options import NoWaitOption, command
from cli.output import Column
from cli.rollout_names import wave_name
from cli.rollout_progress import RolloutProgress
from cli.session import PRODUCT, REGION, Session
from cli.text import clean, plural

_WEEK_SECONDS = 7 * 86400
_PERCENT = "%"

_PLAN_COLUMNS = (
    Column("INSTALL", "name"),
    Column("WAVE", "shown_wave"),
    Column("STATE", "state"),
    Column("PLAN", "digest"),
    Column("WHY", "why", wraps=True),
    Column("ID", "install_id", minor=True),
)


@command(
    app,
    "create",
    examples=(
        "bulkhead rollouts create shop 1.5.0",
        "bulkhead rollouts create shop 1.5.0 --canary 2 --wave 10% --wave 50% --bake 15m",
        "bulkhead rollouts create shop 1.5.0 --region frankfurt --label tier=gold --plan-only",
        "bulkhead rollouts create shop 1.5.0 --install shop-eu --install shop-us",
        "bulkhead rollouts create shop 2.0.0 --gate each_wave --checks checks.yaml",
    ),
)
def create_rollout(
    session: Session,
    product: ProductArgument,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Its semantic version, or its id.")
    ],
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION", help="Only there; may be repeated.", autocompletion=names_of(REGION)
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only installs with it; may be repeated."),
    ] = None,
    channel: Annotated[
        Literal["stable", "edge"] | None, typer.Option(help="Only installs of this channel.")
    ] = None,
    install: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INSTALL",
            help="Only this one, by its id, its label `name` or its cluster; may be repeated.",
            autocompletion=finished(names_of_installs),
        ),
    ] = None,
    canary: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many go first; 1 by default, 0: none.")
    ] = None,
    wave: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|N%", help="The next wave; in order. By default all the others at once."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=100, help="How many move at the same time; 5.")
    ] = None,
    bake: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long each wave is looked at; 60s.")
    ] = None,
    error_budget: Annotated[
        str | None, typer.Option(metavar="N|N%", help="How many of a wave may fail; 0.")
    ] = None,
    checks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML with `checks`: workload, http, metric or job, as documented."
        ),
    ] = None,
    gate: Annotated[
        Literal["none", "start", "each_wave"] | None,
        typer.Option(help="Where somebody else than you has to approve."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long offline installs are tried again; 24h."),
    ] = None,
    keep_failed: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--keep-failed", help="Do not take a failed wave back by itself.")
    ] = False,
    plan_only: Annotated[  # noqa: FBT002 - the same
        bool, typer.Option("--plan-only", help="Look at what would change, and do nothing yet.")
    ] = False,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Bring a version to the installs of a product, and show it until it has ended.

    Customers' windows, holds, pins and consent stay above it; what is offline is tried again. A
    wave that fails is taken back by itself. The exit code is that of `bulkhead rollouts watch`.
    """
    found = session.resource(PRODUCT, product)
    strategy: JsonObject = {
        key: value
        for key, value in (
            ("canary", canary),
            ("waves", [_share(text, "--wave") for text in wave] if wave else None),
            ("concurrency", concurrency),
            ("bake_seconds", _span(bake, "--bake", 0, _WEEK_SECONDS)),
            (
                "error_budget",
                None if error_budget is None else _share(error_budget, "--error-budget"),
            ),
            ("checks", None if checks is None else _checks(checks)),
            ("gate", gate),
            ("automatic_rollback", False if keep_failed else None),
            ("deadline_seconds", _span(deadline, "--deadline", 60, 30 * 86400)),
        )
        if value is not None
    }
    body: JsonObject = {
        "product_id": found["id"],
        "package_version_id": version_of(session, found["package"]["id"], version)["id"],
        "selector": selector_of(
            session,
            found,
            regions=region or (),
            labels=label or (),
            channel=channel,
            installs=install or (),
        ),
        "strategy": strategy,
        "plan_only": plan_only,
    }
    rollout = session.client.create("/rollouts", body)
    if no_wait:
        _tell_begun(session, rollout)
        return
    progress = follow_rollout(session, rollout)
    if plan_only and not session.output.as_json:
        _show_plan(session, progress)
    tell_end(session, progress)


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


def _tell_begun(session: Session, rollout: JsonObject) -> None:
    if session.output.as_json:
        session.output.data(rollout)
        return
    session.output.say(f"Rolling out {title_of(session, rollout)}: {rollout['id']}")
    session.output.next_commands(f"bulkhead rollouts watch {rollout['id']}")


def _show_plan(session: Session, progress: RolloutProgress) -> None:
    """Print what each install's plan came to; what it is in detail only its customer may see."""
    output, rollout = session.output, progress.rollout
    targets = session.client.read_list(f"{path_of(rollout)}/targets", limit=200)
    rows = [
        {
            **target,
            "name": progress.name_of(target["install_id"]),
            "shown_wave": wave_name(rollout, target["wave"]),
            "digest": clean(target.get("plan_digest"))[:19],
            "why": progress.in_words((target.get("last_error") or {}).get("message")),
        }
        for target in targets
    ]
    output.say()
    output.listing(rows, _PLAN_COLUMNS, ("It has no installs.",))
    left = sum(rollout["counts"].values()) - len(targets)
    if left > 0:
        output.say((f"  and {plural(left, 'more install')}", "dim"))
    if rollout.get("plan_digest"):
        digest = clean(rollout["plan_digest"])
        output.say(("  digest: ", "dim"), digest, copied=True)
        output.next_commands(
            f"bulkhead rollouts approve {rollout['id']} --digest {shlex.quote(digest)}"
        )
