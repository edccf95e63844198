"""What the clock does for installs, across all workspaces."""

from typing import TYPE_CHECKING

from temporalio import activity

if TYPE_CHECKING:
    from infra.database.records.install_sweeps import InstallSweeps
    from infra.temporal.outbox import Outbox


class InstallSweepActivities:
    """Plans in the workspace concerned; what dies before its start is found by the outbox."""

    def __init__(self, outbox: "Outbox", sweeps: "InstallSweeps") -> None:
        self._outbox = outbox
        self._sweeps = sweeps

    @activity.defn
    async def start_due_secret_syncs(self) -> int:
        """Have installs take over newer versions of their secrets; return how many."""
        due = await self._sweeps.plan_due_syncs()
        for workspace_id, operation_id in due.cancelled:
            await self._outbox.cancel(workspace_id, operation_id)
        for operation in due.planned:
            await self._outbox.start(operation)
        return len(due.planned)

    @activity.defn
    async def start_due_updates(self) -> int:
        """Have installs that get new versions by themselves take them; return how many."""
        due = await self._sweeps.plan_due_updates()
        for operation in due:
            await self._outbox.start(operation)
        return len(due)
