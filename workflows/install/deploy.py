"""What every deployment of a render does, whatever asked for it, and how it is taken back."""

from typing import Final

from activities.install_records import InstallRecordActivities
from activities.installs import InstallActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import InstallOperation
from workflows.install.approval import Approval
from workflows.policies import CHART_CALL, CLUSTER_CALL, HELM_CALL, RELEASE_WAIT
from workflows.saga import Saga

# Asked for at the start of a workflow, where it adds no task: of before, those end by an activity.
ENDS_HERE: Final = "ends-here"


async def deploy(saga: Saga, operation: InstallOperation, approval: Approval) -> None:
    """Render, plan, apply, wait for health, and end the operation."""
    rendered = await saga.step(
        Step.RENDER_CHART,
        InstallActivities.render_chart,
        operation,
        CHART_CALL,
        on_host=True,
        undo=InstallActivities.forget_render,
    )
    if rendered.skipped:
        await saga.succeed(InstallRecordActivities.record_skipped, operation)
        return
    planned = await saga.step(
        Step.PLAN_CHANGES, InstallActivities.plan_changes, operation, CLUSTER_CALL, on_host=True
    )
    if planned.waits:
        await approval.wait(saga, operation)
    if planned.has_secrets:
        await saga.step(
            Step.SYNC_SECRETS,
            InstallActivities.sync_secrets,
            operation,
            CLUSTER_CALL,
            on_host=True,
            undo=InstallActivities.restore_secrets,
        )
    if planned.has_cluster_objects:
        await saga.step(
            Step.APPLY_CLUSTER_OBJECTS,
            InstallActivities.apply_cluster_objects,
            operation,
            CLUSTER_CALL,
            on_host=True,
            undo=InstallActivities.restore_cluster_objects,
        )
    await saga.step(
        Step.APPLY_RELEASE,
        InstallActivities.apply_release,
        operation,
        HELM_CALL,
        on_host=True,
        undo=InstallActivities.restore_release,
    )
    await saga.step(
        Step.WAIT_UNTIL_HEALTHY,
        InstallActivities.wait_until_healthy,
        operation,
        RELEASE_WAIT,
        on_host=True,
    )
    if planned.leaves_behind:
        # What goes with a CRD does not come back.
        await saga.forward_only()
        await remove_left_behind(saga, operation)
    await saga.succeed(InstallRecordActivities.record_deployed, operation)


async def remove_left_behind(saga: Saga, operation: InstallOperation) -> None:
    """Remove what was deployed before and is not any more."""
    await saga.step(
        Step.REMOVE_CLUSTER_OBJECTS,
        InstallActivities.remove_left_behind,
        operation,
        CLUSTER_CALL,
        on_host=True,
    )


async def abandon_deployment(saga: Saga, operation: InstallOperation) -> bool:
    """Finish a deployment whose workflow was lost, or take it back.

    Returns:
        True when it was finished, and has ended.
    """
    if await saga.record("is_past_return", RecordActivities.record_is_past_return, operation):
        await remove_left_behind(saga, operation)
        await saga.succeed(InstallRecordActivities.record_deployed, operation)
        return True
    for step, undo, policy in (
        (Step.APPLY_RELEASE, InstallActivities.restore_release, HELM_CALL),
        (Step.APPLY_CLUSTER_OBJECTS, InstallActivities.restore_cluster_objects, CLUSTER_CALL),
        (Step.SYNC_SECRETS, InstallActivities.restore_secrets, CLUSTER_CALL),
        (Step.RENDER_CHART, InstallActivities.forget_render, CHART_CALL),
    ):
        await saga.undo(step, undo, operation, policy, on_host=True)
    return False
