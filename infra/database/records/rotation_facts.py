"""What a rotation works with, as its operation's row and the secret's references say."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.operation import WAITING_FOR_NEW_VALUE, OperationState
from domain.rotation import ROTATION_DEADLINE, Rotation
from domain.secret import Retirement, RotatorKind, SecretState, VersionPlace
from infra.database.records.secret import current_number
from infra.database.tables import OperationRow, SecretReferenceRow, SecretRow

# How many consumers an operation names; the others are counted.
_NAMED_CONSUMERS: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationFacts:
    """What a rotation that has begun works with.

    Attributes:
        is_reached: its target was reached, and may have been told of it.
        is_refused: its target refuses the replaced value, which may be gone by now.
        previous: the version before the current one, if the new value ends it at the target.
        is_previous_known: that was found out, before the target was told the new value.
    """

    rotator: RotatorKind
    rotation: Rotation
    retirement: Retirement
    current: VersionPlace
    current_number: int
    pending: VersionPlace
    pending_number: int
    is_reached: bool
    is_finished: bool
    is_refused: bool
    is_overdue: bool
    previous: VersionPlace | None
    is_previous_known: bool


def facts_of(row: OperationRow) -> RotationFacts | None:
    """Return what an operation's row says, None when the rotation has not begun."""
    if "pending" not in row.placement:
        return None
    current, pending = row.placement["current"], row.placement["pending"]
    previous = row.placement.get("previous")

    def place(version_id: str) -> VersionPlace:
        return VersionPlace(
            workspace_id=row.workspace_id, secret_id=row.owner_id, version_id=version_id
        )

    return RotationFacts(
        rotator=RotatorKind(row.placement["rotator"]),
        rotation=Rotation(
            workspace_id=row.workspace_id,
            secret_id=row.owner_id,
            operation_id=row.id,
            settings=row.placement["settings"],
        ),
        retirement=Retirement(row.placement["retirement"]),
        current=place(current["id"]),
        current_number=current["number"],
        pending=place(pending["id"]),
        pending_number=pending["number"],
        is_reached="reached_at" in row.placement,
        is_finished="finished_at" in row.placement,
        is_refused="refused_at" in row.placement,
        is_overdue=_is_overdue(row),
        previous=None if previous is None else place(previous["id"]),
        is_previous_known="previous" in row.placement,
    )


def _is_overdue(row: OperationRow) -> bool:
    if row.waiting_for == WAITING_FOR_NEW_VALUE:
        return False
    began = max(row.started_at.timestamp(), float(row.placement.get("waited_until", 0)))
    return datetime.now(UTC).timestamp() - began > ROTATION_DEADLINE.total_seconds()


def check_in_time(row: OperationRow) -> None:
    """Raise DEADLINE_EXCEEDED when the rotation has not been finished in time."""
    if _is_overdue(row):
        raise BulkheadError(
            Reason.DEADLINE_EXCEEDED,
            "The rotation was not finished within a day, and is taken back. Look at its steps for "
            "what held it up, then rotate again.",
            retryable=False,
        )


def check_unmoved(secret: SecretRow, facts: RotationFacts) -> None:
    """Raise ABORTED when the secret is not what it was when the rotation began."""
    # An `ABORTED` is a cancel unless it says otherwise.
    failed = {"operation_state": OperationState.FAILED.value}
    if secret.state is not SecretState.ACTIVE:
        raise BulkheadError(
            Reason.ABORTED, "The secret was deleted while it rotated.", metadata=failed
        )
    if current_number(secret) != facts.current_number:
        raise BulkheadError(
            Reason.ABORTED,
            f"`current` was moved away from version {facts.current_number} while the rotation made "
            "another one from it. Rotate again to replace the version that is current now.",
            metadata=failed,
        )


async def unacknowledged(session: AsyncSession, facts: RotationFacts) -> list[str]:
    """Name the consumers that follow `current`, acknowledge, and have not done so."""
    number = col(SecretReferenceRow.acknowledged_number)
    return await _consumers(
        session,
        facts,
        col(SecretReferenceRow.acknowledges).is_(True),
        col(SecretReferenceRow.version_number).is_(None),
        number.is_(None) | (number < facts.pending_number),
    )


async def pinned(session: AsyncSession, facts: RotationFacts) -> list[str]:
    """Name the consumers that are pinned to the version which was replaced."""
    number = col(SecretReferenceRow.version_number)
    return await _consumers(session, facts, number == facts.current_number)


async def _consumers(
    session: AsyncSession,
    facts: RotationFacts,
    *conditions: Any,  # noqa: ANN401 - SQL expressions
) -> list[str]:
    query = (
        select(SecretReferenceRow.consumer_type, SecretReferenceRow.consumer_id)
        .where(SecretReferenceRow.secret_id == facts.current.secret_id, *conditions)
        .order_by(col(SecretReferenceRow.consumer_type), col(SecretReferenceRow.consumer_id))
    )
    found = [f"{kind} {identifier}" for kind, identifier in await session.exec(query)]
    if len(found) <= _NAMED_CONSUMERS:
        return found
    return [*found[:_NAMED_CONSUMERS], f"and {len(found) - _NAMED_CONSUMERS} more"]
