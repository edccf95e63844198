"""SweepLeaks: nothing of ours stays in a customer's account that nobody wants."""

from temporalio import workflow

from activities.account_upkeep import AccountUpkeepActivities
from workflows.compute.passes import run_pass


@workflow.defn
class SweepLeaks:
    """On a schedule: find what carries our tags and no row wants, and snapshots that expired."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return what one pass did. An expired snapshot is wanted no more, and goes with it."""
        expired = await run_pass(AccountUpkeepActivities.expire_snapshots)
        return {**expired, **await run_pass(AccountUpkeepActivities.sweep_leaks)}
