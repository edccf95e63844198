"""What people ask of a rollout that is under way."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.rollouts.group import (
    RolloutArgument,
    app,
    follow_rollout,
    left_behind,
    path_of,
    rollout_called,
    tell_end,
    title_of,
)
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.install_waits import APPROVAL
from cli.options import NoWaitOption, YesOption, command
from cli.rollout_names import wave_in_words
from cli.rollout_views import counts_text
from cli.session import Session
from cli.text import clean


@command(
    app,
    "approve",
    examples=(
        "bulkhead rollouts approve roll_0199... --digest sha256:3f...",
        "bulkhead rollouts approve",
    ),
)
def approve_rollout(
    session: Session,
    rollout: RolloutArgument = None,
    digest: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Of the plan that you looked at.")
    ] = None,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Approve the plan for which a rollout waits; another plan by now is refused."""
    found = rollout_called(session, rollout, live_only=False)
    planned = found.get("plan_digest")
    if found["state"] != "planned" or planned is None:
        message = f"The rollout is {clean(found['state'])}, and waits for no approval."
        look = f"bulkhead rollouts get {found['id']}"
        if (found.get("waiting") or {}).get(APPROVAL):
            message += " Installs of it do, each for that of its own plan."
            look = f"bulkhead rollouts targets {found['id']}"
        raise CliError(message, ExitCode.CONFLICT, next_commands=(look,))
    title = title_of(session, found)
    if digest is None and not yes:
        wave = wave_in_words(found, found["wave"])
        effect = f"This lets {title} go on with {wave}. The plan's digest is {clean(planned)}."
        if not found.get("plan_only"):
            effect += " What changes at each install is not a part of it."
        confirm_by_name(session, title, doing="approving", effect=effect, done="approved")
    body = {"digest": digest or planned}
    answer = session.client.change("POST", f"{path_of(found)}:approve", body=body)
    _tell(session, answer, f"{title} is approved, and goes on.", "bulkhead rollouts watch")


@command(app, "pause", examples=("bulkhead rollouts pause", "bulkhead rollouts pause roll_0199..."))
def pause_rollout(session: Session, rollout: RolloutArgument = None) -> None:
    """Begin nothing new; what moves already ends."""
    found = rollout_called(session, rollout)
    answer = _ask(session, found, "pause")
    moving = counts_text({"moving": (answer.get("counts") or {}).get("moving", 0)})
    told = f", while {moving}" if moving else ""
    _tell(
        session, answer, f"{title_of(session, found)} is paused{told}.", "bulkhead rollouts resume"
    )


@command(app, "resume", examples=("bulkhead rollouts resume",))
def resume_rollout(session: Session, rollout: RolloutArgument = None) -> None:
    """Go on where a pause stopped it."""
    found = rollout_called(session, rollout)
    answer = _ask(session, found, "resume")
    _tell(session, answer, f"{title_of(session, found)} goes on.", "bulkhead rollouts watch")


@command(app, "cancel", examples=("bulkhead rollouts cancel roll_0199... --yes",))
def cancel_rollout(
    session: Session,
    rollout: RolloutArgument = None,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """End a rollout for good; installs that have the version keep it."""
    found = rollout_called(session, rollout)
    title = title_of(session, found)
    if not yes:
        effect = f"This ends {title} for good; what was moved stays moved. To undo: rollback."
        confirm_by_name(session, title, doing="cancelling", effect=effect, done="cancelled")
    answer = _ask(session, found, "cancel")
    _tell(
        session, answer, f"{title} ends, and what was moved stays moved.", "bulkhead rollouts get"
    )


@command(app, "rollback", examples=("bulkhead rollouts rollback roll_0199... --yes",))
def roll_back_rollout(
    session: Session,
    rollout: RolloutArgument = None,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Take back what a rollout has moved: each install returns to what it had before."""
    found = rollout_called(session, rollout)
    title = title_of(session, found)
    if not yes:
        effect = f"This takes {title} back from every install that it has moved."
        confirm_by_name(session, title, doing="rolling back", effect=effect, done="rolled back")
    answer = _ask(session, found, "rollback")
    if no_wait:
        _tell(session, answer, f"{title} is being taken back.", "bulkhead rollouts watch")
        return
    progress = follow_rollout(session, answer)
    if progress.rollout["state"] != "rolled_back" or left_behind(session, progress):
        tell_end(session, progress)
        return
    if session.output.as_json:
        session.output.data({**progress.rollout, "events": progress.events})
    elif (progress.rollout.get("counts") or {}).get("rolled_back"):
        session.output.say(("✓ ", "green"), f"{title} is taken back from all that it had moved.")
    else:
        session.output.say(("✓ ", "green"), f"Nothing of {title} was left to be taken back.")


def _ask(session: Session, rollout: JsonObject, verb: str) -> JsonObject:
    return session.client.change("POST", f"{path_of(rollout)}:{verb}")


def _tell(session: Session, rollout: JsonObject, sentence: str, following: str) -> None:
    if session.output.as_json:
        session.output.data(rollout)
        return
    session.output.say(("✓ ", "green"), sentence)
    session.output.next_commands(f"{following} {shlex.quote(clean(rollout['id']))}")
