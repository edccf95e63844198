"""Who uses a secret: registered by whatever makes a consumer, through one function.

The database keeps, for each consumer, the version that it is pinned to, used last, and has
acknowledged; the platform's own reads record the second (`infra/secret_store/reader.py`).
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.secret import VersionState
from infra.database.queries.secret import find_version_numbered
from infra.database.tables import SecretReferenceRow

_ENDED = (VersionState.DESTROYING, VersionState.DESTROYED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """That something uses a secret.

    Attributes:
        consumer_type: the kind of thing, such as `compute_config`, `install` or `agent`.
        consumer_id: which one.
        version_number: the version that it is pinned to; None: it follows `current`.
        acknowledges: it says when it has taken a new version over, and rotations wait for that.
    """

    workspace_id: str
    secret_id: str
    consumer_type: str
    consumer_id: str
    version_number: int | None = None
    acknowledges: bool = False


async def register_reference(session: AsyncSession, reference: Reference) -> SecretReferenceRow:
    """Record that something uses a secret; once more with other facts, it changes them.

    The caller of this function holds the secret's row lock, and the secret is active.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a version that the secret does not have;
            FAILED_PRECONDITION for one that is destroyed.
    """
    if reference.version_number is not None:
        await _check_version(session, reference.secret_id, reference.version_number)
    facts = {
        "version_number": reference.version_number,
        "acknowledges": reference.acknowledges,
    }
    row: SecretReferenceRow = (
        await session.execute(
            insert(SecretReferenceRow)
            .values(
                workspace_id=reference.workspace_id,
                secret_id=reference.secret_id,
                consumer_type=reference.consumer_type,
                consumer_id=reference.consumer_id,
                **facts,
            )
            .on_conflict_do_update(
                index_elements=["workspace_id", "secret_id", "consumer_type", "consumer_id"],
                set_=facts,
            )
            .returning(SecretReferenceRow)
            .execution_options(populate_existing=True)
        )
    ).scalar_one()
    return row


async def remove_reference(
    session: AsyncSession, secret_id: str, consumer_type: str, consumer_id: str
) -> bool:
    """Forget that something uses a secret. False: nothing was known of it."""
    removed = await session.execute(
        delete(SecretReferenceRow)
        .where(
            col(SecretReferenceRow.secret_id) == secret_id,
            col(SecretReferenceRow.consumer_type) == consumer_type,
            col(SecretReferenceRow.consumer_id) == consumer_id,
        )
        .returning(col(SecretReferenceRow.consumer_id))
    )
    return removed.first() is not None


async def acknowledge(
    session: AsyncSession,
    secret_id: str,
    consumer_type: str,
    consumer_id: str,
    version_number: int,
) -> SecretReferenceRow | None:
    """Record that a consumer works with a version by now; a newer one that it had stays.

    Returns:
        None when nothing is known of the consumer.

    Raises:
        BulkheadError: as `register_reference`.
    """
    await _check_version(session, secret_id, version_number)
    known = col(SecretReferenceRow.acknowledged_number)
    row: SecretReferenceRow | None = (
        await session.execute(
            update(SecretReferenceRow)
            .where(
                col(SecretReferenceRow.secret_id) == secret_id,
                col(SecretReferenceRow.consumer_type) == consumer_type,
                col(SecretReferenceRow.consumer_id) == consumer_id,
            )
            .values(
                acknowledged_number=func.greatest(known, version_number),
                acknowledged_at=func.now(),
            )
            .returning(SecretReferenceRow)
            .execution_options(populate_existing=True)
        )
    ).scalar_one_or_none()
    return row


async def _check_version(session: AsyncSession, secret_id: str, number: int) -> None:
    version = await find_version_numbered(session, secret_id, number)
    if version is None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "The secret has no version of this number.",
            path=("body", "version_number"),
            status=400,
        )
    if version.state in _ENDED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {number} was destroyed; nothing can use it.",
            path=("body", "version_number"),
        )
