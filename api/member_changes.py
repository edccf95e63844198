"""What requests change about the members of a workspace: rules, rows and audit lines.

Each function runs in the request's transaction; those that may take a right away hold the
workspace, so that two owners never remove each other.
"""

from sqlalchemy.exc import IntegrityError

from api.scope import RequestScope
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from infra.database.queries.member import (
    count_owners,
    find_member,
    insert_member,
    remove_tokens_made_by,
)
from infra.database.queries.workspace import find_workspace
from infra.database.tables import WorkspaceMemberRow


async def add(scope: RequestScope, user_id: str, role: Role) -> WorkspaceMemberRow:
    """Make a user a member.

    Raises:
        BulkheadError: CONFLICT for who is one already; INVALID_ARGUMENT for who is no user.
    """
    try:
        member = await insert_member(scope.session, scope.caller.workspace_id, user_id, role)
    except IntegrityError:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "There is no such user; the operator of the platform makes users.",
            path=("body", "user_id"),
        ) from None
    if member is None:
        raise BulkheadError(
            Reason.CONFLICT,
            "This user is a member already; change their role instead.",
            path=("body", "user_id"),
        )
    scope.audit("member.add", "member", member.id, user_id=user_id, role=role)
    return member


async def change(scope: RequestScope, user_id: str, role: Role) -> WorkspaceMemberRow:
    """Give a member another role.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION for the last owner.
    """
    member = await _hold(scope, user_id)
    if member.role is role:
        return member
    if role is Role.MEMBER or member.role is Role.OWNER:
        await _lose_rights(scope, member)
    scope.audit(
        "member.update", "member", member.id, user_id=member.user_id, role=role, was=member.role
    )
    member.role = role
    await scope.session.flush()
    return member


async def remove(scope: RequestScope, user_id: str) -> None:
    """Remove a member.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION for the last owner.
    """
    member = await _hold(scope, user_id)
    await _lose_rights(scope, member)
    scope.audit("member.remove", "member", member.id, user_id=member.user_id, was=member.role)
    await scope.session.delete(member)
    await scope.session.flush()


async def _hold(scope: RequestScope, user_id: str) -> WorkspaceMemberRow:
    await find_workspace(scope.session, scope.caller.workspace_id, lock=True)
    member = None
    if is_id(Prefix.USER, user_id):
        member = await find_member(scope.session, scope.caller.workspace_id, user_id)
    if member is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "There is no such member in this workspace.",
            path=("path", "userId"),
        )
    return member


async def _lose_rights(scope: RequestScope, member: WorkspaceMemberRow) -> None:
    """Take the tokens that a member made: they act as admins, for whoever knows them."""
    if member.role is Role.OWNER and await count_owners(scope.session, member.workspace_id) == 1:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "This is the workspace's last owner, who stays it; the operator of the platform makes "
            "another one.",
            path=("path", "userId"),
        )
    for token_id in await remove_tokens_made_by(scope.session, member):
        scope.audit("api_token.delete", "api_token", token_id, made_by=member.user_id)
