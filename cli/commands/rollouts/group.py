"""What all commands of rollouts share: the group, the argument, and following one to its end."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import finished
from cli.errors import ApiError, CliError, ExitCode
from cli.rollout_follow import follow
from cli.rollout_progress import ENDED, RolloutProgress, timeline
from cli.session import PRODUCT, ROLLOUT, Session, is_id
from cli.text import clean, duration, name_in, plural

app = typer.Typer(
    help="Rollouts: a version on many installs, in waves that drive themselves.",
    no_args_is_help=True,
)


def _ids_and_products(session: Session) -> list[str]:
    newest = [entry["id"] for entry in session.client.read_list(ROLLOUT.path, limit=20)]
    products = session.client.read_list(PRODUCT.path, limit=100)
    return newest + [name_in(entry) for entry in products]


RolloutArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="ROLLOUT",
        help="Its id, or its product; by default the newest that goes on.",
        autocompletion=finished(_ids_and_products),
    ),
]


class RolloutEndedError(CliError):
    """A rollout was seen to its end, and did not bring the version.

    Args:
        rollout: as it ended.
        reason: why, for a person; may be empty.
        left: how many installs still have the version after it was taken back.
    """

    def __init__(self, rollout: JsonObject, reason: str, left: int = 0) -> None:
        state = clean(rollout["state"])
        taken_back = state == "rolled_back"
        message = f"The rollout is {_ENDS.get(state, state.replace('_', ' '))}"
        message += f": {reason}" if reason else "."
        if left:
            message += f" {plural(left, 'install')} could not be taken back."
        wanted = state == "cancelled" or (taken_back and not left)
        rollout_id = clean(rollout["id"])
        looked_at = "" if wanted else " --state failed"
        super().__init__(
            message,
            ExitCode.OPERATION_CANCELLED if wanted else ExitCode.OPERATION_FAILED,
            next_commands=(
                f"bulkhead rollouts targets {rollout_id}{looked_at}",
                f"bulkhead rollouts events {rollout_id}",
            ),
        )
        if wanted:
            self.title = "Taken back" if taken_back else "Cancelled"


# Of these a person is the cause.
_ENDS = {"rolled_back": "taken back, as was asked for", "cancelled": "cancelled"}


def path_of(rollout: JsonObject) -> str:
    """Return the place of a rollout in the API."""
    return f"{ROLLOUT.path}/{segment(rollout['id'])}"


def rollout_called(session: Session, text: str | None, *, live_only: bool = True) -> JsonObject:
    """Read a rollout by its id, or the one that goes on, of a product or of all.

    Without `live_only`, where none goes on the newest is meant.

    Raises:
        CliError: there is none, or several of the product go on.
    """
    if text is not None and is_id(ROLLOUT, text):
        return session.client.get(f"{ROLLOUT.path}/{segment(text)}")
    filters: JsonObject = {} if text is None else {"product_id": session.id_of(PRODUCT, text)}
    newest = session.client.read_list(ROLLOUT.path, limit=20, **filters)
    going_on = [entry for entry in newest if not entry["done"]]
    if text is not None and len(going_on) > 1:
        raise _several(text, going_on)
    if going_on:
        return session.client.get(path_of(going_on[0]))
    if newest and not live_only:
        return session.client.get(path_of(newest[0]))
    of = "" if text is None else f" of {clean(text)}"
    message = f"No rollout{of} goes on." if newest else f"There is no rollout{of} yet."
    listed = "bulkhead rollouts list"
    if text is not None:
        listed += f" --product {shlex.quote(clean(text))}"
    raise CliError(message, ExitCode.NOT_FOUND, next_commands=(listed,))


def _several(product: str, going_on: Sequence[JsonObject]) -> CliError:
    ids = [clean(entry["id"]) for entry in going_on]
    message = f"{len(ids)} rollouts of {clean(product)} go on; say which one: {', '.join(ids)}."
    listed = f"bulkhead rollouts list --product {shlex.quote(clean(product))}"
    return CliError(message, ExitCode.USAGE, next_commands=(listed,))


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


def left_behind(session: Session, progress: RolloutProgress) -> int:
    """Return how many installs a rollback was to take back, and did not."""
    rollout = progress.rollout
    if rollout["state"] != "rolled_back":
        return 0
    left = 0
    # Some had the version before, and some that failed never got it: these have no operation.
    for state, key in (("succeeded", "operation_id"), ("failed", "rollback_operation_id")):
        if (rollout.get("counts") or {}).get(state):
            ended = session.client.pages(f"{path_of(rollout)}/targets", state=state)
            left += sum(one.get(key) is not None for one in ended)
    return left


def tell_end(session: Session, progress: RolloutProgress) -> None:
    """Tell how a rollout ended, with its timeline where that was not said line by line.

    Raises:
        RolloutEndedError: it did not bring the version to the installs; a person's cancel and
            rollback have the exit code of a cancelled operation.
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
        raise RolloutEndedError(rollout, progress.reason, left_behind(session, progress))
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
