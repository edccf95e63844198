"""Who asks: carried from the request into every workflow input and audit line."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a principal may do in a workspace; each role may do all that the later ones may."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class Scope(StrEnum):
    """What a credential may do with secrets; none implies another."""

    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    SECRETS_ACCESS = "secrets:access"


# A user's own token has the scopes of the user's role; a workspace's token those it was given.
SCOPES_OF_ROLES: Final = {
    Role.OWNER: frozenset(Scope),
    Role.ADMIN: frozenset({Scope.SECRETS_READ, Scope.SECRETS_WRITE}),
    Role.MEMBER: frozenset({Scope.SECRETS_READ}),
}


class PrincipalKind(StrEnum):
    """What stands behind a credential."""

    USER = "user"
    API_TOKEN = "api_token"  # noqa: S105 - the name of a kind, not a credential
    SYSTEM = "system"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The authenticated principal and the workspace in which it acts.

    `token_id` is the credential used (None for the platform's own schedules); `principal_id` is
    the user's id, the API token's id, or the name of a schedule.
    """

    kind: PrincipalKind
    principal_id: str
    workspace_id: str
    role: Role
    token_id: str | None = None
    request_id: str | None = None


def system_caller(workspace_id: str, schedule: str) -> Caller:
    """Return the caller under whose name a schedule of the platform acts in a workspace."""
    return Caller(
        kind=PrincipalKind.SYSTEM,
        principal_id=schedule,
        workspace_id=workspace_id,
        role=Role.OWNER,
    )
