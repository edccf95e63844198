"""What failed activities say: why, and how an operation ends with that."""

from temporalio.exceptions import ApplicationError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from domain.errors import Reason
from domain.operation import OperationState


def reason_of(error: BaseException) -> Reason | None:
    """Return the reason of a failed activity; None: it ended without one, as by a timeout."""
    failure = failure_in(error)
    if failure is None:
        return None
    return Reason(failure.type) if failure.type in set(Reason) else Reason.INTERNAL


def failure_in(error: BaseException) -> ApplicationError | None:
    """Return what an activity said when it failed; None: it ended without a word."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, ApplicationError):
        link = link.__cause__
    return link


def facts_of(error: BaseException) -> dict[str, str]:
    """Return the metadata of a failed activity's error."""
    failure = failure_in(error)
    facts = failure.details[0] if failure is not None and failure.details else {}
    metadata: dict[str, str] = facts.get("metadata", {})
    return metadata


def _state_of(aborted: ApplicationError) -> OperationState:
    """Return what an ABORTED ends in: it is a cancel unless its metadata says otherwise."""
    return OperationState(facts_of(aborted).get("operation_state", "CANCELLED"))


def end_of(error: BaseException) -> tuple[OperationState, Reason, str]:
    """Return how an operation ends that ran into an error and is undone, and why."""
    if is_cancelled_exception(error):
        return OperationState.CANCELLED, Reason.ABORTED, "The operation was cancelled and undone."
    link: BaseException | None = error
    timed_out = False
    while link is not None:
        if isinstance(link, ApplicationError):
            if link.type == Reason.ABORTED:
                return _state_of(link), Reason.ABORTED, link.message
            reason = Reason(link.type) if link.type in set(Reason) else Reason.INTERNAL
            return OperationState.FAILED, reason, link.message
        timed_out = timed_out or isinstance(link, TemporalTimeoutError)
        link = link.__cause__
    if timed_out:
        return (
            OperationState.FAILED,
            Reason.DEADLINE_EXCEEDED,
            "A step did not finish in time. Look at the worker of its host, then try again.",
        )
    return OperationState.FAILED, Reason.INTERNAL, "The operation failed; see the worker's log."
