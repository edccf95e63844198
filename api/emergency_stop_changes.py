"""What requests do to emergency stops."""

from datetime import UTC, datetime
from typing import Final

from sqlmodel import col, select

from api.fields import not_found
from api.scope import RequestScope
from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.rollout import StopScope
from infra.database.queries.emergency_stop import find_stop
from infra.database.queries.workspace import find_workspace
from infra.database.tables import EmergencyStopRow, InstallRow, ProductRow, RegionRow

_PLATFORM: Final = "platform"
_WITHOUT_SUBJECT: Final = frozenset({StopScope.WORKSPACE, StopScope.ALL})


async def add_stop(
    scope: RequestScope, covers: StopScope, subject: str, reason: str
) -> EmergencyStopRow:
    """Stop something; it counts from the commit on.

    Raises:
        BulkheadError: PERMISSION_DENIED for everything from a workspace that is not the platform's;
            INVALID_ARGUMENT or NOT_FOUND for a subject that would stop nothing.
    """
    workspace = await find_workspace(scope.session, scope.caller.workspace_id)
    is_platform = workspace is not None and workspace.workspace_class == _PLATFORM
    if covers is StopScope.ALL and not is_platform:
        scope.deny("emergency_stop.create", "workspace")
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            "Only a workspace of the platform's own stops everything. Stop this workspace instead: "
            '`"scope": "workspace"`.',
            path=("body", "scope"),
        )
    await _check_subject(scope, covers, subject, is_platform=is_platform)
    row = EmergencyStopRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.EMERGENCY_STOP),
        scope=covers,
        subject=subject,
        reason=reason,
        stopped_by=scope.caller.principal_id,
    )
    scope.rows.add(row)
    scope.audit("emergency_stop.create", "emergency_stop", row.id, scope=covers, subject=subject)
    await scope.rows.write(scope.session)
    return row


async def lift_stop(scope: RequestScope, stop_id: str) -> EmergencyStopRow:
    """Take a stop away; one that is lifted stays as it is.

    Raises:
        BulkheadError: NOT_FOUND, also for another workspace's.
    """
    row = await find_stop(scope.session, stop_id, lock=True)
    if row is None:
        raise not_found(Prefix.EMERGENCY_STOP)
    if row.lifted_at is None:
        row.lifted_at = datetime.now(UTC)
        row.lifted_by = scope.caller.principal_id
        scope.audit("emergency_stop.lift", "emergency_stop", row.id)
        await scope.session.flush()
    return row


async def _check_subject(
    scope: RequestScope, covers: StopScope, subject: str, *, is_platform: bool
) -> None:
    """Refuse a subject that would stop nothing: nobody notices that in an emergency."""
    if bool(subject) == (covers in _WITHOUT_SUBJECT):
        wanted = "takes no subject" if subject else "needs a subject: which one shall stop"
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"The scope {covers} {wanted}.", path=("body", "subject")
        )
    match covers:
        case StopScope.PROVIDER if subject not in set(Provider):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"There is no such provider; one of {', '.join(Provider)}.",
                path=("body", "subject"),
            )
        case StopScope.REGION if not await _knows_region(scope, subject, is_platform=is_platform):
            raise _unknown(Prefix.REGION)
        case StopScope.PRODUCT if not await _knows_product(scope, subject, is_platform=is_platform):
            raise _unknown(Prefix.PRODUCT)


async def _knows_region(scope: RequestScope, region_id: str, *, is_platform: bool) -> bool:
    # The regions of other workspaces are not seen from here; a platform's stop reaches them.
    if is_platform and is_id(Prefix.REGION, region_id):
        return True
    query = select(RegionRow.id).where(col(RegionRow.id) == region_id)
    return (await scope.session.exec(query)).first() is not None


async def _knows_product(scope: RequestScope, product_id: str, *, is_platform: bool) -> bool:
    """Tell whether it is the workspace's own, or there are installs of it."""
    if is_platform and is_id(Prefix.PRODUCT, product_id):
        return True
    own = select(ProductRow.id).where(col(ProductRow.id) == product_id)
    if (await scope.session.exec(own)).first() is not None:
        return True
    installed = select(InstallRow.id).where(col(InstallRow.product_id) == product_id).limit(1)
    return (await scope.session.exec(installed)).first() is not None


def _unknown(prefix: Prefix) -> BulkheadError:
    error = not_found(prefix)
    return BulkheadError(error.reason, error.message, path=("body", "subject"))
