"""What schedules look for, across all workspaces."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio import activity

from domain.owned_operation import TypedOperation

if TYPE_CHECKING:
    from infra.database.records.sweeps import Sweeps
    from infra.temporal.outbox import Outbox


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What one pass did."""

    renewals_started: int = 0
    rotations_started: int = 0
    keys_forgotten: int = 0
    bootstraps_forgotten: int = 0


class SweepActivities:
    """Reads with the sweeper's role; every write happens in the workspace concerned."""

    def __init__(self, outbox: "Outbox", sweeps: "Sweeps") -> None:
        self._outbox = outbox
        self._sweeps = sweeps

    @activity.defn
    async def deliver_operations(self) -> list[TypedOperation]:
        """Start what was never started, deliver late cancels, and return what was lost."""
        return await self._outbox.deliver()

    @activity.defn
    async def forget_idempotency_keys(self) -> Swept:
        """Remove idempotency keys that are older than the contract promises to remember."""
        return Swept(keys_forgotten=await self._sweeps.forget_idempotency_keys())

    @activity.defn
    async def forget_worker_bootstraps(self) -> Swept:
        """Remove worker bootstraps that can join nothing since a month."""
        return Swept(bootstraps_forgotten=await self._sweeps.forget_worker_bootstraps())

    @activity.defn
    async def start_due_renewals(self) -> Swept:
        """Plan and start a renewal for each cluster whose certificates are due."""
        due = await self._sweeps.plan_due_renewals()
        for operation in due:
            await self._outbox.start(operation)
        return Swept(renewals_started=len(due))

    @activity.defn
    async def start_due_rotations(self) -> Swept:
        """Plan and start a rotation of each secret whose turn has come."""
        due = await self._sweeps.plan_due_rotations()
        for operation in due:
            await self._outbox.start(operation)
        return Swept(rotations_started=len(due))
