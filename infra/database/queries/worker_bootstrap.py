"""Worker bootstraps: found by a person, or consumed by the token of one, once."""

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.statements import run_sql
from infra.database.tables import WorkerBootstrapRow

_ENTER = "SELECT enter_by_bootstrap_token(%(hash)s)"


async def find_bootstrap(
    session: AsyncSession, bootstrap_id: str, *, lock: bool = False
) -> WorkerBootstrapRow | None:
    """Read a bootstrap; with `lock` nobody else changes it before the end of the transaction."""
    query = select(WorkerBootstrapRow).where(WorkerBootstrapRow.id == bootstrap_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def enter_by_token(session: AsyncSession, token_hash: bytes) -> WorkerBootstrapRow | None:
    """Bind the transaction to the workspace of a bootstrap token, whatever became of the token.

    Returns:
        Its row; None when nobody was ever given such a token.
    """
    found = (await run_sql(session, _ENTER, {"hash": token_hash})).scalar_one()
    return None if found is None else await find_bootstrap(session, found)


async def consume_bootstrap(session: AsyncSession, bootstrap_id: str, machine_id: str) -> bool:
    """Use a bootstrap for a machine; False: it was used, revoked or over by then.

    One statement decides, so of uses at the same time one wins; the others wait here for its end.
    """
    row = WorkerBootstrapRow
    consumed = await session.execute(
        update(row)
        .where(
            col(row.id) == bootstrap_id,
            col(row.used_at).is_(None),
            col(row.revoked_at).is_(None),
            # The clock, and not the transaction's begin: it may have waited.
            col(row.expires_at) > func.clock_timestamp(),
        )
        .values(
            used_at=func.clock_timestamp(),
            updated_at=func.clock_timestamp(),
            machine_id=machine_id,
            version=col(row.version) + 1,
        )
        .returning(col(row.id))
        .execution_options(synchronize_session=False)
    )
    return consumed.first() is not None
