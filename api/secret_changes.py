"""What requests change about secrets: rules, rows and audit lines; never a value.

Each function runs in the request's transaction and takes the secret's row lock first.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from api.credential_waiters import wake_waiters_of
from api.credentials_in_use import refuse_needed_secret
from api.fields import check_etag, check_id, not_found
from api.scope import RequestScope
from domain.caller import PrincipalKind, Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.secret import (
    CLOUD_KINDS,
    CURRENT,
    GRANTING_ROTATORS,
    MAXIMUM_ALIASES,
    PREVIOUS,
    SecretState,
    VersionState,
    check_alias,
)
from infra.database.queries.secret import (
    VersionCounts,
    count_versions,
    find_rotation,
    find_secret,
    find_version_numbered,
)
from infra.database.queries.workspace import find_workspace
from infra.database.records.secret import begin_purging, name_is_taken, restore, soft_delete
from infra.database.tables import SecretRow

_ALIASES: Final = ("body", "version_aliases")
_SYSTEM_ALIASES: Final = frozenset({CURRENT, PREVIOUS})


async def hold(
    scope: RequestScope,
    secret_id: str,
    if_match: str | None = None,
    *,
    states: Collection[SecretState] = (SecretState.ACTIVE,),
) -> SecretRow:
    """Lock a secret in one of the states; a deleted one can be seen and restored, and nothing else.

    Raises:
        BulkheadError: NOT_FOUND, or ABORTED for another etag.
    """
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id), lock=True)
    if secret is None or secret.state not in states:
        raise not_found(Prefix.SECRET)
    if if_match is not None:
        check_etag(if_match, secret.version)
    return secret


async def counts_of(scope: RequestScope, secret: SecretRow) -> VersionCounts:
    """Count a secret's versions."""
    return (await count_versions(scope.session, [secret.id])).get(secret.id, VersionCounts())


async def change(
    scope: RequestScope, secret_id: str, if_match: str, changes: dict[str, Any]
) -> SecretRow:
    """Write what a PATCH asks for; aliases are merged, labels replaced.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT for a name that is taken, INVALID_ARGUMENT or
            FAILED_PRECONDITION for an alias; PERMISSION_DENIED for another `current` of a secret
            whose rotation copies the rights of that.
    """
    secret = await hold(scope, secret_id, if_match)
    if "aliases" in changes:
        changes["aliases"] = await _merged_aliases(scope, secret, changes["aliases"])
        if changes["aliases"][CURRENT] != secret.aliases[CURRENT]:
            await _require_grantor(scope, secret)
            if secret.kind in CLOUD_KINDS:
                # What is known is about the value that was current.
                changes["validation"] = None
    changed = {name for name, value in changes.items() if getattr(secret, name) != value}
    if not changed:
        return secret
    for name in changed:
        setattr(secret, name, changes[name])
    _touch(secret)
    try:
        await scope.session.flush()
    except IntegrityError:
        raise name_is_taken() from None
    if changed & {"aliases", "expires_at"}:
        await wake_waiters_of(scope, secret.id)
    scope.audit("secret.update", "secret", secret.id, **_facts(secret, changed))
    return secret


async def delete(scope: RequestScope, secret_id: str, if_match: str, *, force: bool) -> str | None:
    """Delete a secret so that it can be restored, or with `force` for good, a deleted one too.

    Its consumers do not keep it: what is deleted comes back with a restore. A deletion that cannot
    be taken back needs the policy's leave.

    Returns:
        The id of a secret that is to be purged now; None: it can be restored.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, or PERMISSION_DENIED for a force that the workspace's
            policy does not allow; FAILED_PRECONDITION, whatever force says, while machines exist
            that need it.
    """
    states = {SecretState.ACTIVE, *({SecretState.SOFT_DELETED} if force else ())}
    secret = await hold(scope, secret_id, if_match, states=states)
    await refuse_needed_secret(scope, secret)
    if force:
        await check_force_allowed(scope, "secret.delete", secret.id)
        secret.purge_requested_by = scope.caller.principal_id
        secret.purge_requested_at = datetime.now(UTC)
        await begin_purging(scope.session, secret.id)
    else:
        await soft_delete(scope.session, secret)
    scope.audit("secret.delete", "secret", secret.id, force=str(force).lower())
    return secret.id if force else None


async def undelete(scope: RequestScope, secret_id: str, if_match: str) -> SecretRow:
    """Restore a deleted secret.

    Raises:
        BulkheadError: NOT_FOUND when the time for it is over; ABORTED; FAILED_PRECONDITION for a
            secret that is not deleted.
    """
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id), lock=True)
    if secret is None:
        raise not_found(Prefix.SECRET)
    check_etag(if_match, secret.version)
    if secret.state is SecretState.ACTIVE:
        raise BulkheadError(Reason.FAILED_PRECONDITION, "The secret is not deleted.")
    if not await restore(scope.session, secret.id):
        raise not_found(Prefix.SECRET)
    await scope.session.refresh(secret)
    scope.audit("secret.undelete", "secret", secret.id)
    return secret


async def request_purge(scope: RequestScope, secret_id: str, name: str) -> SecretRow:
    """Ask that a deleted secret is purged before its time.

    Raises:
        BulkheadError: NOT_FOUND; PERMISSION_DENIED for who is not a user; INVALID_ARGUMENT for
            another name than the secret's.
    """
    secret = await _hold_for_purge(scope, secret_id, name)
    secret.purge_requested_by = scope.caller.principal_id
    secret.purge_requested_at = datetime.now(UTC)
    _touch(secret)
    scope.audit("secret.request_purge", "secret", secret.id)
    return secret


async def approve_purge(scope: RequestScope, secret_id: str, name: str) -> str:
    """Approve what another person asked for: from here on the secret cannot be restored.

    Returns:
        The id of the secret that is to be purged now.

    Raises:
        BulkheadError: as `request_purge`; FAILED_PRECONDITION when nobody asked for it;
            PERMISSION_DENIED for the person who did.
    """
    secret = await _hold_for_purge(scope, secret_id, name)
    if secret.purge_requested_by is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Nobody asked for this purge; another person does that with :requestPurge first.",
        )
    if secret.purge_requested_by == scope.caller.principal_id:
        scope.deny("secret.approve_purge", "secret", secret.id)
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            "You asked for this purge yourself; another owner has to approve it.",
        )
    scope.audit("secret.approve_purge", "secret", secret.id, requested_by=secret.purge_requested_by)
    secret.purge_approved_by = scope.caller.principal_id
    await begin_purging(scope.session, secret.id)
    return secret.id


async def check_force_allowed(scope: RequestScope, action: str, secret_id: str) -> None:
    """Refuse a force that the workspace's policy does not allow, and have the attempt audited.

    Raises:
        BulkheadError: PERMISSION_DENIED.
    """
    workspace = await find_workspace(scope.session, scope.caller.workspace_id)
    if workspace is not None and workspace.secret_force_allowed:
        return
    scope.deny(action, "secret", secret_id)
    raise BulkheadError(
        Reason.PERMISSION_DENIED,
        "The workspace's secret policy does not allow force; an owner can change `force_allowed`.",
        path=("query", "force"),
        metadata={"policy": "force_allowed"},
    )


async def _hold_for_purge(scope: RequestScope, secret_id: str, name: str) -> SecretRow:
    if scope.caller.kind is not PrincipalKind.USER:
        scope.deny("secret.purge", "secret", check_id(Prefix.SECRET, secret_id))
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            "A purge is asked for and approved by two persons; this is a workspace's token.",
        )
    secret = await hold(scope, secret_id, states=(SecretState.SOFT_DELETED,))
    if name != secret.name:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This is not the name of the secret; type the name of what shall be gone for good.",
            path=("body", "confirm_name"),
            status=400,
        )
    return secret


async def _merged_aliases(
    scope: RequestScope, secret: SecretRow, wanted: dict[str, int | None]
) -> dict[str, int]:
    merged: dict[str, int] = dict(secret.aliases)
    for name, number in wanted.items():
        # What is sent back as it was read asks for nothing.
        if name in secret.aliases and secret.aliases[name] == number:
            continue
        check_alias(name)
        if number is None:
            if name == CURRENT:
                raise _invalid_alias(message="`current` can be moved, and not removed.")
            merged.pop(name, None)
            continue
        await _check_target(scope, secret, name, number)
        if name == CURRENT:
            merged[PREVIOUS] = secret.aliases[CURRENT]
        merged[name] = number
    if len(merged.keys() - _SYSTEM_ALIASES) > MAXIMUM_ALIASES:
        raise _invalid_alias(message=f"A secret has at most {MAXIMUM_ALIASES} aliases of its own.")
    return merged


async def _require_grantor(scope: RequestScope, secret: SecretRow) -> None:
    rotation = await find_rotation(scope.session, secret.id)
    if rotation is not None and rotation.rotator in GRANTING_ROTATORS:
        scope.require(Role.OWNER, "secret.update", resource_type="secret", resource_id=secret.id)


async def _check_target(scope: RequestScope, secret: SecretRow, name: str, number: int) -> None:
    version = await find_version_numbered(scope.session, secret.id, number)
    if version is None:
        raise _invalid_alias(message="An alias gives the number of a version of this secret.")
    usable = {VersionState.ENABLED}
    if name != CURRENT:
        usable.add(VersionState.DISABLED)
    if version.state not in usable:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {number} is destroyed or disabled: `current` gives an enabled version, any "
            "other alias one that is not destroyed.",
            path=_ALIASES,
            metadata={"state": version.state},
        )


def _invalid_alias(*, message: str) -> BulkheadError:
    return BulkheadError(Reason.INVALID_ARGUMENT, message, path=_ALIASES, status=400)


def _facts(secret: SecretRow, changed: set[str]) -> dict[str, str | int | None]:
    facts: dict[str, str | int | None] = {"fields": ",".join(sorted(changed - {"validation"}))}
    if "aliases" in changed:
        facts["current"] = secret.aliases[CURRENT]
    return facts


def _touch(secret: SecretRow) -> None:
    secret.version += 1
    secret.updated_at = datetime.now(UTC)
