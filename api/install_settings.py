"""What requests change about how an install is kept: nothing that runs a workflow.

Each function runs in the request's transaction and takes the install's row lock first, then that
of its grant.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from api.fields import check_etag, check_id, not_found
from api.install_places import version_of
from api.install_values import check_values
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.queries.install import find_grant_in_force, find_install
from infra.database.tables import InstallRow

# What a grant repeats of its install, for the vendor to choose by.
_OF_GRANTS: Final = ("labels", "channel")


async def hold_row(scope: RequestScope, install_id: str, if_match: str | None) -> InstallRow:
    """Lock an install.

    Raises:
        BulkheadError: NOT_FOUND, or ABORTED.
    """
    install = await find_install(scope.session, check_id(Prefix.INSTALL, install_id), lock=True)
    if install is None:
        raise not_found(Prefix.INSTALL)
    check_etag(if_match, install.version)
    return install


async def change(
    scope: RequestScope, install_id: str, if_match: str, changes: Mapping[str, Any]
) -> InstallRow:
    """Write what a PATCH asks for; new values come with the next render.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; for values as `create`, and CONFLICT while an operation
            runs.
    """
    install = await hold_row(scope, install_id, if_match)
    changed = {name for name, value in changes.items() if getattr(install, name) != value}
    if "values" in changed:
        if install.active_operation_id is not None:
            # It ends with what it deploys being the install's values.
            raise BulkheadError(
                Reason.CONFLICT,
                "An operation is deploying the values as they were. Wait for it with "
                f"POST /v1/operations/{install.active_operation_id}:wait, or cancel it.",
                metadata={"operation_id": install.active_operation_id},
            )
        version = await version_of(scope, install, install.desired_version_id)
        await check_values(scope, version, changes["values"], "values", before=install.values)
    if not changed:
        return install
    for name in changed:
        setattr(install, name, changes[name])
    touch(install)
    if changed.intersection(_OF_GRANTS):
        grant = await find_grant_in_force(scope.session, install.id)
        if grant is not None:
            grant.labels, grant.channel = install.labels, install.channel
            grant.version += 1
            grant.updated_at = install.updated_at
    scope.audit("install.update", "install", install.id, fields=",".join(sorted(changed)))
    return install


async def set_automatic_updates(
    scope: RequestScope,
    install_id: str,
    if_match: str,
    *,
    enabled: bool,
) -> InstallRow:
    """Have new versions of the install's channel come by themselves, or not.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED.
    """
    install = await hold_row(scope, install_id, if_match)
    if install.automatic_updates_enabled is not enabled:
        install.automatic_updates_enabled = enabled
        touch(install)
        scope.audit("install.automatic_updates", "install", install.id, enabled=int(enabled))
    return install


async def hold(
    scope: RequestScope, install_id: str, if_match: str | None, *, reason: str, until: int | None
) -> InstallRow:
    """Keep rollouts and automatic updates from an install; its own people may still move it.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; INVALID_ARGUMENT for an end that is over.
    """
    install = await hold_row(scope, install_id, if_match)
    now = datetime.now(UTC)
    ends = None if until is None else datetime.fromtimestamp(until, UTC)
    if ends is not None and ends <= now:
        raise BulkheadError(Reason.INVALID_ARGUMENT, "This moment is over.", path=("body", "until"))
    install.hold_reason, install.held_at, install.hold_until = reason, now, ends
    touch(install)
    scope.audit("install.hold", "install", install.id)
    return install


async def release_hold(scope: RequestScope, install_id: str, if_match: str | None) -> InstallRow:
    """Let rollouts and automatic updates move an install again.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED.
    """
    install = await hold_row(scope, install_id, if_match)
    if install.held_at is not None:
        install.hold_reason = install.held_at = install.hold_until = None
        touch(install)
        scope.audit("install.release_hold", "install", install.id)
    return install


def touch(install: InstallRow) -> None:
    """Count a change of an install."""
    install.version += 1
    install.updated_at = datetime.now(UTC)
