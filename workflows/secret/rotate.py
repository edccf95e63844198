"""RotateSecret: a new value that was tried at its target takes the place of the current one."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from temporalio import workflow

from activities.secret_rotation import Rotated, SecretRotationActivities
from activities.sweeps import SweepActivities, Swept
from domain.operation import CREDENTIAL_CHANGED, ROTATION_ACKNOWLEDGED, Step
from domain.owned_operation import SecretOperation
from workflows.parking import NEW_VALUE, Parking
from workflows.policies import HEARTBEAT_TIMEOUT, ROTATOR_CALL, SERVICE_CALL
from workflows.saga import Saga

# Consumers wake the workflow; looking for those whose signal was lost costs a history this many
# passes at most.
_PASSES: Final = 20
_SHORTEST_PAUSE: Final = timedelta(minutes=1)


@workflow.defn
class RotateSecret:
    """Replace one secret's current value, or leave everything as it was."""

    def __init__(self) -> None:
        self._acknowledged = False
        self._parking = Parking(NEW_VALUE)

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret in which a person hands the new value in has another version."""
        self._parking.credential_changed()

    @workflow.signal(name=ROTATION_ACKNOWLEDGED)
    def acknowledged(self) -> None:
        """A consumer has acknowledged the new version."""
        self._acknowledged = True

    @workflow.run
    async def run(self, operation: SecretOperation) -> None:
        """Make, set and test the new value; once it is current there is only forward."""
        async with Saga(operation, parking=self._parking) as saga:
            await saga.step(
                Step.BEGIN_ROTATION,
                SecretRotationActivities.begin_rotation,
                operation,
                SERVICE_CALL,
                undo=SecretRotationActivities.give_version_up,
            )
            # What a target may have been told is taken back here: the new value can have reached it
            # while it was made.
            await saga.step(
                Step.CREATE_VALUE,
                SecretRotationActivities.create_value,
                operation,
                ROTATOR_CALL,
                undo=SecretRotationActivities.take_value_back,
            )
            await saga.step(
                Step.SET_VALUE, SecretRotationActivities.set_value, operation, ROTATOR_CALL
            )
            await saga.step(
                Step.TEST_VALUE, SecretRotationActivities.test_value, operation, ROTATOR_CALL
            )
            await saga.step_of_no_return(
                Step.FINISH_ROTATION,
                SecretRotationActivities.finish_rotation,
                operation,
                SERVICE_CALL,
                took_effect=SecretRotationActivities.rotation_is_finished,
            )
            await complete_rotation(saga, operation, self._take_acknowledgement)

    def _take_acknowledgement(self) -> bool:
        taken, self._acknowledged = self._acknowledged, False
        return taken


async def complete_rotation(
    saga: Saga, operation: SecretOperation, acknowledged: Callable[[], bool]
) -> None:
    """Wait for consumers, retire the replaced version, and end: all that follows the finish.

    Args:
        saga: of the operation; it goes forward only.
        operation: the rotation.
        acknowledged: tells, once for each time, that a consumer has acknowledged.
    """
    while True:
        waiting = await saga.record(
            "waiting_consumers", SecretRotationActivities.await_consumers, operation
        )
        if not waiting.consumers or not waiting.remaining_seconds:
            break
        slow = max(_SHORTEST_PAUSE, timedelta(seconds=waiting.grace_seconds) / _PASSES)
        await saga.wait(
            acknowledged, at_most=min(slow, timedelta(seconds=waiting.remaining_seconds))
        )
    drained = await saga.step(
        Step.DRAIN_CONSUMERS, SecretRotationActivities.await_consumers, operation, SERVICE_CALL
    )
    retired = await saga.step(
        Step.RETIRE_VERSION, SecretRotationActivities.retire_version, operation, ROTATOR_CALL
    )
    await saga.succeed(
        SecretRotationActivities.record_rotated,
        Rotated(
            operation=operation,
            unacknowledged=drained.consumers,
            kept_because=retired.kept_because,
        ),
    )


async def abandon_rotation(saga: Saga, operation: SecretOperation) -> bool:
    """Finish a rotation whose workflow was lost, or take it back.

    Returns:
        True when it was finished, and has ended.
    """
    if await saga.record(
        "rotation_is_finished", SecretRotationActivities.rotation_is_finished, operation
    ):
        await complete_rotation(saga, operation, lambda: False)
        return True
    await saga.undo(
        Step.CREATE_VALUE, SecretRotationActivities.take_value_back, operation, ROTATOR_CALL
    )
    await saga.undo(
        Step.BEGIN_ROTATION, SecretRotationActivities.give_version_up, operation, SERVICE_CALL
    )
    return False


@workflow.defn
class RotateSecrets:
    """On a schedule: start a rotation of each secret whose turn has come."""

    @workflow.run
    async def run(self) -> Swept:
        """Plan and start; each rotation is an operation of its own."""
        return await workflow.execute_activity_method(
            SweepActivities.start_due_rotations,
            activity_id="start_due_rotations",
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
