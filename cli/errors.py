"""How the client fails: an exit code, a sentence, and the command to try next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import Any


class ExitCode(IntEnum):
    """What a script can tell from the exit status; documented in `bulkhead --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHORISED = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    OPERATION_FAILED = 7
    OPERATION_CANCELLED = 8
    INTERRUPTED = 130


class CliError(Exception):
    """A failure that ends a command.

    Args:
        message: what happened, for a person.
        exit_code: the exit status.
        next_commands: what to type next, the most likely one first.
    """

    title = "Error"

    def __init__(
        self,
        message: str,
        exit_code: ExitCode = ExitCode.FAILED,
        *,
        next_commands: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.next_commands = next_commands
        # What the command that failed adds for a person, as (label, value).
        self.notes: tuple[tuple[str, str], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the failure for a machine."""
        return {
            "message": self.message,
            "exit_code": int(self.exit_code),
            "next": list(self.next_commands),
        }

    def detail_lines(self) -> tuple[tuple[str, str], ...]:
        """Return further facts for a person, as (label, value)."""
        return ()


class StillRunningError(CliError):
    """The client stopped watching an operation; the operation goes on."""

    def __init__(self, operation: Mapping[str, Any], why: str, exit_code: ExitCode) -> None:
        operation_id = str(operation["id"])
        kind = str((operation.get("metadata") or {}).get("type"))
        waits = operation.get("waiting_for") == "approval"
        approve = f"bulkhead installs approve {operation.get('owner_id')}"
        cancel = f"bulkhead operations cancel {operation_id}"
        super().__init__(
            f"{why} Operation {operation_id} goes on without this terminal.",
            exit_code,
            next_commands=(
                *((approve,) if waits else ()),
                f"bulkhead operations watch {operation_id}",
                # A delete only goes forward.
                *(() if kind.endswith(".delete") else (cancel,)),
            ),
        )
        if exit_code is ExitCode.INTERRUPTED:
            self.title = "Interrupted"


class UnreachableError(CliError):
    """No answer came from the API."""

    def __init__(self, url: str, cause: str, *, maybe_done: bool) -> None:
        message = f"The API at {url} does not answer: {cause}."
        if maybe_done:
            message += " The request may have been carried out; look before you repeat it."
        super().__init__(
            message,
            ExitCode.UNAVAILABLE,
            next_commands=(
                "make status   (embedded stack: is it up?)",
                "bulkhead login --url URL   (is the address right?)",
            ),
        )


@dataclass(frozen=True, slots=True)
class ApiFault:
    """One entry of the error body."""

    message: str
    code: int | None = None
    path: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


class ApiError(CliError):
    """The API refused a request or could not carry it out."""

    def __init__(
        self,
        *,
        status: int,
        faults: tuple[ApiFault, ...],
        request_id: str | None,
        next_commands: tuple[str, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        first = faults[0]
        self.status = status
        self.faults = faults
        self.request_id = request_id
        self.metadata = first.metadata
        self.reason = first.metadata.get("reason", "")
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            first.message,
            exit_code_of(status, self.reason),
            next_commands=next_commands,
        )

    @property
    def is_about_workspace(self) -> bool:
        """Whether what is refused is the choice of the workspace."""
        return "akua-context" in self.faults[0].path

    def facts(self) -> dict[str, Any]:
        """Return the failure for a machine."""
        return {
            **super().facts(),
            "status": self.status,
            "reason": self.reason or None,
            "request_id": self.request_id,
            "errors": [
                {
                    "code": fault.code,
                    "message": fault.message,
                    "path": list(fault.path),
                    "metadata": fault.metadata,
                }
                for fault in self.faults
            ],
        }

    def detail_lines(self) -> tuple[tuple[str, str], ...]:
        """Return the places at fault, the reason and the request id."""
        # Nobody types the header: the message names the choice that became it.
        typed = () if self.is_about_workspace else self.faults[0].path
        lines = [("at", ".".join(typed))]
        for fault in self.faults[1:]:
            place = ".".join(fault.path)
            lines.append(("also", f"{place}: {fault.message}" if place else fault.message))
        lines.append(("reason", f"{self.reason or 'not given'} (HTTP {self.status})"))
        lines.append(("request", self.request_id or ""))
        return tuple((label, value) for label, value in lines if value)


# The reason decides where the status alone would mislead a script: a quota is no missing right.
_EXIT_CODES_BY_REASON = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "UNAUTHENTICATED": ExitCode.NOT_AUTHORISED,
    "PERMISSION_DENIED": ExitCode.NOT_AUTHORISED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "CONFLICT": ExitCode.CONFLICT,
    "ABORTED": ExitCode.CONFLICT,
    "FAILED_PRECONDITION": ExitCode.CONFLICT,
    "QUOTA_EXCEEDED": ExitCode.CONFLICT,
    "CREDENTIAL_REJECTED": ExitCode.CONFLICT,
    "RATE_LIMITED": ExitCode.UNAVAILABLE,
    "CAPACITY_UNAVAILABLE": ExitCode.UNAVAILABLE,
    "DEPENDENCY_UNAVAILABLE": ExitCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNAVAILABLE,
    "INTERNAL": ExitCode.FAILED,
}

_EXIT_CODES_BY_STATUS: dict[int, ExitCode] = {
    HTTPStatus.BAD_REQUEST: ExitCode.USAGE,
    HTTPStatus.UNAUTHORIZED: ExitCode.NOT_AUTHORISED,
    HTTPStatus.FORBIDDEN: ExitCode.NOT_AUTHORISED,
    HTTPStatus.NOT_FOUND: ExitCode.NOT_FOUND,
    HTTPStatus.CONFLICT: ExitCode.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED: ExitCode.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY: ExitCode.USAGE,
    HTTPStatus.TOO_MANY_REQUESTS: ExitCode.UNAVAILABLE,
    HTTPStatus.BAD_GATEWAY: ExitCode.UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: ExitCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: ExitCode.UNAVAILABLE,
}


def exit_code_of(status: int, reason: str) -> ExitCode:
    """Return the exit code for an error answer; the reason outranks the HTTP status."""
    by_reason = _EXIT_CODES_BY_REASON.get(reason)
    if by_reason is not None:
        return by_reason
    return _EXIT_CODES_BY_STATUS.get(status, ExitCode.FAILED)
