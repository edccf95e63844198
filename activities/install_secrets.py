"""The steps of an install that takes over new versions of its secrets.

Arguments and results are ids; values pass through memory alone, inside of one step.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temporalio import activity

from activities.progress import note_progress
from activities.records import worker_is_stopping
from domain.errors import BulkheadError, Reason
from domain.owned_operation import InstallOperation
from infra.installs.secret_objects import extract_references

if TYPE_CHECKING:
    from infra.database.records.install_secret import InstallSecretRecords
    from infra.installs.secret_consumers import SecretConsumers
    from infra.installs.secret_objects import SecretObjects
    from infra.temporal.outbox import Outbox

_POLL_SECONDS: Final = 1.0

# Workloads that roll over are waited for; named in what is shown are as many as fit a sentence.
_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumersWithin:
    """An operation, and how long its consumers may take."""

    operation: InstallOperation
    within_seconds: float

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are read."""
        return self.operation.workspace_id


class InstallSecretActivities:
    """Runs on the queue of the cluster's host, where the cluster is reached."""

    def __init__(
        self,
        secrets: "SecretObjects",
        consumers: "SecretConsumers",
        records: "InstallSecretRecords",
    ) -> None:
        self._secrets = secrets
        self._consumers = consumers
        self._records = records

    @activity.defn
    async def sync_install_secrets(self, operation: InstallOperation) -> None:
        """Write the newest versions of the secrets to which the deployed values refer."""
        values = await self._records.values_of(operation)
        await self._secrets.sync(operation, extract_references(values))

    @activity.defn
    async def await_secret_consumers(self, wanted: ConsumersWithin) -> None:
        """Have what runs in the install's namespace work with what was written there.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED, with what does not.
        """
        until = time.monotonic() + wanted.within_seconds
        while True:
            written = await self._records.objects_of(wanted.operation)
            waiting = await self._consumers.look(wanted.operation, written)
            if not waiting:
                return
            what = _sentence(waiting)
            note_progress(what)
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            if time.monotonic() > until:
                raise BulkheadError(
                    Reason.DEADLINE_EXCEEDED,
                    f"The new versions are in the cluster, but not everything there works with "
                    f"them: {what}. It is tried again in a while.",
                    retryable=False,
                )
            await asyncio.sleep(_POLL_SECONDS)


class InstallSecretRecordActivities:
    """Rows alone; runs on the control queue."""

    def __init__(self, records: "InstallSecretRecords", outbox: "Outbox") -> None:
        self._records = records
        self._outbox = outbox

    @activity.defn
    async def record_secrets_synced(self, operation: InstallOperation) -> None:
        """Everything works with what was written; rotations that wait for it are told."""
        for rotation in await self._records.reach_consumed(operation):
            await self._outbox.wake_rotation(rotation)


def _sentence(waiting: list[str]) -> str:
    more = len(waiting) - _NAMED
    return "; ".join(waiting[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
