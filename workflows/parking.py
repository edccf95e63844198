"""How a workflow waits for another credential when a provider refuses the one that it has.

The step that was refused is run again when the secret has another version: the API's signal says
so, and looks at the rows find it where the signal was lost. A credential can also be accepted again
at the provider's side, so that it is tried anew from time to time whatever the rows say. The pauses
grow: a workflow that is parked for weeks must not fill its history.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from temporalio import workflow

from activities.clouds import CloudActivities

if TYPE_CHECKING:
    from domain.operation import MachineOperation

_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(minutes=30)
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


class Parking:
    """Of one workflow; its signal handler calls `credential_changed`."""

    def __init__(self) -> None:
        self._changed = False
        self._pause = _FIRST_PAUSE

    def credential_changed(self) -> None:
        """The secret has another version that can be read."""
        self._changed = True
        self._pause = _FIRST_PAUSE

    async def wait(
        self,
        operation: "MachineOperation",
        refused: str | None,
        record: Records,
        cancelled: Callable[[], bool],
    ) -> None:
        """Wait until trying again has sense; the operation says meanwhile what it waits for.

        Args:
            operation: of a machine in a cloud.
            refused: the version that the provider refused, where that is known.
            record: runs what reads and writes rows.
            cancelled: a cancel arrived that is to be heeded, and may have been swallowed.

        Raises:
            CancelledError: it was cancelled where that is heeded.
        """
        found = await record("parked", CloudActivities.record_parked, operation)
        refused = refused or found
        while not self._changed and found == refused:
            if cancelled():
                raise asyncio.CancelledError
            pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._changed, timeout=pause)
            if self._changed or pause >= _TRY_ANYWAY:
                break
            found = await record("credential", CloudActivities.record_credential, operation)
        self._changed = False
        await record("unparked", CloudActivities.record_unparked, operation)
        if cancelled():
            raise asyncio.CancelledError
