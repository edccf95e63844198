"""What the clock has done for the secret store: one activity a pass, which may be repeated."""

from datetime import timedelta

from temporalio import workflow
from temporalio.types import MethodAsyncNoParam

from activities.secret_upkeep import SecretUpkeepActivities
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL, Policy

# Milliseconds for each version, workspace or line of a log; the next pass goes on where one ended.
_PASS = Policy(timedelta(minutes=10), timedelta(minutes=20), SERVICE_CALL.retry)


@workflow.defn
class SettleSecretVersions:
    """Settle what was left half-written or half-destroyed."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return what one pass did."""
        return await _pass(SecretUpkeepActivities.settle_secret_versions)


@workflow.defn
class QuarantineSecretOrphans:
    """Keep aside, and remove in the end, values that no version knows."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return what one pass did."""
        return await _pass(SecretUpkeepActivities.quarantine_secret_orphans)


@workflow.defn
class CrossCheckSecretReads:
    """Compare OpenBao's audit logs with ours."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return what one pass did."""
        return await _pass(SecretUpkeepActivities.cross_check_secret_reads)


async def _pass(
    activity: MethodAsyncNoParam[SecretUpkeepActivities, dict[str, int]],
) -> dict[str, int]:
    return await workflow.execute_activity_method(
        activity,
        start_to_close_timeout=_PASS.attempt,
        schedule_to_close_timeout=_PASS.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_PASS.retry,
    )
