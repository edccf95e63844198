"""Rotations as they are planned, by a request or by the sweep of those that are due."""

from datetime import timedelta

from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.operation import OperationType
from domain.rotation import RotationSchedule, Window
from domain.secret import SecretState
from infra.database.records.new_rows import Adds
from infra.database.records.operation import plan_operation
from infra.database.tables import OperationRow, SecretRotationRow, SecretRow


def plan_rotation(
    session: Adds, secret: SecretRow, rotation: SecretRotationRow, caller: Caller
) -> OperationRow:
    """Add the operation of a rotation, with the secret's lock; whoever calls audits it.

    The caller of this function holds the secret's row lock.

    Raises:
        BulkheadError: CONFLICT while one runs; FAILED_PRECONDITION for a deleted secret.
    """
    if secret.active_operation_id is not None:
        raise BulkheadError(
            Reason.CONFLICT,
            "A rotation of this secret is running. Wait for its end (`bulkhead operations watch "
            f"{secret.active_operation_id}`), or cancel it.",
            metadata={"operation_id": secret.active_operation_id},
        )
    if secret.state is not SecretState.ACTIVE:
        raise not_active()
    operation = plan_operation(
        session,
        OperationType.SECRET_ROTATE,
        secret,
        caller,
        request={"type": OperationType.SECRET_ROTATE, "secret_id": secret.id},
    )
    operation.placement = {
        "rotator": rotation.rotator,
        "settings": rotation.settings,
        "retirement": rotation.retirement,
        "grace_seconds": rotation.grace_seconds,
    }
    rotation.last_operation_id = operation.id
    return operation


def schedule_of(rotation: SecretRotationRow) -> RotationSchedule:
    """Return when a secret rotates."""
    window = None
    if rotation.window_start_minute is not None and rotation.window_minutes is not None:
        window = Window(
            timedelta(minutes=rotation.window_start_minute),
            timedelta(minutes=rotation.window_minutes),
        )
    return RotationSchedule(
        interval=timedelta(seconds=rotation.interval_seconds),
        jitter=timedelta(seconds=rotation.jitter_seconds),
        window=window,
        catch_up=timedelta(seconds=rotation.catch_up_seconds),
    )


def not_active() -> BulkheadError:
    """Return the failure for a secret that is deleted."""
    return BulkheadError(
        Reason.FAILED_PRECONDITION, "A deleted secret does not rotate; restore it first."
    )
