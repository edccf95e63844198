"""Renders: what versions and values came to, what applying them does, and approvals."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.commands.installs.group import (
    InstallArgument,
    YesOption,
    app,
    install_called,
    path_of,
    render_before,
    semvers,
    title_of,
    typed_name,
)
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.output import Column
from cli.plans import show_differences, show_plan, show_unified
from cli.session import Session
from cli.text import age, clean

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
    examples=("bulkhead installs plan shop-eu", "bulkhead installs plan shop-eu rnd_0199..."),
)
def show_plan_of_render(
    session: Session, install: InstallArgument, render: _RenderArgument = None
) -> None:
    """Show what applying a render does, as a diff, and what it needs for that.

    Data of Secrets are hidden, whoever made them.
    """
    found = install_called(session, install)
    plan = _plan(session, found, render)
    output = session.output
    if output.as_json:
        output.data(plan)
        return
    show_plan(output, plan, f"Plan for {title_of(session, found)} ({clean(plan['render_id'])})")
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
    render_id = render or _newest(session, found)
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
    plan = _plan(session, found, None)
    name, output = typed_name(found), session.output
    if not plan.get("waits_for_approval"):
        message = f"No plan of {name} waits for an approval."
        raise CliError(
            message, ExitCode.CONFLICT, next_commands=(f"bulkhead installs plan {name}",)
        )
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
    examples=("bulkhead installs drift shop-eu", "bulkhead installs drift shop-eu --correct on"),
)
def show_drift(
    session: Session,
    install: InstallArgument,
    correct: Annotated[
        str | None,
        typer.Option(metavar="on|off", help="Whether what differs is put back by itself."),
    ] = None,
) -> None:
    """Show which live objects are not as they were rendered; with --correct, change the rule."""
    found = install_called(session, install)
    if correct is not None:
        if correct not in {"on", "off"}:
            message = "--correct is on or off."
            raise CliError(message, ExitCode.USAGE)
        body = {"drift_correction": correct == "on"}
        found = session.client.change("PATCH", path_of(found), etag=found["etag"], body=body)
    findings = session.client.read_list(f"{path_of(found)}/drift")
    output = session.output
    if output.as_json:
        output.data(findings)
        return
    for finding in findings:
        since = f"{clean(finding['state'])}, first seen {age(finding['first_seen_at'])} ago"
        output.say(("~ ", "yellow"), (clean(finding["object"]), "bold"), f"  {since}")
        show_differences(output, finding.get("delta") or ())
    if not findings:
        output.say(("✓ ", "green"), "Every live object is as it was rendered.")
    rule = "is put back by itself" if found.get("drift_correction") else "is only told"
    output.say((f"  What differs {rule}.", "dim"))
    if findings and not found.get("drift_correction"):
        typed = shlex.quote(typed_name(found))
        output.next_commands(f"bulkhead installs drift {typed} --correct on")


def _plan(session: Session, install: JsonObject, render: str | None) -> JsonObject:
    render_id = render or _newest(session, install)
    return session.client.get(f"{path_of(install)}/renders/{segment(render_id)}/plan")


def _newest(session: Session, install: JsonObject) -> str:
    newest = session.client.read_list(f"{path_of(install)}/renders", limit=1)
    if not newest:
        message = "Nothing was rendered yet."
        raise CliError(message, ExitCode.NOT_FOUND)
    return str(newest[0]["id"])


def _note(render: JsonObject, install: JsonObject) -> str:
    notes = []
    if render["id"] == install.get("current_render_id"):
        notes.append("current")
    if render.get("restored_from_render_id"):
        notes.append(f"of {clean(render['restored_from_render_id'])}")
    if render.get("message"):
        notes.append(clean(render["message"]))
    return "; ".join(notes)
