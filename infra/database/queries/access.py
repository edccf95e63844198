"""Who a credential belongs to, and the workspace in which a transaction acts."""

from dataclasses import dataclass
from typing import Final

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import SCOPES_OF_ROLES, Caller, PrincipalKind, Role, Scope
from domain.identifiers import Prefix, is_id
from infra.database.statements import run_sql
from infra.database.tables import ApiTokenRow

_AUTHENTICATE = (
    "SELECT kind, principal_id, token_id, workspace_id, role, scopes, expired"
    " FROM authenticate(%(hash)s, %(context)s, %(resource)s)"
)
# Each token of such a chain has made the next one.
_MOST_MAKERS: Final = 32
_ACT_IN = "SELECT set_config('app.workspace_id', %(id)s, true)"


@dataclass(frozen=True, slots=True)
class Principal:
    """What `authenticate` found.

    Without `workspace_id` there is no access to the one asked for, or none was where it has to be.
    """

    kind: PrincipalKind
    principal_id: str
    token_id: str
    workspace_id: str | None
    role: Role | None
    scopes: frozenset[Scope]
    expired: bool


async def makers_of(session: AsyncSession, caller: Caller) -> list[str]:
    """Return who acts: the principal, and of a token whoever made it, up to a user.

    The last one is no user where a token was made by one that is gone.
    """
    makers = [caller.principal_id]
    while not is_id(Prefix.USER, makers[-1]) and len(makers) < _MOST_MAKERS:
        query = select(ApiTokenRow.created_by).where(ApiTokenRow.id == makers[-1])
        maker = (await session.exec(query)).one_or_none()
        if maker is None:
            break
        makers.append(maker)
    return makers


async def authenticate(
    session: AsyncSession, token_hash: bytes, *, context: str | None, resource: str | None
) -> Principal | None:
    """Look a credential up and bind the transaction to the workspace in which it acts.

    Args:
        session: a fresh transaction.
        token_hash: `domain.tokens.hash_of` the bearer token.
        context: the workspace that the request names, if it does; a user of several has to.
        resource: the id in the path; without `context` a user acts in the workspace that has it.

    Returns:
        None when there is no such credential.
    """
    found = (
        await run_sql(
            session,
            _AUTHENTICATE,
            {"hash": token_hash, "context": context, "resource": resource},
        )
    ).first()
    if found is None:
        return None
    return Principal(
        kind=PrincipalKind(found.kind),
        principal_id=found.principal_id,
        token_id=found.token_id,
        workspace_id=found.workspace_id,
        role=None if found.role is None else Role(found.role),
        scopes=_scopes_of(found.scopes, found.role),
        expired=found.expired,
    )


def _scopes_of(granted: list[str] | None, role: str | None) -> frozenset[Scope]:
    if granted is not None:
        return frozenset(Scope(name) for name in granted)
    return frozenset() if role is None else SCOPES_OF_ROLES[Role(role)]


async def act_in(session: AsyncSession, workspace_id: str | None) -> None:
    """Bind the rest of the transaction to another workspace; None: to none."""
    await run_sql(session, _ACT_IN, {"id": workspace_id or ""})
