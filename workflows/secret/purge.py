"""PurgeSecret, which ends a secret for good, and the schedule that starts it where it is due."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from activities.secret_upkeep import SecretUpkeepActivities
from domain.names import PURGE_SECRET_WORKFLOW, purge_workflow_id_of
from domain.secret import SecretPlace
from workflows.policies import BOOKKEEPING, HEARTBEAT_TIMEOUT, SERVICE_CALL, Policy

# Some milliseconds a version, of which a secret may have thousands; never given up, because a
# person was promised that nothing is left.
_PURGE = Policy(timedelta(minutes=15), None, BOOKKEEPING.retry)

# A rotation that undoes itself may wait for its target for up to a day.
_UNTIL_UNDONE = Policy(timedelta(hours=26), None, BOOKKEEPING.retry)


@workflow.defn(name=PURGE_SECRET_WORKFLOW)
class PurgeSecret:
    """Purge a secret whose row says so; anything else is refused by its activities."""

    @workflow.run
    async def run(self, place: SecretPlace) -> None:
        """End its rotation, remove its values, and replace its rows by a tombstone."""
        await workflow.execute_activity_method(
            SecretUpkeepActivities.end_secret_rotation,
            place,
            activity_id="end_secret_rotation",
            start_to_close_timeout=_UNTIL_UNDONE.attempt,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_UNTIL_UNDONE.retry,
        )
        await workflow.execute_activity_method(
            SecretUpkeepActivities.purge_secret_values,
            place,
            activity_id="purge_secret_values",
            start_to_close_timeout=_PURGE.attempt,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_PURGE.retry,
        )
        await workflow.execute_activity_method(
            SecretUpkeepActivities.record_secret_purged,
            place,
            activity_id="record_secret_purged",
            start_to_close_timeout=_PURGE.attempt,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_PURGE.retry,
        )


@workflow.defn
class PurgeSecrets:
    """Start a purge for each secret that is due, and one that was lost once more."""

    @workflow.run
    async def run(self) -> int:
        """Return how many secrets are being purged."""
        purging = await workflow.execute_activity_method(
            SecretUpkeepActivities.begin_due_purges,
            activity_id="begin_due_purges",
            start_to_close_timeout=_PURGE.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
        for place in purging:
            try:
                await workflow.start_child_workflow(
                    PurgeSecret.run,
                    place,
                    id=purge_workflow_id_of(place.secret_id),
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    parent_close_policy=ParentClosePolicy.ABANDON,
                    static_summary=f"purge secret {place.secret_id}",
                )
            except WorkflowAlreadyStartedError:
                continue
        return len(purging)
