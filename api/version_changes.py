"""What requests change about versions: enabled, disabled, destroyed."""

from dataclasses import dataclass
from typing import Final

from api import secret_changes
from api.credential_waiters import wake_waiters_of
from api.credentials_in_use import refuse_needed_version
from api.fields import check_etag
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.secret import Retirement, VersionPlace, VersionState
from infra.database.queries.operation import find_operation
from infra.database.queries.secret import find_version, references_of, would_miss
from infra.database.records.rotation_facts import facts_of
from infra.database.records.secret import (
    begin_destroying,
    current_number,
    place_of,
    switch_version,
)
from infra.database.tables import SecretRow, SecretVersionRow

# How many consumers an error names; the others are counted.
_NAMED: Final = 20

_ENDED: Final = frozenset({VersionState.DESTROYING, VersionState.DESTROYED})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which version a request is about, and what it is based on."""

    secret_id: str
    version_id: str
    if_match: str
    force: bool = False


async def enable(scope: RequestScope, wanted: Wanted) -> SecretVersionRow:
    """Make a version readable again; one that is enabled stays as it is.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, or FAILED_PRECONDITION for a destroyed one.
    """
    secret, version = await _hold(scope, wanted)
    _refuse_ended(version)
    await wake_waiters_of(scope, secret.id)
    return await _switch(scope, version, VersionState.ENABLED, "secret_version.enable")


async def disable(scope: RequestScope, wanted: Wanted) -> SecretVersionRow:
    """Make a version unreadable until it is enabled; also `current`, when nobody uses it.

    Raises:
        BulkheadError: as `enable`; FAILED_PRECONDITION while somebody uses it, or, whatever force
            says, while machines exist that need it; PERMISSION_DENIED for a force that the
            workspace's policy does not allow.
    """
    action = "secret_version.disable"
    secret, version = await _hold(scope, wanted)
    _refuse_ended(version)
    if version.state is VersionState.ENABLED:
        await _refuse_used(scope, secret, version, action, force=wanted.force)
    return await _switch(scope, version, VersionState.DISABLED, action, forced=wanted.force)


async def begin_to_destroy(scope: RequestScope, wanted: Wanted) -> VersionPlace | None:
    """Make a version unreadable for good; its value is to be destroyed after the commit.

    Returns:
        Where the value is; None: it was destroyed before.

    Raises:
        BulkheadError: as `disable`; FAILED_PRECONDITION for `current`; CONFLICT, whatever force
            says, for a version that a running rotation works with.
    """
    action = "secret_version.destroy"
    secret, version = await _hold(scope, wanted)
    if version.state is VersionState.DESTROYED:
        return None
    if version.state is not VersionState.DESTROYING:
        if version.number == current_number(secret):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "This version is `current`; make another one current first, or disable this one.",
                path=("path", "vid"),
                metadata={"alias": "current"},
            )
        await _refuse_rotating(scope, secret, version)
        await _refuse_used(scope, secret, version, action, force=wanted.force)
        await begin_destroying(scope.session, version)
        _audit(scope, version, action, forced=wanted.force)
    return place_of(version)


async def _hold(scope: RequestScope, wanted: Wanted) -> tuple[SecretRow, SecretVersionRow]:
    secret = await secret_changes.hold(scope, wanted.secret_id)
    version = None
    if is_id(Prefix.SECRET_VERSION, wanted.version_id):
        version = await find_version(scope.session, secret.id, wanted.version_id)
    if version is None:
        raise no_such_version()
    check_etag(wanted.if_match, version.version)
    return secret, version


async def _switch(
    scope: RequestScope,
    version: SecretVersionRow,
    state: VersionState,
    action: str,
    *,
    forced: bool = False,
) -> SecretVersionRow:
    if version.state is not state:
        await switch_version(scope.session, version, state)
        _audit(scope, version, action, forced=forced)
    return version


def no_such_version() -> BulkheadError:
    """Return the failure for an id of a version that is unknown."""
    return BulkheadError(Reason.NOT_FOUND, "The secret has no such version.", path=("path", "vid"))


async def _refuse_rotating(
    scope: RequestScope, secret: SecretRow, version: SecretVersionRow
) -> None:
    """Keep the values with which a rotation can still tell its target what to refuse."""
    if secret.active_operation_id is None:
        return
    operation = await find_operation(scope.session, secret.active_operation_id)
    facts = None if operation is None else facts_of(operation)
    if facts is None or version.id not in {facts.current.version_id, facts.pending.version_id}:
        return
    if facts.is_finished and facts.retirement is Retirement.KEEP:
        return
    watch = f"`bulkhead operations watch {secret.active_operation_id}`"
    how = f"Wait for its end ({watch}), or cancel it."
    if facts.is_finished:
        how = (
            "Have the consumers that it waits for acknowledge the new version (`bulkhead secrets "
            f"consumers`), or remove them; then wait for its end ({watch})."
        )
    raise BulkheadError(
        Reason.CONFLICT,
        f"A rotation works with version {version.number}: without the value it could not tell its "
        f"target what to refuse. {how}",
        path=("path", "vid"),
        metadata={"operation_id": secret.active_operation_id},
    )


async def _refuse_used(
    scope: RequestScope,
    secret: SecretRow,
    version: SecretVersionRow,
    action: str,
    *,
    force: bool,
) -> None:
    await refuse_needed_version(scope, secret, version)
    if force:
        await secret_changes.check_force_allowed(scope, action, secret.id)
        return
    missed = would_miss(version.number, current_number(secret))
    users = await references_of(scope.session, secret.id, missed)
    if users:
        named = ", ".join(f"{user.consumer_type}/{user.consumer_id}" for user in users[:_NAMED])
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {version.number} is used by {len(users)} consumers, which metadata.consumers "
            "names. Move them to another version first, or use force if the workspace's secret "
            "policy allows it.",
            path=("path", "vid"),
            metadata={"consumers": named, "consumer_count": str(len(users))},
        )


def _refuse_ended(version: SecretVersionRow) -> None:
    if version.state in _ENDED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {version.number} was destroyed; its value is gone for good.",
            path=("path", "vid"),
            metadata={"state": "destroyed"},
        )


def _audit(scope: RequestScope, version: SecretVersionRow, action: str, *, forced: bool) -> None:
    details: dict[str, str | int | None] = {
        "version_id": version.id,
        "version_number": version.number,
    }
    if forced:
        details["force"] = "true"
    scope.audit(action, "secret", version.secret_id, **details)
