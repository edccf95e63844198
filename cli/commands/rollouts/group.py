"""What all commands of rollouts share: the group, the argument, and following one to its end."""

from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import finished
from cli.errors import ApiError, CliError, ExitCode
from cli.rollout_follow import follow
from cli.rollout_progress import ENDED, RolloutProgress, timeline
from cli.session import ROLLOUT, Session
from cli.text import clean, duration

app = typer.Typer(
    help="Rollouts: a version on many installs, in waves that drive themselves.",
    no_args_is_help=True,
)

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")
]


def _ids(session: Session) -> list[str]:
    return [entry["id"] for entry in session.client.read_list(ROLLOUT.path, limit=20)]


RolloutArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="ROLLOUT",
        help="Its id; by default the newest that goes on.",
        autocompletion=finished(_ids),
    ),
]


class RolloutEndedError(CliError):
    """A rollout was seen to its end, and the end is not what was wanted."""

    def __init__(self, rollout: JsonObject) -> None:
        state = clean(rollout["state"])
        reason = clean(rollout.get("reason"))
        message = f"The rollout is {state.replace('_', ' ')}"
        message += f": {reason}" if reason else "."
        cancelled = state == "cancelled"
        rollout_id = clean(rollout["id"])
        super().__init__(
            message,
            ExitCode.OPERATION_CANCELLED if cancelled else ExitCode.OPERATION_FAILED,
            next_commands=(
                f"bulkhead rollouts targets {rollout_id} --state failed",
                f"bulkhead rollouts events {rollout_id}",
            ),
        )
        if cancelled:
            self.title = "Cancelled"


def path_of(rollout: JsonObject) -> str:
    """Return the place of a rollout in the API."""
    return f"{ROLLOUT.path}/{segment(rollout['id'])}"


def rollout_called(session: Session, text: str | None, *, live_only: bool = True) -> JsonObject:
    """Read a rollout by its id; without one the newest that goes on, or the newest of all.

    Raises:
        CliError: there is none.
    """
    if text is not None:
        return session.client.get(f"{ROLLOUT.path}/{segment(text)}")
    newest = session.client.read_list(ROLLOUT.path, limit=20)
    for entry in newest:
        if not entry["done"]:
            return session.client.get(path_of(entry))
    if newest and not live_only:
        return session.client.get(path_of(newest[0]))
    message = "No rollout goes on." if newest else "There is no rollout yet."
    raise CliError(message, ExitCode.NOT_FOUND, next_commands=("bulkhead rollouts list",))


def title_of(session: Session, rollout: JsonObject) -> str:
    """Return what a rollout brings, for a person; ids where names cannot be read."""
    product = clean(rollout["product_id"])
    version = clean(rollout["package_version_id"])
    try:
        found = session.client.get(f"/products/{segment(product)}")
        package = f"/packages/{segment(found['package']['id'])}"
        read = session.client.get(f"{package}/versions/{segment(version)}")
    except ApiError:
        return f"{product} {version}"
    return f"{clean(found['name'])} {clean(read['semver'])}"


def follow_rollout(session: Session, rollout: JsonObject) -> RolloutProgress:
    """Show a rollout until it ends, or until a plan that was asked for is made.

    Raises:
        CliError: as `follow`.
    """
    is_plan = rollout.get("plan_only") and rollout["state"] in {"planning", "planned"}
    verb = "Planning" if is_plan else "Rolling out"
    title = f"{verb} {title_of(session, rollout)}"
    return follow(session.client, session.output, rollout, title)


def tell_end(session: Session, progress: RolloutProgress) -> None:
    """Tell how a rollout ended, with its timeline where that was not said line by line.

    Raises:
        RolloutEndedError: it did not bring the version to the installs.
    """
    output, rollout = session.output, progress.rollout
    if output.as_json:
        output.data({**rollout, "events": progress.events})
    elif output.shows_live_progress:
        output.say()
        output.say(("Timeline", "bold"))
        for line in timeline(progress, progress.events):
            output.say(f"  {line}", copied=True)
    if rollout["state"] in ENDED and rollout["state"] != "succeeded":
        raise RolloutEndedError(rollout)
    if output.as_json:
        return
    took = duration(progress.elapsed_seconds)
    if rollout["state"] == "succeeded":
        output.say(("✓ ", "green"), f"The rollout has succeeded after {took}.")
        skipped = (rollout.get("counts") or {}).get("skipped")
        if skipped:
            output.say((f"  {skipped} were left out:", "yellow"))
            output.next_commands(
                f"bulkhead rollouts targets {clean(rollout['id'])} --state skipped"
            )
