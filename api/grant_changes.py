"""What requests change about grants: a vendor's right to move one install of a customer.

Each function runs in the transaction of the customer's request. Locks are taken in one order:
install, grant. A rollout's decision to move an install takes the grant's lock too, so that after a
revocation has been answered none begins.
"""

from datetime import UTC, datetime

from api.fields import check_etag, check_id, not_found
from api.install_places import version_of
from api.install_settings import hold_row
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.install import Consent
from infra.database.queries.install import find_grant, find_grant_in_force, find_install
from infra.database.tables import GrantRow, InstallRow


def new_grant(install: InstallRow, consent: Consent) -> GrantRow:
    """Return the row by which the vendor of an install's product may move it.

    Raises:
        BulkheadError: FAILED_PRECONDITION for an install of nobody else's product.
    """
    if install.product_id is None or install.package_workspace_id == install.workspace_id:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "What is installed is your workspace's own: its rollouts need no grant, and nobody "
            "else's reach it.",
        )
    return GrantRow(
        workspace_id=install.workspace_id,
        id=new_id(Prefix.GRANT),
        install_id=install.id,
        cluster_id=install.cluster_id,
        region_id=install.region_id,
        vendor_workspace_id=install.package_workspace_id,
        product_id=install.product_id,
        labels=install.labels,
        channel=install.channel,
        consent=consent,
        current_version_id=install.current_version_id,
        health=install.health,
        observed_at=install.observed_at,
    )


async def create(scope: RequestScope, install_id: str, consent: Consent) -> GrantRow:
    """Let the vendor of an install's product move it.

    Raises:
        BulkheadError: NOT_FOUND for the install; CONFLICT when a grant is in force;
            FAILED_PRECONDITION for an install of nobody else's product.
    """
    try:
        install = await hold_row(scope, install_id, None)
    except BulkheadError as error:
        raise BulkheadError(error.reason, error.message, path=("body", "install_id")) from error
    in_force = await find_grant_in_force(scope.session, install.id)
    if in_force is not None:
        raise _in_force(in_force.id)
    grant = new_grant(install, consent)
    scope.rows.add(grant)
    await scope.rows.write(scope.session)
    scope.audit("grant.create", "grant", grant.id, install_id=install.id)
    return grant


async def revoke(scope: RequestScope, grant_id: str, if_match: str | None) -> GrantRow:
    """End a grant: from this transaction's end on, nothing of the vendor's begins to move it.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; PERMISSION_DENIED for the vendor.
    """
    grant = await _hold(scope, grant_id, if_match)
    if grant.revoked_at is None:
        grant.revoked_at = datetime.now(UTC)
        _touch(grant)
        scope.audit("grant.revoke", "grant", grant.id, install_id=grant.install_id)
    return grant


async def give_consent(
    scope: RequestScope, grant_id: str, if_match: str | None, version_id: str
) -> GrantRow:
    """Let a rollout bring one version, where the customer is asked each time.

    Raises:
        BulkheadError: NOT_FOUND for the grant or the version, ABORTED; PERMISSION_DENIED for the
            vendor; FAILED_PRECONDITION for a grant that is revoked.
    """
    grant = await _hold(scope, grant_id, if_match)
    if grant.revoked_at is not None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "This grant is revoked; give another one first."
        )
    install = await find_install(scope.session, grant.install_id)
    assert install is not None  # noqa: S101 - a foreign key holds it
    version = await version_of(scope, install, version_id)
    grant.consented_version_id = version.id
    _touch(grant)
    scope.audit(
        "grant.consent",
        "grant",
        grant.id,
        install_id=grant.install_id,
        package_version_id=version.id,
    )
    return grant


async def _hold(scope: RequestScope, grant_id: str, if_match: str | None) -> GrantRow:
    grant = await find_grant(scope.session, check_id(Prefix.GRANT, grant_id), lock=True)
    if grant is None:
        if await find_grant(scope.session, grant_id) is not None:
            raise BulkheadError(
                Reason.PERMISSION_DENIED,
                "This grant was given to your workspace; the customer who gave it decides about "
                "it.",
                path=("path", "id"),
            )
        raise not_found(Prefix.GRANT)
    check_etag(if_match, grant.version)
    return grant


def _touch(grant: GrantRow) -> None:
    grant.version += 1
    grant.updated_at = datetime.now(UTC)


def _in_force(grant_id: str) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        "A grant of this install is in force; revoke it first to give another one.",
        path=("body", "install_id"),
        metadata={"grant_id": grant_id},
    )
