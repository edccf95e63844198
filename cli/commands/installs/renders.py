"""Renders: what versions and values came to, what applying them does, and approvals."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.commands.installs.group import (
    InstallArgument,
    app,
    install_called,
    path_of,
    render_before,
    semvers,
    typed_name,
)
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.names import title_of
from cli.options import YesOption, command
from cli.output import Column
from cli.plans import show_drift_of, show_plan, show_unified, standing_of
from cli.session import Session
from cli.text import age, clean, moment, plural

_COLUMNS = (
    Column("RENDER", "id"),
    Column("STATE", "state"),
    Column("VERSION", "shown_version"),
    Column("AGE", "age"),
    Column("NOTE", "note", wraps=True),
)
_RenderArgument = Annotated[
    str | None, typer.Argument(metavar="RENDER", help="Its id; by default the newest one.")
]


@command(app, "renders", examples=("bulkhead installs renders shop-eu",))
def list_renders(
    session: Session,
    install: InstallArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """List what was rendered for an install, newest first."""
    found = install_called(session, install)
    entries = session.client.read_list(f"{path_of(found)}/renders", limit=limit)
    if not session.output.as_json:
        versions = semvers(session, [found])
        entries = [
            {
                **entry,
                "shown_version": versions.get(
                    entry.get("package_version_id") or "", entry.get("package_version_id")
                ),
                "age": age(entry["created_at"]),
                "note": _note(entry, found),
            }
            for entry in entries
        ]
    session.output.listing(entries, _COLUMNS, ("Nothing was rendered yet.",))


@command(
    app,
    "plan",
    examples=(
        "bulkhead installs plan shop-eu",
        "bulkhead installs plan shop-eu rnd_0199...",
        "bulkhead installs plan shop-eu --rollout",
    ),
)
def show_plan_of_render(
    session: Session,
    install: InstallArgument,
    render: _RenderArgument = None,
    rollout: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool,
        typer.Option("--rollout", help="What the vendor's last rollout of plans alone planned."),
    ] = False,
) -> None:
    """Show what applying a render does, or did, as a diff, and what it needs for that.

    By default of the newest render: once that is deployed, this is what it did. Data of Secrets are
    hidden, whoever made them.
    """
    found = install_called(session, install)
    if rollout:
        if render is not None:
            message = "Give a render, or --rollout."
            raise CliError(message, ExitCode.USAGE)
        _show_rollout_plan(session, found)
        return
    shown = _render(session, found, render)
    output = session.output
    standing = standing_of(shown)
    if standing and render is None:
        standing += " Nothing waits to be done."
    is_last = shown["id"] == found.get("current_render_id")
    what = "Plan of the last deployment of" if is_last else "Plan for"
    title = f"{what} {title_of(session, found)} ({clean(shown['id'])})"
    if shown["state"] == "skipped" and not output.as_json:
        # There is none of it: it was not applied.
        output.say((title, "bold"))
        output.say((f"  {standing}", "cyan"))
        return
    plan = _plan(session, found, shown)
    if output.as_json:
        output.data(plan)
        return
    show_plan(output, plan, title, standing)
    if plan.get("waits_for_approval"):
        digest = shlex.quote(clean(plan["plan_digest"]))
        typed = shlex.quote(typed_name(found))
        output.say(("  It waits until somebody approves this digest.", "yellow"))
        output.next_commands(f"bulkhead installs approve {typed} --digest {digest}")


@command(
    app,
    "diff",
    examples=(
        "bulkhead installs diff shop-eu rnd_0199...",
        "bulkhead installs diff shop-eu rnd_0199... --against rnd_0198...",
    ),
)
def show_difference(
    session: Session,
    install: InstallArgument,
    render: _RenderArgument = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RENDER", help="By default the one that is deployed, or before it."),
    ] = None,
) -> None:
    """Show how two renders differ, without asking the cluster."""
    found = install_called(session, install)
    render_id = render or str(_newest(session, found)["id"])
    if against is None and render_id == found.get("current_render_id"):
        against = render_before(session, found)
    path = f"{path_of(found)}/renders/{segment(render_id)}/diff"
    answer = session.client.get(path, against=against)
    output = session.output
    if output.as_json:
        output.data(answer)
        return
    output.note((f"From {clean(answer['against'])} to {clean(answer['render_id'])}:", "dim"))
    show_unified(output, answer["diff"])
    if not answer["diff"]:
        output.say("They are the same.")
    if answer.get("truncated"):
        output.note(("  There is more; this is as much as one answer holds.", "yellow"))


@command(
    app,
    "approve",
    examples=(
        "bulkhead installs approve shop-eu",
        "bulkhead installs approve shop-eu --digest sha256:3f... --yes",
    ),
)
def approve_plan(
    session: Session,
    install: InstallArgument,
    digest: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Of the plan that you looked at; else it is shown."),
    ] = None,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Approve the plan for which an install waits; another plan by now is refused."""
    found = install_called(session, install)
    plan = _plan(session, found, _render(session, found, None))
    name, output = typed_name(found), session.output
    if not plan.get("waits_for_approval"):
        message = f"No plan of {name} waits for an approval."
        look = f"bulkhead installs plan {shlex.quote(name)}"
        raise CliError(message, ExitCode.CONFLICT, next_commands=(look,))
    if not yes and digest is None:
        if not output.as_json:
            show_plan(output, plan, f"Plan for {title_of(session, found)}")
        effect = (
            "This lets it be applied, with the rights of the whole cluster for what needs them."
        )
        confirm_by_name(session, name, doing="approving", effect=effect, done="approved")
    body = {"digest": digest or plan["plan_digest"]}
    answer = session.client.change("POST", f"{path_of(found)}:approve", body=body)
    if output.as_json:
        output.data(answer)
        return
    output.say(("✓ ", "green"), f"The plan of {name} is approved; it goes on.")
    operation_id = found.get("active_operation_id")
    if operation_id:
        output.next_commands(f"bulkhead operations watch {operation_id}")


@command(
    app,
    "drift",
    examples=(
        "bulkhead installs drift shop-eu --look",
        "bulkhead installs drift shop-eu --correct on",
    ),
)
def show_drift(
    session: Session,
    install: InstallArgument,
    correct: Annotated[
        str | None,
        typer.Option(metavar="on|off", help="Whether what differs is put back by itself."),
    ] = None,
    look: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--look", help="Compare now, instead of showing the last look.")
    ] = False,
) -> None:
    """Show which live objects are not as they were rendered; with --correct, change the rule.

    They are compared every ten minutes, and at once with --look.
    """
    found = install_called(session, install)
    if correct is not None:
        if correct not in {"on", "off"}:
            message = "--correct is on or off."
            raise CliError(message, ExitCode.USAGE)
        body = {"drift_correction": correct == "on"}
        found = session.client.change("PATCH", path_of(found), etag=found["etag"], body=body)
    if look:
        found = session.client.change("POST", f"{path_of(found)}:detect_drift")
    findings = session.client.read_list(f"{path_of(found)}/drift")
    if session.output.as_json:
        session.output.data(findings)
    else:
        _tell_drift(session, found, findings)


def _show_rollout_plan(session: Session, install: JsonObject) -> None:
    plan = session.client.get(f"{path_of(install)}/rollout_plan")
    if session.output.as_json:
        session.output.data(plan)
        return
    name, version = title_of(session, install), clean(plan["semver"])
    at = f"Made {age(plan['created_at'])} ago; its vendor sees the digest alone."
    title = f"Plan of {clean(plan['rollout_id'])} for {name}: {version}"
    show_plan(session.output, plan, title, at)


def _tell_drift(session: Session, install: JsonObject, findings: Sequence[JsonObject]) -> None:
    output = session.output
    open_ones = [finding for finding in findings if finding["state"] == "open"]
    looked_at = install.get("drift_looked_at")
    typed = shlex.quote(typed_name(install))
    as_of = f"as of {age(looked_at)} ago ({moment(looked_at)})"
    if looked_at is None:
        output.say("It was not compared with its render yet; that is done every ten minutes.")
        output.next_commands(f"bulkhead installs drift {typed} --look")
    elif not open_ones:
        output.say(("✓ ", "green"), f"Every live object is as it was rendered, {as_of}.")
    else:
        many = plural(len(open_ones), "live object")
        differ = "is not" if len(open_ones) == 1 else "are not"
        output.say(("~ ", "yellow"), f"{many} {differ} as rendered, {as_of}; live -> rendered:")
    for finding in open_ones:
        since = f"first seen {age(finding['first_seen_at'])} ago"
        output.say("  ", (clean(finding["object"]), "bold"), f"  {since}")
        show_drift_of(output, finding.get("delta") or ())
    for finding in findings:
        if finding["state"] != "open":
            end = f"{clean(finding['state'])} {age(finding.get('resolved_at'))} ago"
            output.say((f"  {clean(finding['object'])}  differed; {end}", "dim"))
    rule = "is put back by itself" if install.get("drift_correction") else "is only told"
    output.say((f"  What differs {rule}.", "dim"))
    operation_id = install.get("active_operation_id")
    if operation_id:
        output.next_commands(f"bulkhead operations watch {operation_id}")
    elif open_ones and not install.get("drift_correction"):
        output.next_commands(f"bulkhead installs drift {typed} --correct on")


def _plan(session: Session, install: JsonObject, render: JsonObject) -> JsonObject:
    return session.client.get(f"{path_of(install)}/renders/{segment(render['id'])}/plan")


def _render(session: Session, install: JsonObject, render_id: str | None) -> JsonObject:
    """Read a render of an install; without an id the newest one."""
    if render_id is None:
        return _newest(session, install)
    return session.client.get(f"{path_of(install)}/renders/{segment(render_id)}")


def _newest(session: Session, install: JsonObject) -> JsonObject:
    newest = session.client.read_list(f"{path_of(install)}/renders", limit=1)
    if not newest:
        message = "Nothing was rendered yet."
        look = f"bulkhead installs get {shlex.quote(typed_name(install))}"
        raise CliError(message, ExitCode.NOT_FOUND, next_commands=(look,))
    return newest[0]


def _note(render: JsonObject, install: JsonObject) -> str:
    notes = []
    if render["id"] == install.get("current_render_id"):
        notes.append("current")
    if render.get("restored_from_render_id"):
        notes.append(f"of {clean(render['restored_from_render_id'])}")
    if render.get("message"):
        notes.append(clean(render["message"]))
    return "; ".join(notes)
