"""ReconcileMachines: the machines that are wanted, beside what their accounts have."""

from temporalio import workflow

from activities.account_upkeep import AccountUpkeepActivities
from workflows.compute.passes import run_pass


@workflow.defn
class ReconcileMachines:
    """On a schedule: a machine whose server is gone is shown as such, and never silently mended."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return what one pass found."""
        return await run_pass(AccountUpkeepActivities.reconcile_machines)
