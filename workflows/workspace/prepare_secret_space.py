"""PrepareSecretSpace: gives a workspace its place in OpenBao before its first secret."""

from temporalio import workflow

from activities.openbao import OpenBaoActivities
from domain.names import PREPARE_SECRET_SPACE_WORKFLOW
from workflows.policies import SERVICE_CALL


@workflow.defn(name=PREPARE_SECRET_SPACE_WORKFLOW)
class PrepareSecretSpace:
    """Make the namespace, its mounts and our processes' logins; what is there stays."""

    @workflow.run
    async def run(self, workspace_id: str) -> None:
        """Run the one activity, which may be repeated."""
        await workflow.execute_activity_method(
            OpenBaoActivities.prepare_secret_space,
            workspace_id,
            activity_id="prepare_secret_space",
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            retry_policy=SERVICE_CALL.retry,
        )
