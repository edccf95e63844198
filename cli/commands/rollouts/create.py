"""Rollouts made: which version, for which installs, and how it spreads."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.packages import version_of
from cli.commands.products import ProductArgument
from cli.commands.rollouts.group import app, follow_rollout, path_of, tell_end, title_of
from cli.commands.rollouts.selection import (
    ChannelOption,
    InstallOption,
    LabelOption,
    RegionOption,
    selector_of,
)
from cli.commands.rollouts.strategy import (
    BakeOption,
    CanaryOption,
    ChecksOption,
    ConcurrencyOption,
    DeadlineOption,
    ErrorBudgetOption,
    GateOption,
    KeepFailedOption,
    WaveOption,
    strategy_of,
)
from cli.options import NoWaitOption, command
from cli.output import Column
from cli.rollout_names import wave_name
from cli.rollout_progress import RolloutProgress
from cli.session import PRODUCT, Session
from cli.text import clean, plural

_VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="Its semantic version, or its id.")
]
_PlanOnlyOption = Annotated[
    bool, typer.Option("--plan-only", help="Look at what would change, and do nothing yet.")
]

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
    version: _VersionArgument,
    region: RegionOption = None,
    label: LabelOption = None,
    channel: ChannelOption = None,
    install: InstallOption = None,
    canary: CanaryOption = None,
    wave: WaveOption = None,
    concurrency: ConcurrencyOption = None,
    bake: BakeOption = None,
    error_budget: ErrorBudgetOption = None,
    checks: ChecksOption = None,
    gate: GateOption = None,
    deadline: DeadlineOption = None,
    keep_failed: KeepFailedOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    plan_only: _PlanOnlyOption = False,  # noqa: FBT002 - the same
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Bring a version to the installs of a product, and show it until it has ended.

    Customers' windows, holds, pins and consent stay above it; what is offline is tried again. A
    wave that fails is taken back by itself. The exit code is that of `bulkhead rollouts watch`.
    """
    found = session.resource(PRODUCT, product)
    strategy = strategy_of(
        canary=canary,
        waves=wave,
        concurrency=concurrency,
        bake=bake,
        error_budget=error_budget,
        checks=checks,
        gate=gate,
        deadline=deadline,
        keeps_failed=keep_failed,
    )
    body = {
        "product_id": found["id"],
        "package_version_id": version_of(session, found["package"]["id"], version)["id"],
        "selector": selector_of(session, found, region, label, channel, install),
        "strategy": strategy,
        "plan_only": plan_only,
    }
    rollout = session.client.create("/rollouts", body)
    if no_wait:
        _tell_begun(session, rollout)
    else:
        _see(session, rollout)


def _see(session: Session, rollout: JsonObject) -> None:
    progress = follow_rollout(session, rollout)
    if rollout.get("plan_only") and not session.output.as_json:
        _show_plan(session, progress)
    tell_end(session, progress)


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
