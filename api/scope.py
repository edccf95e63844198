"""A request's transaction: who asks, in which workspace, and what happens after its commit."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

import structlog
from fastapi import Depends, Header, Request
from sqlmodel.ext.asyncio.session import AsyncSession

from api.clients import Clients
from api.fields import not_found
from domain.audit_budget import AuditBudget
from domain.caller import Caller, PrincipalKind, Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.tokens import hash_of, is_well_formed
from infra.database.queries.access import Principal, authenticate
from infra.database.queries.secret import find_secret
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import NewRows

_logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_RANKS = {Role.MEMBER: 0, Role.ADMIN: 1, Role.OWNER: 2}

_RESOURCE_PREFIXES = {
    str(prefix): prefix
    for prefix in (
        Prefix.API_TOKEN,
        Prefix.CLUSTER,
        Prefix.COMPUTE_CONFIG,
        Prefix.EMERGENCY_STOP,
        Prefix.GRANT,
        Prefix.INSTALL,
        Prefix.MACHINE,
        Prefix.OPERATION,
        Prefix.PACKAGE,
        Prefix.PRODUCT,
        Prefix.REGION,
        Prefix.REGISTRY_CONNECTION,
        Prefix.ROLLOUT,
        Prefix.SECRET,
        Prefix.WORKSPACE,
    )
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried, as the audit log names it; without an id it is the workspace's."""

    action: str
    resource_type: str
    resource_id: str = ""


@dataclass(slots=True)
class RequestScope:
    """What a route works with.

    Attributes:
        session: the request's transaction, bound to the caller's workspace.
        caller: who asks. Its workspace is empty only where `may_lack_workspace` was said.
        clients: the process's connections.
        scopes: what the credential may do with secrets.
        rows: new rows; those that are not written yet are written before the commit.
        after_commit: what to do once everything is stored; a failure there is logged, for the
            outbox does it again.
    """

    session: AsyncSession
    caller: Caller
    clients: Clients
    scopes: frozenset[SecretScope]
    rows: NewRows = field(default_factory=NewRows)
    after_commit: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _denial: Attempt | None = None

    def require(
        self, least: Role, action: str, *, resource_type: str, resource_id: str = ""
    ) -> None:
        """Refuse a caller of a lower role, and have the attempt audited.

        Raises:
            BulkheadError: PERMISSION_DENIED, with what would be needed.
        """
        if _RANKS[self.caller.role] >= _RANKS[least]:
            return
        self.deny(action, resource_type, resource_id)
        held = f"This credential acts as {self.caller.role}"
        if self.caller.kind is PrincipalKind.API_TOKEN:
            held += ", as every token of a workspace does; use a user's own token"
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            f"`{action}` needs the role {least} in the workspace. {held}.",
            metadata={"required_role": least},
        )

    def require_scope(
        self, scope: SecretScope, action: str, *, resource_type: str, resource_id: str = ""
    ) -> None:
        """Refuse a credential that was not given a scope, and have the attempt audited.

        Raises:
            BulkheadError: PERMISSION_DENIED, with the scope that would be needed.
        """
        if scope in self.scopes:
            return
        self.deny(action, resource_type, resource_id)
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            f"`{action}` needs the scope {scope}, which this credential does not have. An owner "
            "gives scopes to a token when it is made; none implies another.",
            metadata={"required_scope": scope},
        )

    def deny(self, action: str, resource_type: str, resource_id: str = "") -> None:
        """Have the attempt audited as denied when the request now fails.

        What is no id of ours is left out: a path can hold any text, and the log takes none of it.
        """
        self._denial = Attempt(action, resource_type, resource_id)

    def audit(
        self, action: str, resource_type: str, resource_id: str, **details: str | int | None
    ) -> None:
        """Add the audit line of what this transaction does."""
        add_audit_event(
            self.rows, self.caller, action, resource_type, resource_id, details=dict(details)
        )


@asynccontextmanager
async def open_scope(
    request: Request,
    context: str | None,
    *,
    may_lack_workspace: bool = False,
    token: str | None = None,
    resource: str | None = None,
    attempt: Attempt | None = None,
) -> AsyncIterator[RequestScope]:
    """Open a request's transaction; commit at the end, or roll back and audit a refusal.

    Args:
        request: carries the bearer token, and the id in its path if there is one.
        context: the `Akua-Context` header.
        may_lack_workspace: a user who has no workspace yet may pass.
        token: the caller's, where it does not come as a bearer token.
        resource: the id that the request is about, where its path does not have it.
        attempt: what is audited also of a credential that is known and may not act here.

    Raises:
        BulkheadError: UNAUTHENTICATED, PERMISSION_DENIED for a workspace that is not the caller's,
            or DEPENDENCY_UNAVAILABLE.
    """
    clients: Clients = request.app.state.clients
    token = _bearer_token_of(request) if token is None else _checked_token(token)
    resource = resource or request.path_params.get("id")
    scope: RequestScope | None = None
    try:
        async with clients.database.transaction() as session:
            principal = await authenticate(
                session,
                hash_of(token),
                context=_checked_context(context),
                resource=_checked_resource(resource),
            )
            caller = _caller_of(request, principal, context, resource, may_lack_workspace)
            # Without a principal there is no caller, and that was raised.
            scopes = frozenset() if principal is None else principal.scopes
            scope = RequestScope(session, caller, clients, scopes)
            yield scope
            await scope.rows.write(session)
    except BulkheadError as error:
        if scope is not None and scope._denial is not None:  # noqa: SLF001 - this module's own
            await _record_denial(request, clients, scope.caller, scope._denial, error.reason)  # noqa: SLF001 - the same
        elif scope is None and attempt is not None:
            await record_stranger(request, clients, token, resource, attempt, error.reason)
        raise
    for hook in scope.after_commit:
        await run_after_commit(hook)


async def _scope(
    request: Request,
    akua_context: Annotated[
        str | None,
        Header(max_length=53, description="The workspace in which the request acts."),
    ] = None,
) -> AsyncIterator[RequestScope]:
    async with open_scope(request, akua_context) as scope:
        yield scope


async def _user_scope(
    request: Request,
    akua_context: Annotated[str | None, Header(max_length=53)] = None,
) -> AsyncIterator[RequestScope]:
    async with open_scope(request, akua_context, may_lack_workspace=True) as scope:
        yield scope


async def _context(
    akua_context: Annotated[str | None, Header(max_length=53)] = None,
) -> str | None:
    return akua_context


# "function": the transaction ends before the answer is sent, so that what an answer says is
# stored, and a commit that fails is answered as a failure.
Scope = Annotated[RequestScope, Depends(_scope, scope="function")]
UserScope = Annotated[RequestScope, Depends(_user_scope, scope="function")]

# For routes that wait for something else in between, and so open transactions themselves.
Context = Annotated[str | None, Depends(_context)]


def _bearer_token_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise _unauthenticated(message="Send a token: `Authorization: Bearer <token>`.")
    return _checked_token(token)


def _checked_token(token: str) -> str:
    if not is_well_formed(token):
        raise _unauthenticated(message="This is not a token of this platform, or a mistyped one.")
    return token


def _checked_context(context: str | None) -> str | None:
    if context is not None and not is_id(Prefix.WORKSPACE, context):
        raise _no_access()
    return context


def _checked_resource(resource: str | None) -> str | None:
    prefix = None if resource is None else _RESOURCE_PREFIXES.get(resource.partition("_")[0])
    return resource if resource and prefix and is_id(prefix, resource) else None


def _caller_of(
    request: Request,
    principal: Principal | None,
    context: str | None,
    resource: str | None,
    may_lack_workspace: bool,  # noqa: FBT001 - passed on
) -> Caller:
    if principal is None:
        raise _unauthenticated(message="This token is unknown or revoked.")
    if principal.expired:
        raise _unauthenticated(message="This token has expired; create a new one.")
    if principal.workspace_id is None:
        if context is not None:
            raise _no_access()
        if resource is not None:
            raise not_found(_RESOURCE_PREFIXES.get(resource.partition("_")[0], Prefix.WORKSPACE))
        if not may_lack_workspace:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "Name the workspace in which to act by the header Akua-Context: with the terminal "
                "client, --workspace. GET /v1/workspaces has those that this token reaches.",
                path=("header", "akua-context"),
                status=400,
            )
    request.state.caller = {
        "workspace_id": principal.workspace_id,
        "principal_id": principal.principal_id,
    }
    return _as_caller(request, principal)


def _as_caller(request: Request, principal: Principal) -> Caller:
    return Caller(
        kind=principal.kind,
        principal_id=principal.principal_id,
        workspace_id=principal.workspace_id or "",
        role=principal.role or Role.MEMBER,
        token_id=principal.token_id,
        request_id=request.state.request_id,
    )


async def _record_denial(
    request: Request, clients: Clients, caller: Caller, denial: Attempt, reason: Reason
) -> None:
    """Write a denial down; of what is tried all the time, how often.

    Each secret that exists is counted for itself, so that nobody hides what they try among what is
    not there; all else is counted together, whatever it is tried with.
    """
    denials: AuditBudget = request.app.state.denials
    resource_id = _checked_resource(denial.resource_id) or caller.workspace_id
    key = f"{caller.principal_id} {caller.token_id} {denial.action}"
    if await _is_secret(clients, caller, denial, resource_id):
        key += f" {resource_id}"
    times = denials.take(key)
    if times is None:
        return
    async with clients.database.workspace(caller.workspace_id) as session:
        add_audit_event(
            session,
            caller,
            denial.action,
            denial.resource_type,
            resource_id,
            outcome="denied",
            details={"reason": reason, "times_within_the_hour": times},
        )


async def _is_secret(clients: Clients, caller: Caller, denial: Attempt, resource_id: str) -> bool:
    if denial.resource_type != "secret":
        return False
    async with clients.database.workspace(caller.workspace_id) as session:
        return await find_secret(session, resource_id) is not None


async def record_stranger(
    request: Request,
    clients: Clients,
    token: str,
    resource: str | None,
    attempt: Attempt,
    reason: Reason,
) -> None:
    """Write down what a known credential tried with which nobody may act here, where it belongs.

    One that has ended, or names a workspace that is not its own.
    """
    if reason is Reason.DEPENDENCY_UNAVAILABLE:
        return
    async with clients.database.transaction() as session:
        own = _checked_resource(resource)
        principal = await authenticate(session, hash_of(token), context=None, resource=own)
    if principal is not None and principal.workspace_id is not None:
        caller = _as_caller(request, principal)
        await _record_denial(request, clients, caller, attempt, reason)


async def run_after_commit(hook: Callable[[], Awaitable[None]]) -> None:
    """Do what comes after a commit; what fails of it is logged, and left to the outbox."""
    try:
        await hook()
    except BulkheadError as error:
        _logger.warning("left to the outbox", reason=error.reason, message=error.message)


def _unauthenticated(*, message: str) -> BulkheadError:
    return BulkheadError(Reason.UNAUTHENTICATED, message, path=("header", "authorization"))


def _no_access() -> BulkheadError:
    return BulkheadError(
        Reason.PERMISSION_DENIED,
        "This credential has no access to the workspace that Akua-Context names.",
        path=("header", "akua-context"),
    )
