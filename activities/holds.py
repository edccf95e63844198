"""What keeps an operation from its next step: an emergency stop.

A step that is held has not begun. Its workflow waits by an activity that Temporal tries again and
again: no place on a worker is taken meanwhile, and no history grows. Both ends of an attempt are no
failures, so the interceptor records nothing of them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from domain.owned_operation import OwnedOperation

if TYPE_CHECKING:
    from infra.database.records.endings import OperationRecords

# The type by which a workflow knows a step that was held from one that failed.
HELD: Final = "HELD"


# An attempt that is made again by itself does so after this time.
_AGAIN_AFTER: Final = timedelta(seconds=10)


class NotYetError(ApplicationError):
    """What is waited for has not come. It is no failure, and Temporal shall ask once more."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            type="NOT_YET",
            next_retry_delay=_AGAIN_AFTER,
            # Not worth a line in the log, nor a count.
            category=ApplicationErrorCategory.BENIGN,
        )


class HeldError(ApplicationError):
    """An emergency stop is in force; `again`: Temporal shall ask once more."""

    def __init__(self, *, again: bool) -> None:
        super().__init__(
            "An emergency stop covers this operation. It goes on when the stop is lifted.",
            type=HELD,
            non_retryable=not again,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An operation with a step that a stop did not let begin; `takes_back`: an undo."""

    operation: OwnedOperation
    takes_back: bool


class HoldActivities:
    """Asks whether an operation may go on."""

    def __init__(self, operations: "OperationRecords") -> None:
        self._operations = operations

    @activity.defn
    async def record_lifted(self, held: Held) -> None:
        """Return when nothing holds the step any more.

        Raises:
            HeldError: something does; to be tried again.
        """
        if await self._operations.is_held(held.operation, takes_back=held.takes_back):
            raise HeldError(again=True)
