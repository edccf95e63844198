"""The audit lines of a rotation under way, each in the transaction of what it tells."""

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import Reason
from domain.owned_operation import SecretOperation
from domain.secret import VersionPlace
from infra.database.records.audit import add_audit_event
from infra.database.records.rotation_facts import RotationFacts


def audit_finish(session: AsyncSession, operation: SecretOperation, facts: RotationFacts) -> None:
    """Tell that `current` points at the new version from now on."""
    add_audit_event(
        session,
        operation.caller,
        "secret.rotate.finish",
        "secret",
        operation.secret_id,
        details={
            "operation_id": operation.operation_id,
            "version_id": facts.pending.version_id,
            "current": facts.pending_number,
            "previous": facts.current_number,
        },
    )


def audit_left_behind(
    session: AsyncSession, operation: SecretOperation, place: VersionPlace, reason: Reason
) -> None:
    """Tell that the target could not be made to refuse a version's value."""
    add_audit_event(
        session,
        operation.caller,
        "secret.rotate.undo",
        "secret",
        operation.secret_id,
        outcome="failed",
        details={
            "operation_id": operation.operation_id,
            "version_id": place.version_id,
            "reason": reason,
        },
    )


def audit_retirement(
    session: AsyncSession, operation: SecretOperation, facts: RotationFacts, verb: str
) -> None:
    """Tell what is done with the replaced version."""
    add_audit_event(
        session,
        operation.caller,
        f"secret_version.{verb}",
        "secret",
        operation.secret_id,
        details={
            "operation_id": operation.operation_id,
            "version_id": facts.current.version_id,
        },
    )
