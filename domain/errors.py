"""Every way in which Bulkhead fails, typed where it arises.

A `BulkheadError` says what went wrong, whether trying the same again can help, and what must
change first. The API renders it as the contract's error body; the activity interceptor turns it
into an `ApplicationError` whose type is the reason, so that nothing ever parses a message.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The stable, machine-readable cause; travels in the error's `metadata.reason`."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    ABORTED = "ABORTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    CREDENTIAL_REJECTED = "CREDENTIAL_REJECTED"
    CAPACITY_UNAVAILABLE = "CAPACITY_UNAVAILABLE"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ReasonFacts:
    """How a reason is answered over HTTP, and whether the same request may succeed later."""

    code: int
    status: int
    retryable: bool


# The numeric codes are ours, but for 7002, which the published contract uses for a missing
# resource. They never change once released: clients switch on them.
REASONS: dict[Reason, ReasonFacts] = {
    Reason.INVALID_ARGUMENT: ReasonFacts(7001, 422, retryable=False),
    Reason.NOT_FOUND: ReasonFacts(7002, 404, retryable=False),
    Reason.UNAUTHENTICATED: ReasonFacts(7003, 401, retryable=False),
    Reason.PERMISSION_DENIED: ReasonFacts(7004, 403, retryable=False),
    Reason.CONFLICT: ReasonFacts(7005, 409, retryable=False),
    Reason.ABORTED: ReasonFacts(7006, 409, retryable=False),
    Reason.FAILED_PRECONDITION: ReasonFacts(7007, 409, retryable=False),
    Reason.QUOTA_EXCEEDED: ReasonFacts(7008, 403, retryable=False),
    Reason.RATE_LIMITED: ReasonFacts(7009, 429, retryable=True),
    Reason.CREDENTIAL_REJECTED: ReasonFacts(7010, 422, retryable=False),
    Reason.CAPACITY_UNAVAILABLE: ReasonFacts(7011, 503, retryable=False),
    Reason.DEPENDENCY_UNAVAILABLE: ReasonFacts(7012, 503, retryable=True),
    Reason.DEADLINE_EXCEEDED: ReasonFacts(7013, 504, retryable=True),
    Reason.INTERNAL: ReasonFacts(7000, 500, retryable=True),
}


class BulkheadError(Exception):
    """A failure with a reason, a sentence for a person, and where to look.

    Args:
        reason: the stable cause.
        message: one or two sentences that say what happened and what to do. Never a value that
            could be secret: the text is stored, logged and shown.
        path: the place in the request that is at fault, as the contract's `path`.
        metadata: further facts for machines, strings only.
        retryable: overrides the reason's default where the place of the failure knows better.
        status: overrides the HTTP status where the contract names another one for this case.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        path: tuple[str, ...] = (),
        metadata: dict[str, str] | None = None,
        retryable: bool | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        facts = REASONS[reason]
        self.reason = reason
        self.message = message
        self.path = path
        self.metadata = metadata or {}
        self.retryable = facts.retryable if retryable is None else retryable
        self.status = status or facts.status
        self.code = facts.code
