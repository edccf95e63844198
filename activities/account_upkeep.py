"""What the clock looks at in customers' accounts, across all workspaces: one activity a pass."""

import dataclasses
from typing import TYPE_CHECKING

from temporalio import activity

from domain.compute import DriftRequest

if TYPE_CHECKING:
    from infra.clouds.visits import AccountVisits
    from infra.database.records.drift import DriftRecords
    from infra.database.records.suspension import SuspensionRecords


class AccountUpkeepActivities:
    """Each pass may be repeated; the next one goes on where one ended."""

    def __init__(
        self, visits: "AccountVisits", suspensions: "SuspensionRecords", drift: "DriftRecords"
    ) -> None:
        self._visits = visits
        self._suspensions = suspensions
        self._drift = drift

    @activity.defn
    async def sweep_leaks(self) -> dict[str, int]:
        """Find what carries our tags and nobody wants; remove what is surely ours."""
        return dataclasses.asdict(await self._visits.sweep_leaks())

    @activity.defn
    async def reconcile_machines(self) -> dict[str, int]:
        """Find machines whose server is gone, and say so of them."""
        return dataclasses.asdict(await self._visits.reconcile_machines())

    @activity.defn
    async def expire_snapshots(self) -> dict[str, int]:
        """Mark the snapshots whose time is over."""
        return {"expired": await self._suspensions.expire()}

    @activity.defn
    async def due_drift_reports(self) -> list[DriftRequest]:
        """Return the machines that were not compared with their account for longest."""
        return await self._drift.due()
