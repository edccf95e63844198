"""Settles versions that whoever began to write or destroy them did not finish.

OpenBao decides: a place is sealed when nothing was written there, so that a writer who comes late
is refused, and what was written is shown. Repeated, it finds nothing to do.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import delete, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.errors import BulkheadError
from domain.operation import OperationState
from domain.secret import SecretState, VersionPlace, VersionState
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.records.secret import (
    SETTLED_AFTER,
    abandon_version,
    complete_destroying,
    complete_version,
    read_version,
)
from infra.database.tables import OperationRow, SecretRow, SecretVersionRow
from infra.openbao.client import OpenBao
from infra.secret_store.spaces import in_space

SCHEDULE = "settle-secret-versions"

# In no order, so that those that cannot be settled now do not keep the others waiting.
_UNSETTLED = text("""
SELECT v.workspace_id, v.secret_id, v.id FROM secret_versions v
LEFT JOIN operations o ON o.workspace_id = v.workspace_id AND o.id = v.operation_id
WHERE v.updated_at < now() - :settled_after AND (
    v.state IN ('writing', 'destroying')
    OR v.state = 'pending' AND o.state IS DISTINCT FROM 'RUNNING')
ORDER BY random() LIMIT 500
""")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What one pass did."""

    settled: int = 0
    failed: int = 0


class Settlement:
    """Looks across workspaces with the sweeper's role, and writes in each one's own.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        openbao: the worker's.
        settled_after: how long a version may be unsettled before it is taken from its writer.
    """

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        openbao: OpenBao,
        *,
        settled_after: timedelta = SETTLED_AFTER,
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._openbao = openbao
        self._settled_after = settled_after

    async def sweep(self) -> Settled:
        """Settle what is unsettled; one that cannot be settled now does not hold up the others.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        async with self._sweeper.transaction() as session:
            found = await session.execute(_UNSETTLED, {"settled_after": self._settled_after})
            places = [
                VersionPlace(workspace_id=workspace, secret_id=secret, version_id=version)
                for workspace, secret, version in found
            ]
        settled = failed = 0
        for place in places:
            try:
                settled += await self.settle(place) is not None
            except BulkheadError as error:
                failed += 1
                log.warning(
                    "a version is not settled yet",
                    version_id=place.version_id,
                    reason=error.reason,
                    message=error.message,
                )
        return Settled(settled=settled, failed=failed)

    async def settle(self, place: VersionPlace) -> VersionState | None:
        """Bring a version to rest and return its state; None when there was nothing to do.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database or OpenBao does not answer.
        """
        values = self._openbao.values
        match await self._unsettled_state(place):
            case VersionState.WRITING:
                sealed = await in_space(
                    self._openbao, place.workspace_id, partial(values.seal, place)
                )
                return await self._end_writing(place, is_sealed=sealed)
            case VersionState.PENDING:
                # First sealed, so that a writer of the ended rotation cannot come after.
                await in_space(self._openbao, place.workspace_id, partial(values.seal, place))
                await in_space(self._openbao, place.workspace_id, partial(values.destroy, place))
                return await self._end_writing(place, is_sealed=True)
            case VersionState.DESTROYING:
                await in_space(self._openbao, place.workspace_id, partial(values.destroy, place))
                return await self._end_destroying(place)
            case _:
                return None

    async def _unsettled_state(self, place: VersionPlace) -> VersionState | None:
        async with self._database.workspace(place.workspace_id) as session:
            version = await read_version(session, place)
            if version is None:
                return None
            is_old = await session.scalar(
                text("SELECT CAST(:since AS timestamptz) < now() - :settled_after"),
                {"since": version.updated_at, "settled_after": self._settled_after},
            )
            if not is_old:
                return None
            if version.state is VersionState.PENDING and version.operation_id is not None:
                operation = await session.get(
                    OperationRow, (place.workspace_id, version.operation_id)
                )
                if operation is not None and operation.state is OperationState.RUNNING:
                    return None
            return version.state

    async def _end_writing(self, place: VersionPlace, *, is_sealed: bool) -> VersionState | None:
        async with self._database.workspace(place.workspace_id) as session:
            secret = await _hold(session, place)
            version = await read_version(session, place)
            if secret is None or version is None:
                return None
            if version.state not in {VersionState.WRITING, VersionState.PENDING}:
                return None
            if is_sealed:
                await abandon_version(session, place)
                await _remove_unborn(session, secret)
                state = VersionState.ABANDONED
            else:
                state = (await complete_version(session, place)).state
            _audit(session, place, state)
            return state

    async def _end_destroying(self, place: VersionPlace) -> VersionState | None:
        async with self._database.workspace(place.workspace_id) as session:
            if await _hold(session, place) is None or not await complete_destroying(session, place):
                return None
            _audit(session, place, VersionState.DESTROYED)
            return VersionState.DESTROYED


async def _hold(session: AsyncSession, place: VersionPlace) -> SecretRow | None:
    query = select(SecretRow).where(SecretRow.id == place.secret_id).with_for_update()
    return (await session.exec(query)).one_or_none()


async def _remove_unborn(session: AsyncSession, secret: SecretRow) -> None:
    """Remove a secret whose first value never came, so that its name is free again."""
    if secret.state is not SecretState.CREATING:
        return
    query = select(SecretVersionRow.id).where(
        SecretVersionRow.secret_id == secret.id,
        SecretVersionRow.state != VersionState.ABANDONED,
    )
    if (await session.exec(query.limit(1))).first() is not None:
        return
    await session.execute(
        delete(SecretVersionRow).where(col(SecretVersionRow.secret_id) == secret.id)
    )
    await session.execute(delete(SecretRow).where(col(SecretRow.id) == secret.id))


def _audit(session: AsyncSession, place: VersionPlace, state: VersionState) -> None:
    add_audit_event(
        session,
        system_caller(place.workspace_id, SCHEDULE),
        "secret_version.settle",
        "secret",
        place.secret_id,
        outcome="succeeded",
        details={"version_id": place.version_id, "state": state},
    )
