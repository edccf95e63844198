"""Secrets, their versions, and who uses them, as the caller's workspace sees them."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeVarTuple

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy import case as sql_case
from sqlmodel import col
from sqlmodel import select as select_rows
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.secret import (
    LATEST,
    VISIBLE_VERSION_STATES,
    SecretState,
    VersionState,
    is_alias,
)
from infra.database.tables import (
    SecretReferenceRow,
    SecretRotationRow,
    SecretRow,
    SecretVersionRow,
)

_Columns = TypeVarTuple("_Columns")

# What the contract shows; the others exist for the platform only.
_SHOWN: Final = (SecretState.ACTIVE, SecretState.SOFT_DELETED)


def is_shown() -> ColumnElement[bool]:
    """Return the condition that a secret can be seen through the API."""
    return col(SecretRow.state).in_(_SHOWN)


def is_visible_version() -> ColumnElement[bool]:
    """Return the condition that a version can be seen through the API."""
    return col(SecretVersionRow.state).in_(VISIBLE_VERSION_STATES)


class VersionSelection(Enum):
    """In which way a version is named."""

    ID = auto()
    LATEST = auto()
    ALIAS = auto()
    NONE = auto()

    @classmethod
    def of(cls, selector: str) -> "VersionSelection":
        """Return how a selector names a version."""
        if is_id(Prefix.SECRET_VERSION, selector):
            return cls.ID
        if selector == LATEST:
            return cls.LATEST
        return cls.ALIAS if is_alias(selector) else cls.NONE


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """How many versions of a secret can be seen, and how many of them are enabled."""

    all: int = 0
    enabled: int = 0


async def find_secret(
    session: AsyncSession, secret_id: str, *, lock: bool = False
) -> SecretRow | None:
    """Read a secret that is shown; with `lock` nobody else changes it or its versions."""
    query = select_rows(SecretRow).where(col(SecretRow.id) == secret_id, is_shown())
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def find_version(
    session: AsyncSession, secret_id: str, version_id: str
) -> SecretVersionRow | None:
    """Read a version that is shown."""
    query = select_rows(SecretVersionRow).where(
        col(SecretVersionRow.secret_id) == secret_id,
        col(SecretVersionRow.id) == version_id,
        is_visible_version(),
    )
    return (await session.exec(query)).one_or_none()


async def find_version_numbered(
    session: AsyncSession, secret_id: str, number: int
) -> SecretVersionRow | None:
    """Read the version of a number, if it is shown."""
    query = select_rows(SecretVersionRow).where(
        col(SecretVersionRow.secret_id) == secret_id,
        col(SecretVersionRow.number) == number,
        is_visible_version(),
    )
    return (await session.exec(query)).one_or_none()


async def count_versions(session: AsyncSession, secret_ids: list[str]) -> dict[str, VersionCounts]:
    """Count the versions of secrets; a secret without any is left out."""
    enabled = sql_case((col(SecretVersionRow.state) == VersionState.ENABLED, 1), else_=0)
    query = (
        select(
            col(SecretVersionRow.secret_id),
            func.count(),
            func.coalesce(func.sum(enabled), 0).cast(Integer),
        )
        .where(col(SecretVersionRow.secret_id).in_(secret_ids), is_visible_version())
        .group_by(col(SecretVersionRow.secret_id))
    )
    return {
        secret_id: VersionCounts(total, active)
        for secret_id, total, active in (await session.execute(query))
    }


async def select_readable(
    session: AsyncSession, secret_id: str, selector: str, *, past_end: bool = False
) -> tuple[SecretRow, SecretVersionRow]:
    """Return the version whose value may be read by an id, `latest`, or an alias.

    `latest` is the highest version that can be seen: when that one is disabled or destroyed, no
    older value takes its place. With `past_end` a secret whose time is over is read too.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION, 409 for a disabled version and 410 for a
            destroyed one.
    """
    columns = select(SecretRow, SecretVersionRow)
    query = readable_versions(columns, VersionSelection.of(selector), past_end=past_end)
    found = (await session.execute(query, _named(secret_id, selector))).first()
    if found is None:
        raise no_readable_secret()
    secret, version = found
    # An outer join finds no version where the types say there is one.
    check_readable(*((None, None) if version is None else (version.number, version.state)))
    return secret, version


async def find_rotation(session: AsyncSession, secret_id: str) -> SecretRotationRow | None:
    """Read how a secret rotates, if it does."""
    query = select_rows(SecretRotationRow).where(col(SecretRotationRow.secret_id) == secret_id)
    return (await session.exec(query)).one_or_none()


async def find_reference(
    session: AsyncSession, secret_id: str, consumer_type: str, consumer_id: str
) -> SecretReferenceRow | None:
    """Read what is known of one consumer of a secret."""
    query = select_rows(SecretReferenceRow).where(
        col(SecretReferenceRow.secret_id) == secret_id,
        col(SecretReferenceRow.consumer_type) == consumer_type,
        col(SecretReferenceRow.consumer_id) == consumer_id,
    )
    return (await session.exec(query)).one_or_none()


async def references_of(
    session: AsyncSession,
    secret_id: str,
    *conditions: ColumnElement[bool],
    after: tuple[str, str] | None = None,
    limit: int | None = None,
) -> list[SecretReferenceRow]:
    """Return who uses a secret, by the type and the id of the consumer.

    Args:
        session: bound to the workspace.
        secret_id: which secret.
        conditions: such as `would_miss`.
        after: the type and the id of the consumer that the first one follows.
        limit: how many at most.
    """
    order = (col(SecretReferenceRow.consumer_type), col(SecretReferenceRow.consumer_id))
    query = (
        select_rows(SecretReferenceRow)
        .where(col(SecretReferenceRow.secret_id) == secret_id, *conditions)
        .order_by(*order)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return list(await session.exec(query))


def would_miss(version: int, current: int | None) -> ColumnElement[bool]:
    """Return the condition that a consumer would miss the version of this number.

    It is pinned to it, follows `current` which it is, or may still work with it: it is what it
    used last, or lies between what it acknowledged last and `current`, and it did not acknowledge
    a newer one.
    """
    acknowledged = func.coalesce(col(SecretReferenceRow.acknowledged_number), 0)
    pinned = col(SecretReferenceRow.version_number)
    may_be_behind = and_(
        col(SecretReferenceRow.acknowledges).is_(True),
        acknowledged <= version,
        func.greatest(acknowledged, current or 0) >= version,
    )
    follows = may_be_behind if version != current else true()
    return or_(
        and_(col(SecretReferenceRow.last_used_number) == version, acknowledged <= version),
        pinned == version,
        and_(pinned.is_(None), follows),
    )


def _named(secret_id: str, selector: str) -> dict[str, str]:
    return {"secret": secret_id, "selector": selector}


def readable_versions(
    query: Select[*_Columns], selection: VersionSelection, *, past_end: bool = False
) -> Select[*_Columns]:
    """Return the query for one row: a secret that may be read, and the version that is named.

    Its parameters are `secret` and `selector`. Without such a version its columns are NULL.
    """
    return (
        query.select_from(SecretRow)
        .outerjoin(
            SecretVersionRow,
            and_(
                col(SecretVersionRow.workspace_id) == col(SecretRow.workspace_id),
                col(SecretVersionRow.secret_id) == col(SecretRow.id),
                is_visible_version(),
                _is_selected(selection),
            ),
        )
        .where(
            col(SecretRow.id) == bindparam("secret"),
            col(SecretRow.state) == SecretState.ACTIVE,
            true() if past_end else func.coalesce(col(SecretRow.expires_at) > func.now(), True),
        )
        .order_by(col(SecretVersionRow.number).desc())
        .limit(1)
    )


def no_readable_secret() -> BulkheadError:
    """Return the failure for a secret that is unknown, deleted or expired."""
    return BulkheadError(
        Reason.NOT_FOUND,
        "There is no such secret in this workspace, or it was deleted or has expired.",
        path=("path", "id"),
    )


def _is_selected(selection: VersionSelection) -> ColumnElement[bool]:
    selector = bindparam("selector", type_=Text)
    match selection:
        case VersionSelection.ID:
            return col(SecretVersionRow.id) == selector
        case VersionSelection.LATEST:
            # The highest comes first, and one row is taken.
            return col(SecretVersionRow.number) > 0
        case VersionSelection.ALIAS:
            number = func.jsonb_extract_path_text(col(SecretRow.aliases), selector)
            return col(SecretVersionRow.number) == number.cast(Integer)
        case VersionSelection.NONE:
            return false()


def check_readable(number: int | None, state: VersionState | None) -> None:
    """Return when the value of a version may be read.

    Raises:
        BulkheadError: as `select_readable`.
    """
    if number is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "The secret has no such version and no such alias. A version is named by its id, by an "
            "alias such as `current`, or as `latest`, and not by its number: the list of versions "
            "(`bulkhead secrets versions`) has the id of each number.",
            path=("path", "vid"),
        )
    if state is VersionState.DISABLED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {number} is disabled; enable it, or read another one.",
            path=("path", "vid"),
            metadata={"state": "disabled"},
        )
    if state is not VersionState.ENABLED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {number} was destroyed; its value is gone for good.",
            path=("path", "vid"),
            metadata={"state": "destroyed"},
            status=410,
        )
