"""How a workflow waits for another value of a secret, such as a credential that is accepted.

The step that was refused is run again when the secret has another version: the API's signal says
so, and looks at the rows find it where the signal was lost. A credential can also be accepted again
at the provider's side, so that it is tried anew from time to time whatever the rows say. The pauses
grow, as `workflows.pauses` says.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from temporalio import workflow

from activities.clouds import CloudActivities
from activities.secret_rotation import SecretRotationActivities
from domain.errors import Reason
from domain.operation import WAITING_FOR_NEW_VALUE
from domain.owned_operation import MachineOperation, SecretOperation
from workflows.pauses import longer

if TYPE_CHECKING:
    from domain.owned_operation import OwnedOperation

FIRST_PAUSE: Final = timedelta(minutes=1)
DOUBLED_UP_TO: Final = timedelta(minutes=30)
# From this pause on the same credential is tried again.
_TRY_ANYWAY: Final = timedelta(minutes=8)


Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Records(Protocol):
    """Runs an activity that reads or writes rows alone, in spite of cancels."""

    def __call__(
        self,
        name: str,
        activity: Callable[[Any, Argument], Coroutine[Any, Any, Result]],
        argument: Argument,
        /,
    ) -> Coroutine[Any, Any, Result]:
        """See `Saga.record`."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is waited for, by the activities that read and write rows about it.

    Attributes:
        begin: says on the operation that it waits; returns the version that there is now.
        look: returns the version that there is now.
        end: says that it goes on.
        helps: tells, by an operation and the reason and metadata of a failure, whether another
            version may help.
    """

    begin: Callable[[Any, Any], Coroutine[Any, Any, str | None]]
    look: Callable[[Any, Any], Coroutine[Any, Any, str | None]]
    end: Callable[[Any, Any], Coroutine[Any, Any, None]]
    helps: "Callable[[OwnedOperation, Reason | None, Mapping[str, str]], bool]"


# Of a machine in a cloud: the provider refuses the credential.
CREDENTIAL: Final = Awaited(
    CloudActivities.record_parked,
    CloudActivities.record_credential,
    CloudActivities.record_unparked,
    lambda operation, reason, _: (
        isinstance(operation, MachineOperation) and reason is Reason.CREDENTIAL_REJECTED
    ),
)

# Of a rotation: only a person can make the new value.
NEW_VALUE: Final = Awaited(
    SecretRotationActivities.record_value_awaited,
    SecretRotationActivities.record_handed_in,
    SecretRotationActivities.record_value_taken,
    lambda operation, _, metadata: (
        isinstance(operation, SecretOperation)
        and metadata.get("waiting_for") == WAITING_FOR_NEW_VALUE
    ),
)


class Parking:
    """Of one workflow; its signal handler calls `credential_changed`."""

    def __init__(self, awaited: Awaited = CREDENTIAL) -> None:
        self._awaited = awaited
        self._changed = False
        self._pause = FIRST_PAUSE

    def helps(
        self, operation: "OwnedOperation", reason: Reason | None, metadata: Mapping[str, str]
    ) -> bool:
        """Tell whether a failed step is one that waits here."""
        return self._awaited.helps(operation, reason, metadata)

    def credential_changed(self) -> None:
        """The secret has another version that can be read."""
        self._changed = True
        self._pause = FIRST_PAUSE

    async def wait(
        self,
        operation: "OwnedOperation",
        refused: str | None,
        record: Records,
        cancelled: Callable[[], bool],
    ) -> None:
        """Wait until trying again has sense; the operation says meanwhile what it waits for.

        Args:
            operation: whose step failed.
            refused: the version with which it failed, where that is known.
            record: runs what reads and writes rows.
            cancelled: a cancel arrived that is to be heeded, and may have been swallowed.

        Raises:
            CancelledError: it was cancelled where that is heeded.
        """
        found = await record("parked", self._awaited.begin, operation)
        refused = refused or found
        while not self._changed and found == refused:
            if cancelled():
                raise asyncio.CancelledError
            pause = self._pause
            self._pause = longer(pause, doubled_up_to=DOUBLED_UP_TO)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._changed, timeout=pause)
            if self._changed or pause >= _TRY_ANYWAY:
                break
            found = await record("credential", self._awaited.look, operation)
        self._changed = False
        await record("unparked", self._awaited.end, operation)
        if cancelled():
            raise asyncio.CancelledError
