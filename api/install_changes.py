"""What requests change about installs: rules, rows, the operation and its audit line.

Each function runs in the request's transaction, takes the install's row lock first, and leaves the
start of the workflow to after the commit. Locks are taken in one order: cluster, install, grant.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from api.cancellations import send_cancellation
from api.fields import check_id, not_found
from api.grant_changes import new_grant
from api.install_places import (
    Source,
    check_active,
    choose_cluster,
    misfit,
    version_of,
)
from api.install_settings import hold_row, touch
from api.install_values import check_values
from api.quotas import check_quota
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.install import Consent, Health, InstallState, RenderState, Sync
from domain.operation import WAITING_FOR_APPROVAL, OperationType
from domain.package import Channel
from domain.quota import QuotaMetric
from infra.database.queries.install import find_cluster_of_install, find_render
from infra.database.queries.operation import find_operation
from infra.database.records.install_plan import Deployment, plan_deployment
from infra.database.records.operation import (
    install_operation_of,
    plan_operation,
    request_cancellation,
)
from infra.database.tables import ClusterRow, InstallRow, OperationRow, RenderRow
from infra.temporal.start import start_operation, tell_approval_given


@dataclass(frozen=True, kw_only=True, slots=True)
class NewInstall:
    """What is asked for.

    Attributes:
        source: what is to be installed.
        region_id: where.
        cluster_id: on which cluster; None: one of the region.
        values: the customer's.
        consent: of the grant that the product's vendor gets; None: it gets none.
        idempotency_key: which the contract shows with the operation; without one the request's id.
    """

    source: Source
    region_id: str
    cluster_id: str | None
    values: dict[str, Any]
    labels: dict[str, str] = field(default_factory=dict)
    channel: Channel = Channel.STABLE
    consent: Consent | None = None
    idempotency_key: str | None = None


async def create(scope: RequestScope, wanted: NewInstall) -> OperationRow:
    """Place a new install, and plan its first deployment.

    Raises:
        BulkheadError: NOT_FOUND, INVALID_ARGUMENT or FAILED_PRECONDITION, with the path of what
            is at fault; QUOTA_EXCEEDED.
    """
    source = wanted.source
    version = source.version
    cluster = await choose_cluster(scope, version, wanted.region_id, wanted.cluster_id)
    await check_values(scope, version, wanted.values, "initial_values", before={})
    await check_quota(scope, QuotaMetric.INSTALLS)
    install = InstallRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.INSTALL),
        cluster_id=cluster.id,
        region_id=cluster.region_id,
        package_workspace_id=source.package_workspace_id,
        package_id=version.package_id,
        product_id=source.product_id,
        desired_version_id=version.id,
        values=wanted.values,
        labels=wanted.labels,
        channel=wanted.channel,
        pinned_semver=source.pinned_semver,
        state=InstallState.PENDING,
        health=Health.UNKNOWN,
        sync=Sync.UNKNOWN,
    )
    scope.rows.add(install)
    if wanted.consent is not None:
        grant = new_grant(install, wanted.consent)
        scope.rows.add(grant)
        scope.audit("grant.create", "grant", grant.id, install_id=install.id)
    key = wanted.idempotency_key or scope.caller.request_id or ""
    request: dict[str, Any] = {"idempotency_key": key}
    if source.product_id is not None:
        request["product_id"] = source.product_id
    operation, _ = plan_deployment(
        scope.rows,
        install,
        cluster,
        scope.caller,
        OperationType.INSTALL_CREATE,
        Deployment(version_id=version.id, values=wanted.values),
        request=request,
    )
    return await _begin(scope, operation, install)


async def update(
    scope: RequestScope, install_id: str, if_match: str, version_id: str
) -> tuple[InstallRow, RenderRow]:
    """Plan that an install gets another version of its package, with its values.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while an operation runs; FAILED_PRECONDITION
            when the cluster is not active or the version does not fit it; for values as `create`.
    """
    install, cluster = await _hold_idle(scope, install_id, if_match)
    version = await version_of(scope, install, version_id)
    why = await misfit(scope, version, cluster)
    if why is not None:
        raise BulkheadError(Reason.FAILED_PRECONDITION, why, path=("body", "package_version_id"))
    await check_values(scope, version, install.values, "values", before=install.values)
    deployment = Deployment(
        version_id=version.id, values=install.values, message=f"Update to {version.semver}"
    )
    return await _deploy(scope, install, cluster, OperationType.INSTALL_RENDER, deployment)


async def restore(
    scope: RequestScope, install_id: str, if_match: str, render_id: str
) -> tuple[InstallRow, RenderRow]:
    """Plan that the objects of an earlier render are applied once more, as they were.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while an operation runs; FAILED_PRECONDITION
            for a render that was never deployed, or while the cluster is not active.
    """
    install, cluster = await _hold_idle(scope, install_id, if_match)
    source = None
    if is_id(Prefix.RENDER, render_id):
        source = await find_render(scope.session, install.id, render_id)
    if source is None:
        raise BulkheadError(
            Reason.NOT_FOUND, "The install has no such render.", path=("body", "render_id")
        )
    if source.state is not RenderState.DEPLOYED or source.manifest is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"This render is {source.state}; only one that was deployed and whose objects are kept "
            "can be restored.",
            path=("body", "render_id"),
        )
    deployment = Deployment(
        version_id=source.package_version_id,
        values=source.values,
        restored_from=source.id,
        message=f"Restore {source.id}",
    )
    return await _deploy(scope, install, cluster, OperationType.INSTALL_RESTORE, deployment)


async def render(
    scope: RequestScope, install_id: str, *, message: str | None, skip_unchanged: bool
) -> tuple[InstallRow, RenderRow]:
    """Plan that the wanted version is rendered with the values as they are now, and deployed.

    Raises:
        BulkheadError: as `update`.
    """
    install, cluster = await _hold_idle(scope, install_id, None)
    version = await version_of(scope, install, install.desired_version_id)
    await check_values(scope, version, install.values, "values", before=install.values)
    deployment = Deployment(
        version_id=install.desired_version_id,
        values=install.values,
        skip_unchanged=skip_unchanged,
        message=message,
    )
    return await _deploy(scope, install, cluster, OperationType.INSTALL_RENDER, deployment)


async def delete(scope: RequestScope, install_id: str, if_match: str) -> OperationRow:
    """Plan that an install is taken off its cluster, taking its lock over from whatever runs.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT when it is being deleted already, or
            FAILED_PRECONDITION when its cluster cannot be asked.
    """
    cluster = await _cluster_of(scope, install_id)
    install = await hold_row(scope, install_id, if_match)
    check_active(cluster)
    predecessor = await _running_operation(scope, install)
    if predecessor is not None:
        if predecessor.type is OperationType.INSTALL_DELETE:
            raise busy(predecessor)
        if await request_cancellation(scope.session, predecessor.id, scope.caller.kind):
            scope.after_commit.append(
                partial(send_cancellation, scope, predecessor.type, install.id, predecessor.id)
            )
    touch(install)
    operation = plan_operation(
        scope.rows,
        OperationType.INSTALL_DELETE,
        install,
        scope.caller,
        request={"install_id": install.id},
        predecessor_operation_id=None if predecessor is None else predecessor.id,
        cluster=cluster,
    )
    return await _begin(scope, operation, install)


async def approve(
    scope: RequestScope, install_id: str, if_match: str | None, digest: str
) -> RenderRow:
    """Approve the plan for which the install's operation waits.

    Raises:
        BulkheadError: NOT_FOUND; ABORTED for another digest than the plan's, with the plan's;
            FAILED_PRECONDITION while nothing waits for an approval.
    """
    install = await hold_row(scope, install_id, if_match)
    operation = await _running_operation(scope, install)
    waiting = None
    if operation is not None and operation.waiting_for == WAITING_FOR_APPROVAL:
        waiting = await find_render(scope.session, install.id, operation.request["render_id"])
    if operation is None or waiting is None or waiting.plan_digest is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "No plan of this install waits for an approval."
        )
    if waiting.plan_digest != digest:
        raise BulkheadError(
            Reason.ABORTED,
            "The plan is another one by now. Look at it again: "
            f"GET /v1/installs/{install.id}/renders/{waiting.id}/plan.",
            path=("body", "digest"),
            metadata={"plan_digest": waiting.plan_digest, "render_id": waiting.id},
        )
    waiting.approved_digest = digest
    waiting.approved_by = scope.caller.principal_id
    waiting.approved_at = waiting.updated_at = datetime.now(UTC)
    scope.audit(
        "install.approve", "install", install.id, operation_id=operation.id, plan_digest=digest
    )

    async def tell() -> None:
        client = await scope.clients.temporal.client()
        await tell_approval_given(client, operation.type, install.id, operation.id)

    scope.after_commit.append(tell)
    return waiting


def busy(running: OperationRow) -> BulkheadError:
    """Return the refusal of what has to wait for an install's operation."""
    return BulkheadError(
        Reason.CONFLICT,
        f"{running.type} is running on the install. Wait for it with "
        f"POST /v1/operations/{running.id}:wait, or cancel it.",
        metadata={"operation_id": running.id, "operation_type": running.type},
    )


async def _hold_idle(
    scope: RequestScope, install_id: str, if_match: str | None
) -> tuple[InstallRow, ClusterRow]:
    """Lock an install that nothing works on, and its cluster, which is active."""
    cluster = await _cluster_of(scope, install_id)
    install = await hold_row(scope, install_id, if_match)
    running = await _running_operation(scope, install)
    if running is not None:
        raise busy(running)
    check_active(cluster)
    return install, cluster


async def _deploy(
    scope: RequestScope,
    install: InstallRow,
    cluster: ClusterRow,
    operation_type: OperationType,
    deployment: Deployment,
) -> tuple[InstallRow, RenderRow]:
    operation, rendered = plan_deployment(
        scope.rows, install, cluster, scope.caller, operation_type, deployment
    )
    await _begin(scope, operation, install)
    return install, rendered


async def _begin(scope: RequestScope, operation: OperationRow, install: InstallRow) -> OperationRow:
    """Write a planned operation and its audit line, and start it after the commit."""
    scope.audit(
        operation.type,
        "install",
        install.id,
        operation_id=operation.id,
        cluster_id=install.cluster_id,
    )
    await scope.rows.write(scope.session)
    workflow_input = install_operation_of(operation)

    async def start() -> None:
        client = await scope.clients.temporal.client()
        await start_operation(client, operation.type, workflow_input)

    scope.after_commit.append(start)
    return operation


async def _cluster_of(scope: RequestScope, install_id: str) -> ClusterRow:
    cluster = await find_cluster_of_install(scope.session, check_id(Prefix.INSTALL, install_id))
    if cluster is None:
        raise not_found(Prefix.INSTALL)
    return cluster


async def _running_operation(scope: RequestScope, install: InstallRow) -> OperationRow | None:
    if install.active_operation_id is None:
        return None
    return await find_operation(scope.session, install.active_operation_id)
