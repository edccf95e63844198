"""Operations and their steps."""

from collections.abc import Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.operation import OwnerType
from infra.database.queries.pages import Page, page_of
from infra.database.tables import OperationRow, OperationStepRow


async def find_operation(
    session: AsyncSession, operation_id: str, *, lock: bool = False
) -> OperationRow | None:
    """Read an operation; with `lock` it does not change before the end of the transaction."""
    query = select(OperationRow).where(OperationRow.id == operation_id)
    if lock:
        # As an update would: rows that only refer to this one are not held up. What the session has
        # read before may be older.
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await session.exec(query)).one_or_none()


async def find_operations(
    session: AsyncSession, operation_ids: Sequence[str]
) -> Sequence[OperationRow]:
    """Read operations by their ids, in any order."""
    query = select(OperationRow).where(col(OperationRow.id).in_(operation_ids))
    return (await session.exec(query)).all()


async def find_operation_with_steps(
    session: AsyncSession, operation_id: str
) -> tuple[OperationRow, Sequence[OperationStepRow]] | None:
    """Read an operation and its steps in the order in which they were planned."""
    rows = (
        await session.exec(
            select(OperationRow, OperationStepRow)
            .outerjoin(
                OperationStepRow,
                (col(OperationStepRow.workspace_id) == col(OperationRow.workspace_id))
                & (col(OperationStepRow.operation_id) == col(OperationRow.id)),
            )
            .where(OperationRow.id == operation_id)
            .order_by(col(OperationStepRow.position))
        )
    ).all()
    if not rows:
        return None
    return rows[0][0], [step for _, step in rows if step is not None]


async def page_of_operations(
    session: AsyncSession,
    *,
    owner: tuple[str, str] | None,
    with_secrets: bool,
    before: str | None,
    limit: int,
) -> Page[OperationRow]:
    """Read a page of operations, newest first, of one owner if it is given.

    Those of secrets are left out unless `with_secrets`.
    """
    conditions = [] if with_secrets else [col(OperationRow.owner_type) != OwnerType.SECRET]
    if owner is not None:
        conditions += [
            col(OperationRow.owner_type) == owner[0],
            col(OperationRow.owner_id) == owner[1],
        ]
    return await page_of(session, OperationRow, *conditions, before=before, limit=limit)
