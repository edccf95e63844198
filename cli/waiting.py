"""What every command does with a 202: show the operation until it ends, and judge the end."""

from cli.client import JsonObject
from cli.errors import CliError, ExitCode
from cli.follow import follow
from cli.progress import OperationProgress
from cli.session import Session
from cli.text import clean, plural

_TITLES = {
    "cluster.create": "Creating cluster",
    "cluster.delete": "Deleting cluster",
    "cluster.suspend": "Suspending cluster",
    "cluster.resume": "Resuming cluster",
    "cluster.certificates.renew": "Renewing the certificates of cluster",
    "cluster.worker_bootstrap.revoke": "Revoking bootstrap",
    "machine.create": "Joining machine",
    "machine.delete": "Draining and removing machine",
    "machine.cordon": "Cordoning machine",
    "machine.uncordon": "Uncordoning machine",
    "machine.repair": "Repairing machine",
    "machine.suspend": "Suspending machine",
    "machine.resume": "Resuming machine",
    "machine.replace": "Replacing machine",
    "machine_pool.create": "Creating machines in cluster",
    "secret.rotate": "Rotating secret",
    "package.create": "Resolving package",
    "install.create": "Installing",
    "install.render": "Updating install",
    "install.restore": "Restoring install",
    "install.delete": "Removing install",
    "install.secrets.sync": "Writing the secrets of install",
}


class OperationEndedError(CliError):
    """An operation was seen to its end, and the end is not success."""

    def __init__(self, operation: JsonObject) -> None:
        cancelled = operation["state"] == "CANCELLED"
        error = operation.get("error") or operation.get("last_error") or {}
        step = clean((operation.get("last_error") or {}).get("step_name"))
        verb = "was cancelled" if cancelled else "failed"
        message = f"{type_of(operation)} {verb}"
        if step and not cancelled:
            message += f" at {step}"
        told = clean(error.get("message"))
        message += f": {told}" if told else "."
        self._reason = clean(error.get("reason") or (error.get("metadata") or {}).get("reason"))
        self._operation_id = clean(operation["id"])
        self._left = (operation.get("inventory") or {}).get("left")
        super().__init__(
            message,
            ExitCode.OPERATION_CANCELLED if cancelled else ExitCode.OPERATION_FAILED,
            next_commands=(f"bulkhead operations get {self._operation_id}",),
        )
        if cancelled:
            self.title = "Cancelled"

    def detail_lines(self) -> tuple[tuple[str, str], ...]:
        """Return the reason, and what is left in an account, where the operation has them."""
        left = "" if self._left is None else f"{plural(self._left, 'resource')} in the account"
        return tuple(
            (label, value) for label, value in (("reason", self._reason), ("left", left)) if value
        )


def type_of(operation: JsonObject) -> str:
    """Return the operation's type, which the contract keeps in its metadata."""
    return clean((operation.get("metadata") or {}).get("type") or "operation")


def title_of(operation: JsonObject, subject: str) -> str:
    """Return what an operation does, for a person."""
    kind = type_of(operation)
    title = _TITLES.get(kind, kind)
    if kind == "machine.create" and (operation.get("metadata") or {}).get("compute_config_id"):
        title = "Creating machine"
    return f"{title} {clean(subject)}"


def subject_of(operation: JsonObject) -> str:
    """Return the name, where the request told it, or the id of what an operation changes."""
    metadata = operation.get("metadata") or {}
    return clean(metadata.get("name") or operation["owner_id"])


def see_through(
    session: Session, operation: JsonObject, *, subject: str, no_wait: bool
) -> OperationProgress | None:
    """Show an operation until it succeeded; with `no_wait`, only say how to see it.

    Returns:
        The ended operation; None when it was not waited for, or was printed as JSON.

    Raises:
        CliError: it failed, was cancelled, or goes on without this command.
    """
    output = session.output
    if no_wait:
        if output.as_json:
            output.data(operation)
        else:
            output.say(f"{title_of(operation, subject)}: {operation['id']}")
            output.next_commands(f"bulkhead operations watch {operation['id']}")
        return None
    ended = follow(session.client, output, operation, title_of(operation, subject))
    if output.as_json:
        output.data(ended.operation)
    if ended.operation["state"] != "SUCCEEDED":
        raise OperationEndedError(ended.operation)
    return None if output.as_json else ended
