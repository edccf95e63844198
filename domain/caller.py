"""Who asks: carried from the request into every workflow input and audit line."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a principal may do in a workspace; each role may do all that the later ones may."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


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
