"""What keeps the secret store in order: settled versions, purges, orphans, and compared logs."""

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import structlog
from temporalio import activity

from activities.records import worker_is_stopping
from domain.secret import SecretPlace

if TYPE_CHECKING:
    from infra.secret_store.cross_check import CrossCheck
    from infra.secret_store.purges import SecretPurges
    from infra.secret_store.quarantine import Quarantine
    from infra.secret_store.settlement import Settlement
    from infra.temporal.outbox import Outbox

_ROTATION_POLL_SECONDS = 0.5

# Each signal stays in a history, which is bounded.
_POLLS_A_SIGNAL = 20

log = structlog.get_logger(__name__)


class SecretUpkeepActivities:
    """Each may be repeated; what is asked for a secret is checked against its row."""

    def __init__(
        self,
        settlement: "Settlement",
        quarantine: "Quarantine",
        purges: "SecretPurges",
        cross_check: "CrossCheck",
        outbox: "Outbox",
    ) -> None:
        self._settlement = settlement
        self._quarantine = quarantine
        self._purges = purges
        self._cross_check = cross_check
        self._outbox = outbox

    @activity.defn
    async def settle_secret_versions(self) -> dict[str, int]:
        """Settle versions that whoever began to write or destroy them did not finish."""
        return dataclasses.asdict(await self._settlement.sweep())

    @activity.defn
    async def quarantine_secret_orphans(self) -> dict[str, int]:
        """Keep values aside that no version knows, and remove those that were kept for a month."""
        return dataclasses.asdict(await self._quarantine.sweep())

    @activity.defn
    async def cross_check_secret_reads(self) -> dict[str, int]:
        """Compare OpenBao's audit logs with ours, and say whether that is on at all."""
        return dataclasses.asdict(await self._cross_check.run())

    @activity.defn
    async def begin_due_purges(self) -> list[SecretPlace]:
        """Begin the purges that are due, and return every secret that is being purged."""
        purging = await self._purges.begin_due()
        overdue = await self._purges.overdue()
        if overdue:
            log.error("secrets were not purged within a day of their time", overdue=overdue)
        return purging

    @activity.defn
    async def end_secret_rotation(self, place: SecretPlace) -> None:
        """Wait until the rotation of a secret that is being purged is undone, or finished."""
        polls = 0
        while (rotation := await self._purges.running_rotation(place)) is not None:
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            if rotation.cancels:
                operation_id = rotation.operation.operation.operation_id
                await self._outbox.cancel(place.workspace_id, operation_id)
            elif polls % _POLLS_A_SIGNAL == 0:
                await self._outbox.wake_rotation(rotation.operation)
            polls += 1
            await asyncio.sleep(_ROTATION_POLL_SECONDS)

    @activity.defn
    async def purge_secret_values(self, place: SecretPlace) -> int:
        """Remove every value of a secret, and read back that it is gone."""
        return await self._purges.purge_values(place)

    @activity.defn
    async def record_secret_purged(self, place: SecretPlace) -> None:
        """Put a tombstone with the evidence in place of the secret."""
        await self._purges.record(place)
