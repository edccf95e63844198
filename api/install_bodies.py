"""Installs, renders and grants as the API shows them: never a value that is secret."""

from typing import Any, Final, NotRequired

from typing_extensions import TypedDict

from api.links import Links
from domain.install import Consent, DriftState, Health, InstallState, RenderState, Sync
from domain.package import Channel
from infra.database.queries.install import WaitingVersion
from infra.database.tables import (
    GrantRow,
    InstallDriftRow,
    InstallRow,
    PackageVersionRow,
    RenderRow,
)
from infra.database.tables.columns import unix, unix_or_none

# What a vendor is told of a customer's install follows from its health alone.
_STATES_OF_HEALTH: Final = {
    Health.HEALTHY: InstallState.HEALTHY,
    Health.PROGRESSING: InstallState.SYNCING,
    Health.DEGRADED: InstallState.DEGRADED,
    Health.SUSPENDED: InstallState.HEALTHY,
    Health.MISSING: InstallState.DEGRADED,
    Health.UNKNOWN: InstallState.PENDING,
}


class CustomerWorkspace(TypedDict):
    """The contract's InstallCustomerWorkspace."""

    id: str
    name: str


class HoldBody(TypedDict):
    """Why the install is held, since when, and until when; null: until it is released."""

    reason: str
    since: int
    until: int | None


class WindowBody(TypedDict):
    """When the install may be moved."""

    timezone: str
    days: list[str]
    start: str
    end: str


class InstallBody(TypedDict):
    """The contract's Install, and from `granted` on what is ours.

    Of an install that a customer granted to the caller's workspace there is the contract's part,
    and `granted` is true: its values, renders, logs and secrets are the customer's.
    """

    id: str
    html_url: str
    workspace_id: str
    customer_workspace: CustomerWorkspace
    cluster_id: str
    product_id: NotRequired[str]
    package_version_id: str
    state: InstallState
    reconciling: bool
    urls: list[dict[str, Any]]
    created_at: int
    updated_at: int
    etag: str
    granted: bool
    region_id: str
    labels: dict[str, str]
    channel: Channel
    health: Health
    package_id: NotRequired[str]
    current_version_id: NotRequired[str | None]
    desired_version_id: NotRequired[str]
    current_render_id: NotRequired[str | None]
    values: NotRequired[dict[str, Any]]
    automatic_updates_enabled: NotRequired[bool]
    pinned_semver: NotRequired[str | None]
    update_window: NotRequired[WindowBody | None]
    hold: NotRequired[HoldBody | None]
    drift_correction: NotRequired[bool]
    drift_looked_at: NotRequired[int | None]
    health_message: NotRequired[str | None]
    sync: NotRequired[Sync]
    active_operation_id: NotRequired[str | None]


class VersionSummary(TypedDict):
    """The contract's PackageVersionSummary."""

    id: str
    semver: str


class InstallLifecycleState(TypedDict):
    """The contract's InstallLifecycleState."""

    id: str
    current_version: VersionSummary | None
    desired_version: VersionSummary | None
    automatic_updates_enabled: bool
    updated_at: int
    etag: str


class RenderBody(TypedDict):
    """The contract's InstallRender; from `plan_digest` on it is ours."""

    id: str
    workspace_id: str
    install_id: str
    operation_id: str | None
    repository_change_request_id: None
    render_hash: str | None
    commit_sha: None
    package_version_id: str | None
    restored_from_render_id: str | None
    state: RenderState
    message: str | None
    created_at: int
    updated_at: int
    plan_digest: str | None
    approved_digest: str | None
    release_revision: int | None


class InstallLifecycleMutation(TypedDict):
    """The contract's InstallLifecycleMutation."""

    install: InstallLifecycleState
    render: RenderBody | None


class PlanBody(TypedDict):
    """What applying a render does; `needs` are approvals and what the cluster has to have.

    Data of Secrets are hidden, whoever made them. `waits_for_approval`: its operation does nothing
    before somebody approves this digest.
    """

    render_id: str
    plan_digest: str
    render_hash: str | None
    changes: list[dict[str, Any]]
    needs: list[dict[str, Any]]
    counts: dict[str, int]
    hooks: list[Any]
    release_bytes: int | None
    release_limit_bytes: int | None
    waits_for_approval: bool
    approved_digest: str | None
    approved_by: str | None
    approved_at: int | None


class WaitingVersionBody(TypedDict):
    """A version that a rollout brings once the customer agrees to it.

    `checks` are those that the vendor then makes inside the cluster: its Jobs, and the Services
    that are asked.
    """

    id: str
    semver: str
    rollout_id: str
    checks: list[dict[str, Any]]


class GrantBody(TypedDict):
    """A vendor's right to move an install; `role`: whether the caller's workspace gave or got it.

    It has all that a vendor may know of an install: version, health and where it is. The customer
    sees too which version waits for a consent.
    """

    id: str
    role: str
    install_id: str
    workspace_id: str
    customer_workspace: CustomerWorkspace
    vendor_workspace_id: str
    product_id: str
    cluster_id: str
    region_id: str
    labels: dict[str, str]
    channel: Channel
    consent: Consent
    consented_version_id: str | None
    waiting_version: WaitingVersionBody | None
    current_version_id: str | None
    health: Health
    observed_at: int | None
    revoked_at: int | None
    created_at: int
    updated_at: int
    etag: str


class FindingBody(TypedDict):
    """A live object that is not as it was rendered; no datum of a Secret is in `delta`."""

    id: str
    install_id: str
    render_id: str
    object: str
    state: DriftState
    delta: list[dict[str, Any]]
    first_seen_at: int
    last_seen_at: int
    resolved_at: int | None


def install_body(row: InstallRow, customer_name: str, *, links: Links) -> InstallBody:
    """Render an install of the caller's workspace."""
    hold = None
    if row.hold_reason is not None and row.held_at is not None:
        hold = HoldBody(
            reason=row.hold_reason, since=unix(row.held_at), until=unix_or_none(row.hold_until)
        )
    body = InstallBody(
        id=row.id,
        html_url=links.install(row.id),
        workspace_id=row.workspace_id,
        customer_workspace=CustomerWorkspace(id=row.workspace_id, name=customer_name),
        cluster_id=row.cluster_id,
        package_version_id=row.current_version_id or row.desired_version_id,
        state=row.state,
        reconciling=row.active_operation_id is not None,
        urls=[],
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
        granted=False,
        region_id=row.region_id,
        labels=row.labels,
        channel=row.channel,
        health=row.health,
        package_id=row.package_id,
        current_version_id=row.current_version_id,
        desired_version_id=row.desired_version_id,
        current_render_id=row.current_render_id,
        values=row.values,
        automatic_updates_enabled=row.automatic_updates_enabled,
        pinned_semver=row.pinned_semver,
        update_window=row.update_window,  # type: ignore[typeddict-item] # as it was checked
        hold=hold,
        drift_correction=row.drift_correction,
        drift_looked_at=unix_or_none(row.drift_looked_at),
        health_message=row.health_message,
        sync=row.sync,
        active_operation_id=row.active_operation_id,
    )
    if row.product_id is not None:
        body["product_id"] = row.product_id
    return body


def granted_body(row: GrantRow, customer_name: str, *, links: Links) -> InstallBody:
    """Render what a vendor may know of a customer's install that has reached a version."""
    assert row.current_version_id is not None  # noqa: S101 - the queries leave others out
    return InstallBody(
        id=row.install_id,
        html_url=links.install(row.install_id),
        workspace_id=row.workspace_id,
        customer_workspace=CustomerWorkspace(id=row.workspace_id, name=customer_name),
        cluster_id=row.cluster_id,
        product_id=row.product_id,
        package_version_id=row.current_version_id,
        state=_STATES_OF_HEALTH[row.health],
        reconciling=False,
        urls=[],
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
        granted=True,
        region_id=row.region_id,
        labels=row.labels,
        channel=row.channel,
        health=row.health,
    )


def lifecycle_state(
    row: InstallRow, current: PackageVersionRow | None, desired: PackageVersionRow | None
) -> InstallLifecycleState:
    """Render which version an install has and which it shall have."""
    return InstallLifecycleState(
        id=row.id,
        current_version=_summary(current),
        desired_version=_summary(desired),
        automatic_updates_enabled=row.automatic_updates_enabled,
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )


def render_body(row: RenderRow) -> RenderBody:
    """Render a render, without its objects."""
    return RenderBody(
        id=row.id,
        workspace_id=row.workspace_id,
        install_id=row.install_id,
        operation_id=row.operation_id,
        repository_change_request_id=None,
        render_hash=row.render_hash,
        commit_sha=None,
        package_version_id=row.package_version_id,
        restored_from_render_id=row.restored_from_render_id,
        state=row.state,
        message=row.message,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        plan_digest=row.plan_digest,
        approved_digest=row.approved_digest,
        release_revision=row.release_revision,
    )


def plan_body(row: RenderRow, plan: dict[str, Any], digest: str, *, waits: bool) -> PlanBody:
    """Render a plan that was made."""
    return PlanBody(
        render_id=row.id,
        plan_digest=digest,
        render_hash=row.render_hash,
        changes=plan.get("changes", []),
        needs=plan.get("needs", []),
        counts=plan.get("counts", {}),
        hooks=plan.get("hooks", []),
        release_bytes=plan.get("release_bytes"),
        release_limit_bytes=plan.get("release_limit_bytes"),
        waits_for_approval=waits,
        approved_digest=row.approved_digest,
        approved_by=row.approved_by,
        approved_at=unix_or_none(row.approved_at),
    )


def grant_body(
    row: GrantRow, customer_name: str, workspace_id: str, waiting: WaitingVersion | None = None
) -> GrantBody:
    """Render a grant for one of its two sides."""
    return GrantBody(
        id=row.id,
        role="given" if row.workspace_id == workspace_id else "received",
        install_id=row.install_id,
        workspace_id=row.workspace_id,
        customer_workspace=CustomerWorkspace(id=row.workspace_id, name=customer_name),
        vendor_workspace_id=row.vendor_workspace_id,
        product_id=row.product_id,
        cluster_id=row.cluster_id,
        region_id=row.region_id,
        labels=row.labels,
        channel=row.channel,
        consent=row.consent,
        consented_version_id=row.consented_version_id,
        waiting_version=(
            None
            if waiting is None
            else WaitingVersionBody(
                id=waiting.id,
                semver=waiting.semver,
                rollout_id=waiting.rollout_id,
                checks=waiting.checks,
            )
        ),
        current_version_id=row.current_version_id,
        health=row.health,
        observed_at=unix_or_none(row.observed_at),
        revoked_at=unix_or_none(row.revoked_at),
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )


def finding_body(row: InstallDriftRow) -> FindingBody:
    """Render a drift finding."""
    return FindingBody(
        id=row.id,
        install_id=row.install_id,
        render_id=row.render_id,
        object=row.object_key,
        state=row.state,
        delta=row.delta,
        first_seen_at=unix(row.first_seen_at),
        last_seen_at=unix(row.last_seen_at),
        resolved_at=unix_or_none(row.resolved_at),
    )


def _summary(version: PackageVersionRow | None) -> VersionSummary | None:
    return None if version is None else VersionSummary(id=version.id, semver=version.semver)
