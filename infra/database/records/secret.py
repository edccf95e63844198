"""The transactions that move secrets and versions through their states.

Whoever changes a version holds the row lock of its secret, so that aliases and states agree. Each
change is conditional on the state it leaves: repeated, it finds nothing to do.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, text, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import (
    CURRENT,
    RESTORABLE_DAYS,
    SecretKind,
    SecretState,
    VersionPlace,
    VersionState,
)
from infra.database.records.new_rows import NewRows
from infra.database.statements import run_sql
from infra.database.tables import SecretRow, SecretVersionRow

# How long a version may stay half-written or half-destroyed before somebody else settles it: well
# above the longest wait of whoever began it (15 s for OpenBao, 15 s for each transaction).
SETTLED_AFTER: Final = timedelta(minutes=2)

_ALLOCATE = (
    "UPDATE secrets SET last_version_number = last_version_number + 1, updated_at = now()"
    " WHERE id = %(secret)s RETURNING last_version_number, kind, state"
)
# One statement: the version, and with the first one the secret and its alias. The secret's lock
# comes first, as everywhere; what a purge has counted, or will count, is not shown any more.
_COMPLETE = text("""
WITH held AS (
    SELECT s.id FROM secrets s
    JOIN secret_versions v ON v.workspace_id = s.workspace_id AND v.secret_id = s.id
    WHERE v.id = :version AND s.state <> 'purging' FOR NO KEY UPDATE OF s
), done AS (
    UPDATE secret_versions v SET state = 'enabled', version = v.version + 1, updated_at = now()
    FROM held WHERE v.id = :version AND v.secret_id = held.id AND v.state = 'writing'
    RETURNING v.*
), changed AS (
    UPDATE secrets s SET version = s.version + 1, updated_at = now(),
        state = CASE s.state WHEN 'creating' THEN 'active' ELSE s.state END,
        aliases = CASE s.state WHEN 'creating'
            THEN jsonb_set(s.aliases, '{current}', to_jsonb(done.number)) ELSE s.aliases END
    FROM done WHERE s.id = done.secret_id RETURNING s.id
)
SELECT * FROM done
""")


def place_of(version: SecretVersionRow) -> VersionPlace:
    """Return where the value of a version is."""
    return VersionPlace(
        workspace_id=version.workspace_id, secret_id=version.secret_id, version_id=version.id
    )


async def begin_secret(
    session: AsyncSession,
    rows: NewRows,
    caller: Caller,
    *,
    name: str,
    kind: SecretKind,
    description: str | None = None,
    labels: dict[str, str] | None = None,
    attributes: dict[str, str] | None = None,
    **optional: Any,  # noqa: ANN401 - further columns of SecretRow
) -> SecretVersionRow:
    """Write the intent of a new secret and its first version, unseen until it is completed.

    Raises:
        BulkheadError: CONFLICT when the name is taken, also by a deleted secret.
    """
    secret = SecretRow(
        workspace_id=caller.workspace_id,
        id=new_id(Prefix.SECRET),
        name=name,
        kind=kind,
        description=description,
        labels=labels or {},
        attributes=attributes or {},
        state=SecretState.CREATING,
        aliases={},
        last_version_number=1,
        **optional,
    )
    version = _new_version(secret.workspace_id, secret.id, 1, VersionState.WRITING)
    rows.add(secret)
    rows.add(version)
    try:
        await rows.write(session)
    except IntegrityError:
        raise name_is_taken() from None
    return version


def name_is_taken() -> BulkheadError:
    """Return the failure for a name that another secret has."""
    return BulkheadError(
        Reason.CONFLICT,
        "A secret of this name exists. A deleted one keeps its name until it is purged: restore "
        "it, or take another name.",
        path=("body", "name"),
    )


@dataclass(frozen=True, slots=True)
class Allocated:
    """The number of the next version, and what the secret that has it is like."""

    number: int
    kind: SecretKind
    state: SecretState


async def allocate_number(session: AsyncSession, secret_id: str) -> Allocated | None:
    """Take the number of the next version, and the secret's row lock; None: there is no secret."""
    found = (await run_sql(session, _ALLOCATE, {"secret": secret_id})).first()
    if found is None:
        return None
    return Allocated(found.last_version_number, SecretKind(found.kind), SecretState(found.state))


async def begin_version(
    session: AsyncSession,
    rows: NewRows,
    workspace_id: str,
    secret_id: str,
    *,
    number: int | None = None,
    state: VersionState = VersionState.WRITING,
    comment: str | None = None,
    operation_id: str | None = None,
) -> SecretVersionRow:
    """Write the intent of one more version; unseen until it is completed.

    Without a `number`, that `allocate_number` gave in this transaction, it gets the next one.
    """
    if number is None:
        allocated = await allocate_number(session, secret_id)
        assert allocated is not None  # noqa: S101 - the caller has seen the secret
        number = allocated.number
    version = _new_version(workspace_id, secret_id, number, state)
    version.comment = comment
    version.operation_id = operation_id
    rows.add(version)
    await rows.write(session)
    return version


async def complete_version(session: AsyncSession, place: VersionPlace) -> SecretVersionRow:
    """Show a version whose value is stored; one that was completed before stays as it is.

    Raises:
        BulkheadError: ABORTED when it was given up, or went with its secret, in the meantime.
    """
    completed = select(SecretVersionRow).from_statement(_COMPLETE)
    parameters = {"version": place.version_id}
    version: SecretVersionRow | None = (
        await session.execute(completed, parameters, execution_options={"populate_existing": True})
    ).scalar_one_or_none()
    if version is None:
        version = await read_version(session, place)
    if version is None or version.state in {VersionState.WRITING, VersionState.ABANDONED}:
        raise BulkheadError(
            Reason.ABORTED,
            "This version was given up, for its value came too late or its secret was deleted. "
            "Add it again.",
        )
    return version


async def abandon_version(session: AsyncSession, place: VersionPlace) -> bool:
    """End a version that has no value and never will; its number is not used again."""
    result = await session.execute(
        update(SecretVersionRow)
        .where(
            col(SecretVersionRow.id) == place.version_id,
            col(SecretVersionRow.state).in_([VersionState.WRITING, VersionState.PENDING]),
        )
        .values(state=VersionState.ABANDONED, **_touched())
    )
    return bool(result.rowcount)  # type: ignore[attr-defined] # of an update there is one


async def begin_destroying(session: AsyncSession, version: SecretVersionRow) -> None:
    """Make a version unreadable for good; its value is destroyed next."""
    version.state = VersionState.DESTROYING
    await _change(session, version)


async def complete_destroying(session: AsyncSession, place: VersionPlace) -> bool:
    """Record that the value is proven to be gone. False: that was recorded before."""
    result = await session.execute(
        update(SecretVersionRow)
        .where(
            col(SecretVersionRow.id) == place.version_id,
            col(SecretVersionRow.state) == VersionState.DESTROYING,
        )
        .values(state=VersionState.DESTROYED, destroyed_at=func.now(), **_touched())
    )
    if not result.rowcount:  # type: ignore[attr-defined] # of an update there is one
        return False
    await touch_secret(session, place.secret_id)
    return True


async def switch_version(
    session: AsyncSession, version: SecretVersionRow, state: VersionState
) -> None:
    """Enable or disable a version."""
    version.state = state
    await _change(session, version)


async def soft_delete(session: AsyncSession, secret: SecretRow) -> None:
    """Delete a secret so that it can be restored until its purge."""
    await session.execute(
        update(SecretRow)
        .where(col(SecretRow.id) == secret.id, col(SecretRow.state) == SecretState.ACTIVE)
        .values(
            state=SecretState.SOFT_DELETED,
            deleted_at=func.now(),
            purge_at=func.now() + timedelta(days=RESTORABLE_DAYS),
            **_touched_secret(),
        )
    )


async def begin_purging(session: AsyncSession, secret_id: str) -> bool:
    """Put a secret beyond recovery; False when it is not there or is being purged already."""
    result = await session.execute(
        update(SecretRow)
        .where(
            col(SecretRow.id) == secret_id,
            col(SecretRow.state).in_([SecretState.ACTIVE, SecretState.SOFT_DELETED]),
        )
        .values(
            state=SecretState.PURGING,
            deleted_at=func.coalesce(col(SecretRow.deleted_at), func.now()),
            purge_at=func.least(func.coalesce(col(SecretRow.purge_at), func.now()), func.now()),
            **_touched_secret(),
        )
    )
    return bool(result.rowcount)  # type: ignore[attr-defined] # of an update there is one


async def restore(session: AsyncSession, secret_id: str) -> bool:
    """Take a soft delete back; False when the time for it is over.

    An end of its own is forgotten when it has passed, or the secret would be deleted at once.
    """
    result = await session.execute(
        update(SecretRow)
        .where(
            col(SecretRow.id) == secret_id,
            col(SecretRow.state) == SecretState.SOFT_DELETED,
            col(SecretRow.purge_at) > func.now(),
        )
        .values(
            state=SecretState.ACTIVE,
            deleted_at=None,
            purge_at=None,
            purge_requested_by=None,
            purge_requested_at=None,
            purge_approved_by=None,
            expires_at=func.nullif(
                func.greatest(col(SecretRow.expires_at), func.now()), func.now()
            ),
            **_touched_secret(),
        )
    )
    return bool(result.rowcount)  # type: ignore[attr-defined] # of an update there is one


async def record_use(session: AsyncSession, version_id: str) -> None:
    """Note that a version was read just now, unless another request is noting it."""
    free = (
        select(col(SecretVersionRow.id))
        .where(col(SecretVersionRow.id) == version_id)
        .with_for_update(skip_locked=True, key_share=True)
    )
    await session.execute(
        update(SecretVersionRow)
        .where(col(SecretVersionRow.id) == free.scalar_subquery())
        .values(last_used_at=func.now())
    )


async def touch_secret(session: AsyncSession, secret_id: str) -> None:
    """Give a secret a new etag, for something of it that is shown has changed."""
    await session.execute(
        update(SecretRow).where(col(SecretRow.id) == secret_id).values(**_touched_secret())
    )


async def read_version(session: AsyncSession, place: VersionPlace) -> SecretVersionRow | None:
    """Read a version in whatever state, as it is now."""
    query = (
        select(SecretVersionRow)
        .where(
            col(SecretVersionRow.secret_id) == place.secret_id,
            col(SecretVersionRow.id) == place.version_id,
        )
        .execution_options(populate_existing=True)
    )
    return (await session.exec(query)).one_or_none()


def current_number(secret: SecretRow) -> int | None:
    """Return the number that `current` points at."""
    return secret.aliases.get(CURRENT)


def _new_version(
    workspace_id: str, secret_id: str, number: int, state: VersionState
) -> SecretVersionRow:
    return SecretVersionRow(
        workspace_id=workspace_id,
        secret_id=secret_id,
        id=new_id(Prefix.SECRET_VERSION),
        number=number,
        state=state,
    )


async def _change(session: AsyncSession, version: SecretVersionRow) -> None:
    version.version += 1
    session.add(version)
    await session.flush()
    await session.execute(
        update(SecretVersionRow)
        .where(col(SecretVersionRow.id) == version.id)
        .values(updated_at=func.now())
    )
    await touch_secret(session, version.secret_id)


def _touched() -> dict[str, Any]:
    return {"version": SecretVersionRow.version + 1, "updated_at": func.now()}


def _touched_secret() -> dict[str, Any]:
    return {"version": SecretRow.version + 1, "updated_at": func.now()}
