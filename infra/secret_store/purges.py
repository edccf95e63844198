"""Purges: the row decides, OpenBao is read back, and a tombstone with the evidence is what remains.

The order is: the row is `purging` (there is no way back), every value is removed and proven to be
gone, and in one transaction the rows become a tombstone. The ledger has the purge on the disk
before that transaction ends, so that no restored backup can undo what anyone was told is done.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import delete, func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import PrincipalKind, system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from domain.secret import (
    ROTATION_CONSUMER,
    SecretPlace,
    SecretState,
    VersionPlace,
    VersionState,
)
from infra.database.engine import Database
from infra.database.queries.compute import configs_in_use
from infra.database.queries.emergency_stop import stop_of_workspace
from infra.database.records.audit import add_audit_event
from infra.database.records.operation import (
    owned_operation_of,
    request_cancellation,
)
from infra.database.records.secret import (
    SETTLED_AFTER,
    begin_purging,
    place_of,
    soft_delete,
)
from infra.database.tables import (
    OperationRow,
    SecretReferenceRow,
    SecretRotationRow,
    SecretRow,
    SecretTombstoneRow,
    SecretVersionRow,
)
from infra.openbao.values import ValueStore
from infra.secret_store.ledger import Ledger, LedgerEntry
from infra.secret_store.spaces import unless_missing

SCHEDULE = "purge-secrets"

# Of each kind, a pass.
_BATCH: Final = 500

# What OpenBao answers for a purged place, as it was read back.
_NOT_FOUND: Final = 404

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningRotation:
    """A rotation that runs on a secret which is being purged; `cancels`: it undoes itself."""

    operation: TypedOperation
    cancels: bool


class SecretPurges:
    """The transactions of purges, and the calls between them. Each may be repeated.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        values: the worker's.
        ledger: None where another worker keeps it; then this one purges nothing.
        settled_after: how long somebody may still be writing a version that has no value yet.
    """

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        values: ValueStore,
        ledger: Ledger | None,
        *,
        settled_after: timedelta = SETTLED_AFTER,
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._values = values
        self._ledger = ledger
        self._settled_after = settled_after

    async def begin_due(self) -> list[SecretPlace]:
        """Delete what has expired, begin what is due, and return everything that is being purged.

        Of a workspace that is stopped nothing is deleted or begun.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        for place in await self._places("state = 'active' AND expires_at <= now()"):
            await self._expire(place)
        for place in await self._places("state = 'soft_deleted' AND purge_at <= now()"):
            await self._begin(place)
        return await self._places("state = 'purging'")

    async def overdue(self) -> int:
        """Return how many secrets should have been purged a day ago."""
        async with self._sweeper.transaction() as session:
            return int(await session.scalar(text("SELECT secret_purges_overdue()")) or 0)

    async def running_rotation(self, place: SecretPlace) -> RunningRotation | None:
        """Ask the rotation that holds the secret to stop, and return it while it runs.

        One that only goes forward ends by itself: its replaced value must not be left accepted.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the secret is not being purged.
        """
        async with self._database.workspace(place.workspace_id) as session:
            secret = await _hold(session, place)
            if secret is None or secret.active_operation_id is None:
                return None
            row = await session.get(OperationRow, (place.workspace_id, secret.active_operation_id))
            if row is None or row.state is not OperationState.RUNNING:
                return None
            cancels = row.cancel_requested_at is not None or await request_cancellation(
                session, row.id, PrincipalKind.SYSTEM
            )
            if not cancels:
                # What uses a secret that is purged has lost it: it is not waited for.
                await _remove_references(session, secret.id)
            typed = TypedOperation(type=row.type, operation=owned_operation_of(row))
            return RunningRotation(operation=typed, cancels=cancels)

    async def purge_values(self, place: SecretPlace) -> int:
        """Remove every value, read back that it is gone, and return how many places there were.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the secret is not being purged;
                DEPENDENCY_UNAVAILABLE while somebody may still be writing one of its versions,
                and when OpenBao or the database does not answer.
        """
        versions = await self._versions(place)
        for version in versions:
            await self._purge(place_of(version))
        return len(versions)

    async def record(self, place: SecretPlace) -> None:
        """Prove once more that every value is gone, and put a tombstone in place of the rows.

        Raises:
            BulkheadError: as `purge_values`; DEPENDENCY_UNAVAILABLE also when the ledger cannot
                be written.
        """
        if self._ledger is None:
            raise _no_ledger()
        evidence = {
            version.id: await self._evidence(version) for version in await self._versions(place)
        }
        async with self._database.workspace(place.workspace_id) as session:
            secret = await _hold(session, place)
            if secret is None:
                return
            found = set(
                await session.exec(
                    select(SecretVersionRow.id).where(SecretVersionRow.secret_id == place.secret_id)
                )
            )
            if found != set(evidence):
                raise _is_written()
            tombstone = await _replace(session, secret, evidence)
            await asyncio.to_thread(self._ledger.append, LedgerEntry.of_tombstone(tombstone))

    async def _places(self, condition: str) -> list[SecretPlace]:
        async with self._sweeper.transaction() as session:
            # In no order, so that those that fail do not keep the others waiting.
            rows = await session.execute(
                text(
                    f"SELECT workspace_id, id FROM secrets WHERE {condition}"  # noqa: S608 - ours
                    f" ORDER BY random() LIMIT {_BATCH}"
                )
            )
            return [
                SecretPlace(workspace_id=workspace, secret_id=secret) for workspace, secret in rows
            ]

    async def _expire(self, place: SecretPlace) -> None:
        async with self._database.workspace(place.workspace_id) as session:
            secret = await _locked(
                session,
                place,
                col(SecretRow.state) == SecretState.ACTIVE,
                col(SecretRow.expires_at) <= func.now(),
            )
            if secret is None or await stop_of_workspace(session, place.workspace_id):
                return
            # A credential outlives its end while machines exist that nobody could remove without.
            if not await configs_in_use(session, secret.id):
                await soft_delete(session, secret)
                _audit(session, place, "secret.expire")

    async def _begin(self, place: SecretPlace) -> None:
        async with self._database.workspace(place.workspace_id) as session:
            secret = await _locked(
                session,
                place,
                col(SecretRow.state) == SecretState.SOFT_DELETED,
                col(SecretRow.purge_at) <= func.now(),
            )
            # A restore that came first leaves nothing to do.
            if secret is None or await stop_of_workspace(session, place.workspace_id):
                return
            if await begin_purging(session, place.secret_id):
                _audit(session, place, "secret.begin_purge")

    async def _versions(self, place: SecretPlace) -> list[SecretVersionRow]:
        """Return the versions of a secret that is being purged, once nobody writes them any more.

        What is removed is free to be written again: a writer that is on its way would leave a
        value behind. One that comes later still is found by the quarantine.
        """
        async with self._database.workspace(place.workspace_id) as session:
            if await _hold(session, place) is None:
                return []
            versions = list(
                await session.exec(
                    select(SecretVersionRow)
                    .where(SecretVersionRow.secret_id == place.secret_id)
                    .order_by(col(SecretVersionRow.number))
                )
            )
            fresh = select(SecretVersionRow.id).where(
                SecretVersionRow.secret_id == place.secret_id,
                col(SecretVersionRow.state).in_([VersionState.WRITING, VersionState.PENDING]),
                col(SecretVersionRow.updated_at) > func.now() - self._settled_after,
            )
            if (await session.exec(fresh.limit(1))).first() is not None:
                raise _is_written()
            return versions

    async def _purge(self, place: VersionPlace) -> int | None:
        """Return what OpenBao answered when the value was read back; None: there is no namespace.

        Without a namespace there is no value either, and nothing that could be read.
        """

        def purge() -> int:
            self._values.purge(place)
            return _NOT_FOUND

        return await unless_missing(purge, None)

    async def _evidence(self, version: SecretVersionRow) -> dict[str, Any]:
        answer = await self._purge(place_of(version))
        at = datetime.now(UTC).isoformat()
        evidence: dict[str, Any] = {"number": version.number, "state": version.state}
        if answer is None:
            return {**evidence, "namespace_missing_at": at}
        return {**evidence, "read_back": answer, "read_back_at": at}


async def _locked(
    session: AsyncSession,
    place: SecretPlace,
    *conditions: Any,  # noqa: ANN401 - SQL expressions
) -> SecretRow | None:
    query = select(SecretRow).where(SecretRow.id == place.secret_id, *conditions)
    return (await session.exec(query.with_for_update())).one_or_none()


async def _hold(session: AsyncSession, place: SecretPlace) -> SecretRow | None:
    """Lock a secret that is being purged; None when it is gone.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it is not being purged, whoever asks.
    """
    secret = await _locked(session, place)
    if secret is not None and secret.state is not SecretState.PURGING:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "This secret is not being purged; nothing was removed."
        )
    return secret


async def _replace(
    session: AsyncSession, secret: SecretRow, evidence: dict[str, Any]
) -> SecretTombstoneRow:
    """Put a tombstone in place of a secret's rows."""
    actor_kind, actor_id = _actor(secret)
    tombstone = SecretTombstoneRow(
        workspace_id=secret.workspace_id,
        secret_id=secret.id,
        kind=secret.kind,
        version_ids=list(evidence),
        evidence={"versions": evidence, "version_count": len(evidence)},
        actor_kind=actor_kind,
        actor_id=actor_id,
        approved_by=secret.purge_approved_by,
        purged_at=await session.scalar(text("SELECT now()")),
    )
    await remove_rows(session, secret.id)
    session.add(tombstone)
    _audit(
        session,
        SecretPlace(workspace_id=secret.workspace_id, secret_id=secret.id),
        "secret.purge",
        requested_by=actor_id,
        approved_by=secret.purge_approved_by,
        versions=len(evidence),
    )
    await session.flush()
    return tombstone


async def remove_rows(session: AsyncSession, secret_id: str) -> bool:
    """Remove everything that is known of a secret; False when nothing was."""
    await _remove_references(session, secret_id)
    for table in (SecretRotationRow, SecretVersionRow):
        await session.execute(delete(table).where(col(table.secret_id) == secret_id))
    result = await session.execute(
        delete(SecretRow).where(col(SecretRow.id) == secret_id).returning(col(SecretRow.id))
    )
    return result.first() is not None


async def _remove_references(session: AsyncSession, secret_id: str) -> None:
    own_uses = (col(SecretReferenceRow.consumer_type) == ROTATION_CONSUMER) & (
        col(SecretReferenceRow.consumer_id) == secret_id
    )
    await session.execute(
        delete(SecretReferenceRow).where(
            (col(SecretReferenceRow.secret_id) == secret_id) | own_uses
        )
    )


def _actor(secret: SecretRow) -> tuple[PrincipalKind, str]:
    requested_by = secret.purge_requested_by
    if requested_by is None:
        return PrincipalKind.SYSTEM, SCHEDULE
    if is_id(Prefix.API_TOKEN, requested_by):
        return PrincipalKind.API_TOKEN, requested_by
    return PrincipalKind.USER, requested_by


def _audit(
    session: AsyncSession,
    place: SecretPlace,
    action: str,
    **details: str | int | None,
) -> None:
    add_audit_event(
        session,
        system_caller(place.workspace_id, SCHEDULE),
        action,
        "secret",
        place.secret_id,
        outcome="succeeded",
        details=dict(details),
    )


def _is_written() -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "Somebody may still be writing a version of this secret; it is purged in a minute or two.",
    )


def _no_ledger() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "This worker keeps no ledger of purges, and nothing is purged without one. Set "
        "SECRET_STORE__LEDGER_FILE for the worker of the control queue.",
        retryable=True,
    )
