"""How a rotation waits for a new value that only a person can make, for as long as that takes."""

from datetime import UTC, datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.operation import WAITING_FOR_NEW_VALUE
from domain.secret import CURRENT
from infra.database.queries.secret import select_readable
from infra.database.records.operation import notify
from infra.database.tables import OperationRow

# The setting that names the secret in which the value is handed in.
_HANDED_IN: Final = "new_token_secret_id"

_NOTHING: Final = "-"


async def handed_in_by(session: AsyncSession, row: OperationRow) -> str:
    """Return the version in which a person hands the new value in; `-`: there is none."""
    secret_id = row.placement["settings"].get(_HANDED_IN)
    if secret_id is None:
        return _NOTHING
    try:
        _, version = await select_readable(session, secret_id, CURRENT)
    except BulkheadError as error:
        if error.reason in {Reason.NOT_FOUND, Reason.FAILED_PRECONDITION}:
            return _NOTHING
        raise
    return version.id


async def begin_waiting(session: AsyncSession, row: OperationRow) -> None:
    """Say that it waits, once."""
    if row.waiting_for != WAITING_FOR_NEW_VALUE:
        row.waiting_for = WAITING_FOR_NEW_VALUE
        row.version += 1
        await notify(session, row.id)


async def end_waiting(session: AsyncSession, row: OperationRow) -> None:
    """Say that it goes on, and from when on its deadline counts."""
    if row.waiting_for == WAITING_FOR_NEW_VALUE:
        row.waiting_for = None
        row.version += 1
        row.placement = {**row.placement, "waited_until": datetime.now(UTC).timestamp()}
        await notify(session, row.id)
