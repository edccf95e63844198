"""What a cluster must not have any more, or takes with it, when it is deleted."""

import shlex
from collections.abc import Callable

from cli.client import JsonObject
from cli.errors import CliError, ExitCode
from cli.session import Session
from cli.text import clean, label_name_of, name_in, plural

_MOST_NAMED = 10


def what_goes_with(session: Session, cluster: JsonObject, *, force: bool) -> str:
    """Return what a cluster takes with it, as a sentence.

    Raises:
        CliError: it has machines, or without `force` installs, which go first.
    """
    name = clean(cluster["name"])
    machines = session.client.read_list("/machines", cluster_id=cluster["id"])
    # What is still being made with its machines is cancelled as a whole: the API says how.
    if machines and cluster["state"] not in {"pending", "provisioning"}:
        message = (
            f"Cluster {name} has {_named('machine', machines, name_in)}. Delete them first, so "
            "that their pods are drained and nothing of them is left. Nothing was deleted."
        )
        listed = f"bulkhead machines list --cluster {shlex.quote(name)}"
        raise CliError(message, ExitCode.CONFLICT, next_commands=(listed,))
    installs = [
        one for one in session.client.pages("/installs") if one["cluster_id"] == cluster["id"]
    ]
    if not installs:
        return " Nothing is installed on it through Bulkhead."
    named = _named("install", installs, label_name_of)
    if force:
        return f" With it go {named}, with all of their data."
    message = f"Cluster {name} has {named}. Delete them first. Nothing was deleted."
    lost = f"bulkhead clusters delete {shlex.quote(name)} --force   (is the cluster lost?)"
    raise CliError(
        message, ExitCode.CONFLICT, next_commands=("bulkhead installs delete INSTALL", lost)
    )


def _named(noun: str, entries: list[JsonObject], name_of: Callable[[JsonObject], str]) -> str:
    """Return `2 installs (shop-eu, crm)`; one without a name is called by its id."""
    names = [name_of(entry) or clean(entry["id"]) for entry in entries]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{plural(len(names), noun)} ({', '.join(names[:_MOST_NAMED])}{more})"
