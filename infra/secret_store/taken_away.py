"""What was taken away since a backup was made is taken away again after its restore.

A restore keeps the audit log, and the line of each change is written with it: where the last line
about a thing says that it was taken away, and the thing is there, a restore has brought it back.
"""

from typing import Final

from sqlalchemy import TextClause, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller
from domain.secret import SecretState, VersionState
from infra.database.records.audit import add_audit_event
from infra.database.records.secret import (
    begin_destroying,
    begin_purging,
    soft_delete,
    switch_version,
)
from infra.database.tables import SecretRow, SecretVersionRow

# No id is given twice, so that one that was revoked stays so.
REVOKED_TOKENS: Final = """
DELETE FROM api_tokens t USING audit_events a
WHERE a.workspace_id = t.workspace_id AND a.resource_id = t.id
    AND a.action = 'api_token.delete' AND a.outcome = 'allowed'
RETURNING t.id
"""

_DESTROYED: Final = text("""
SELECT v.id FROM secret_versions v WHERE v.state IN ('enabled', 'disabled') AND EXISTS (
    SELECT FROM audit_events a WHERE a.workspace_id = v.workspace_id
        AND a.action = 'secret_version.destroy' AND a.outcome = 'allowed'
        AND a.resource_id = v.secret_id AND a.details ->> 'version_id' = v.id)
""")

_DISABLED: Final = text("""
WITH last AS (
    SELECT DISTINCT ON (a.details ->> 'version_id')
        a.workspace_id, a.details ->> 'version_id' AS version_id, a.action
    FROM audit_events a
    WHERE a.action IN ('secret_version.disable', 'secret_version.enable')
        AND a.outcome = 'allowed'
    ORDER BY a.details ->> 'version_id', a.id DESC
)
SELECT v.id FROM secret_versions v
JOIN last ON last.workspace_id = v.workspace_id AND last.version_id = v.id
WHERE v.state = 'enabled' AND last.action = 'secret_version.disable'
""")

# A schedule's lines say `succeeded`.
_DELETED: Final = text("""
WITH last AS (
    SELECT DISTINCT ON (a.resource_id) a.workspace_id, a.resource_id, a.action,
        a.action IN ('secret.approve_purge', 'secret.begin_purge')
            OR coalesce(a.details ->> 'force' = 'true', false) AS for_good
    FROM audit_events a
    WHERE a.action IN ('secret.delete', 'secret.undelete', 'secret.expire',
            'secret.approve_purge', 'secret.begin_purge')
        AND a.outcome IN ('allowed', 'succeeded')
    ORDER BY a.resource_id, a.id DESC
)
SELECT s.id, last.for_good FROM secrets s
JOIN last ON last.workspace_id = s.workspace_id AND last.resource_id = s.id
WHERE last.action <> 'secret.undelete'
    AND (s.state = 'active' OR (s.state = 'soft_deleted' AND last.for_good))
""")


async def take_away_again(session: AsyncSession, caller: Caller) -> None:
    """Repeat in the caller's workspace what a restore has undone; repeated, it finds nothing.

    Of versions that are destroyed here the values go next.
    """
    for version in await _versions(session, _DESTROYED):
        await begin_destroying(session, version)
        _audit_version(session, caller, "secret_version.destroy_again", version)
    for version in await _versions(session, _DISABLED):
        await switch_version(session, version, VersionState.DISABLED)
        _audit_version(session, caller, "secret_version.disable_again", version)
    for secret_id, for_good in (await session.execute(_DELETED)).all():
        await _delete(session, caller, secret_id, for_good=for_good)
    for token_id in (await session.execute(text(REVOKED_TOKENS))).scalars().all():
        _audit(session, caller, "api_token.delete_again", "api_token", token_id)


async def _versions(session: AsyncSession, ids: TextClause) -> list[SecretVersionRow]:
    version_ids = (await session.execute(ids)).scalars().all()
    query = select(SecretVersionRow).where(col(SecretVersionRow.id).in_(version_ids))
    return list(await session.exec(query.with_for_update()))


async def _delete(session: AsyncSession, caller: Caller, secret_id: str, *, for_good: bool) -> None:
    query = select(SecretRow).where(SecretRow.id == secret_id).with_for_update()
    secret = (await session.exec(query)).one_or_none()
    if secret is None:
        return
    if for_good:
        await begin_purging(session, secret.id)
    elif secret.state is SecretState.ACTIVE:
        await soft_delete(session, secret)
    else:
        return
    details = {"for_good": str(for_good).lower()}
    _audit(session, caller, "secret.delete_again", "secret", secret.id, **details)


def _audit_version(
    session: AsyncSession, caller: Caller, action: str, version: SecretVersionRow
) -> None:
    _audit(
        session,
        caller,
        action,
        "secret",
        version.secret_id,
        version_id=version.id,
        version_number=version.number,
    )


def _audit(
    session: AsyncSession,
    caller: Caller,
    action: str,
    resource_type: str,
    resource_id: str,
    **details: str | int,
) -> None:
    add_audit_event(
        session, caller, action, resource_type, resource_id, outcome="succeeded", details=details
    )
