"""A token of the workspace's own API: a new row beside the old one, with the same rights."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, opaque_part
from domain.quota import QuotaMetric
from domain.rotation import Rotation
from domain.secret import SecretValue
from domain.tokens import TokenKind, display_prefix_of, hash_of, is_well_formed, new_token
from infra.database.engine import Database
from infra.database.queries.quota import hold_quotas, read_quota, refuse_beyond
from infra.database.records.audit import add_audit_event
from infra.database.tables import ApiTokenRow
from infra.rotators.fields import RotatorSettings, read_settings

# Who makes and removes the tokens, in the audit log.
_ACTOR: Final = "secret-rotation"


class WorkspaceApiToken:
    """Copies a token's row: name, role, scopes, creator and end. Its value is the token.

    Row-level security lets it see the secret's workspace alone, so that a token of another one is
    as good as unknown.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings: there are none."""
        del secret_id
        return read_settings(RotatorSettings, settings).model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """The target is our own database."""
        del rotation, current

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Make a token that nobody accepts yet."""
        del rotation, current
        return SecretValue.of_text(new_token(TokenKind.WORKSPACE))

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Have the API accept it with the rights of the current one.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when the current value is no token of the workspace
                that is in force; QUOTA_EXCEEDED when the workspace has as many as it may.
        """
        token = pending.text()
        async with self._database.workspace(rotation.workspace_id) as session:
            await hold_quotas(session, rotation.workspace_id)
            old = await _in_force(session, current, "The current value")
            row_id = _row_id_of(rotation)
            made = await session.get(ApiTokenRow, (rotation.workspace_id, row_id))
            if made is not None and made.token_hash == hash_of(token):
                return
            if made is not None:
                await session.delete(made)
                await session.flush()
            refuse_beyond(await read_quota(session, QuotaMetric.API_TOKENS))
            session.add(
                ApiTokenRow(
                    workspace_id=rotation.workspace_id,
                    id=row_id,
                    name=old.name,
                    role=old.role,
                    scopes=old.scopes,
                    prefix=display_prefix_of(token),
                    token_hash=hash_of(token),
                    created_by=old.created_by,
                    expires_at=old.expires_at,
                )
            )
            _audit(session, rotation, "api_token.create", row_id, scopes=" ".join(old.scopes))

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Look the token up as the API does, by its hash."""
        async with self._database.workspace(rotation.workspace_id) as session:
            await _in_force(session, pending, "The new value")

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Remove the row that `set` made."""
        del pending, current
        async with self._database.workspace(rotation.workspace_id) as session:
            made = await session.get(ApiTokenRow, (rotation.workspace_id, _row_id_of(rotation)))
            await _remove(session, rotation, made)

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Remove the replaced token's row."""
        del replacement
        async with self._database.workspace(rotation.workspace_id) as session:
            await _remove(session, rotation, await _find(session, retired))


def _row_id_of(rotation: Rotation) -> str:
    """Return the new row's id, which a repetition and an undo find again."""
    return f"{Prefix.API_TOKEN}_{opaque_part(rotation.operation_id)}"


async def _find(session: AsyncSession, value: SecretValue) -> ApiTokenRow | None:
    try:
        token = value.data.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not is_well_formed(token):
        return None
    query = select(ApiTokenRow).where(ApiTokenRow.token_hash == hash_of(token))
    return (await session.exec(query)).one_or_none()


async def _in_force(session: AsyncSession, value: SecretValue, what: str) -> ApiTokenRow:
    row = await _find(session, value)
    if row is None or (row.expires_at is not None and row.expires_at <= datetime.now(UTC)):
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            f"{what} is no token of this workspace that is in force: it was revoked, has ended, or "
            "belongs elsewhere. Add a version with a token that the API accepts, make it "
            "`current`, and rotate again.",
        )
    return row


async def _remove(session: AsyncSession, rotation: Rotation, row: ApiTokenRow | None) -> None:
    if row is not None:
        await session.delete(row)
        _audit(session, rotation, "api_token.delete", row.id)


def _audit(
    session: AsyncSession, rotation: Rotation, action: str, token_id: str, **details: str
) -> None:
    add_audit_event(
        session,
        system_caller(rotation.workspace_id, _ACTOR),
        action,
        "api_token",
        token_id,
        details={
            "operation_id": rotation.operation_id,
            "secret_id": rotation.secret_id,
            **details,
        },
    )
