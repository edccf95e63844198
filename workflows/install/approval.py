"""How a deployment waits for a person's approval of its plan.

The API's signal says that there is one; looks at the rows find it where the signal was lost. Their
pauses grow, as `workflows.pauses` says.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import Final

from temporalio import workflow

from activities.install_records import InstallRecordActivities
from activities.installs import InstallActivities
from domain.operation import Step
from domain.owned_operation import InstallOperation
from workflows.pauses import longer
from workflows.policies import CLUSTER_CALL
from workflows.saga import Saga

_FIRST_PAUSE: Final = timedelta(minutes=1)
_DOUBLED_UP_TO: Final = timedelta(minutes=30)


class Approval:
    """Of one workflow; its signal handler calls `given`."""

    def __init__(self) -> None:
        self._given = False
        self._pause = _FIRST_PAUSE

    def given(self) -> None:
        """Somebody approved a plan of the operation."""
        self._given = True
        self._pause = _FIRST_PAUSE

    async def wait(self, saga: Saga, operation: InstallOperation) -> None:
        """Wait until a plan is approved that still holds.

        Raises:
            ActivityError: the plan cannot be made any more.
            CancelledError: the operation was cancelled.
        """
        while True:
            await self._until_given(saga, operation)
            confirmed = await saga.step(
                Step.AWAIT_APPROVAL,
                InstallActivities.confirm_approval,
                operation,
                CLUSTER_CALL,
                on_host=True,
            )
            if confirmed:
                return

    async def _until_given(self, saga: Saga, operation: InstallOperation) -> None:
        while not await saga.record("approval", InstallRecordActivities.record_approval, operation):
            # A cancel that arrived while the look finished was swallowed by its result.
            task = asyncio.current_task()
            if task is not None and task.cancelling() > 0:
                raise asyncio.CancelledError
            pause = self._pause
            self._pause = longer(pause, doubled_up_to=_DOUBLED_UP_TO)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._given, timeout=pause)
            self._given = False
