"""Rollouts, their targets and timelines, as the API shows them."""

from collections.abc import Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from api.links import Links
from domain.rollout import TERMINAL, Obstacle, RolloutState, TargetState
from infra.database.queries.rollout_view import WaveCount
from infra.database.tables import RolloutEventRow, RolloutRow, RolloutTargetRow
from infra.database.tables.columns import unix, unix_or_none


class ApprovalBody(TypedDict):
    """Who approved which plan for which wave."""

    wave: int
    principal_id: str
    digest: str
    at: int


class WaveBody(TypedDict):
    """A wave, the first of which is the canary if there is one; `counts` are by state."""

    wave: int
    targets: int
    counts: dict[str, int]


class RolloutBody(TypedDict):
    """A rollout as its vendor sees it.

    Attributes:
        reason: why it is in the state, as a sentence; null where the state says it all.
        wave: the one that is under way, from 0.
        counts: the targets by state.
        waiting: those that wait, by what is in the way.
        plan_digest: what an approval names: of the version, the strategy and who is in which wave,
            and with `plan_only` of what changes at each install; null until the plan is made.
    """

    id: str
    html_url: str
    workspace_id: str
    product_id: str
    package_version_id: str
    state: RolloutState
    done: bool
    reason: str | None
    plan_only: bool
    wave: int
    waves: list[WaveBody]
    counts: dict[str, int]
    waiting: dict[str, int]
    plan_digest: str | None
    approvals: list[ApprovalBody]
    selector: dict[str, Any]
    strategy: dict[str, Any]
    created_by: str
    pause_requested_at: int | None
    cancel_requested_at: int | None
    rollback_requested_at: int | None
    bake_until: int | None
    deadline_at: int | None
    created_at: int
    updated_at: int
    started_at: int | None
    completed_at: int | None
    etag: str


class RolloutList(TypedDict):
    """One page."""

    data: list[RolloutBody]
    has_more: bool
    next_cursor: str | None


class TargetErrorBody(TypedDict):
    """Why a target failed or was left out, without anything of the customer's values."""

    message: str
    reason: NotRequired[str]


class TargetBody(TypedDict):
    """One install of a rollout; of the customer's there is what the grant lets a vendor see.

    `grant_id` is null for the vendor's own installs. `next_try_at` of one that moves, and waits, is
    the moment until which its wave waits for it; of one that bakes, that of its next look in its
    cluster.
    """

    install_id: str
    grant_id: str | None
    workspace_id: str
    cluster_id: str
    region_id: str
    wave: int
    position: int
    state: TargetState
    waiting_for: Obstacle | None
    next_try_at: int | None
    attempts: int
    from_version_id: str | None
    plan_digest: str | None
    health: str | None
    operation_id: str | None
    rollback_operation_id: str | None
    last_error: TargetErrorBody | None
    started_at: int | None
    completed_at: int | None


class TargetList(TypedDict):
    """One page, in the order in which they move."""

    data: list[TargetBody]
    has_more: bool
    next_cursor: str | None


class RolloutEventBody(TypedDict):
    """A line of the timeline."""

    sequence: int
    kind: str
    wave: int | None
    install_id: str | None
    message: str
    at: int


class RolloutEventList(TypedDict):
    """One page, oldest first."""

    data: list[RolloutEventBody]
    has_more: bool
    next_cursor: str | None


def rollout_body(
    row: RolloutRow, wave_counts: Sequence[WaveCount] | None, *, links: Links
) -> RolloutBody:
    """Render a rollout with its targets counted; None: as the row has them, without waves."""
    counts: dict[str, int] = dict(row.counts) if wave_counts is None else {}
    waiting: dict[str, int] = {}
    waves = {number: WaveBody(wave=number, targets=0, counts={}) for number in range(row.waves)}
    for found in wave_counts or ():
        counts[found.state] = counts.get(found.state, 0) + found.targets
        if found.waiting_for is not None:
            waiting[found.waiting_for] = waiting.get(found.waiting_for, 0) + found.targets
        # What could not be reached in its own wave is in one more, behind all that were planned.
        nothing = WaveBody(wave=found.wave, targets=0, counts={})
        wave = waves.setdefault(found.wave, nothing)
        wave["targets"] += found.targets
        wave["counts"][found.state] = wave["counts"].get(found.state, 0) + found.targets
    # Approved, what was only planned goes on as every other rollout.
    is_only_planned = row.plan_only and row.state is RolloutState.PLANNED and not row.approvals
    return RolloutBody(
        id=row.id,
        html_url=links.rollout(row.id),
        workspace_id=row.workspace_id,
        product_id=row.product_id,
        package_version_id=row.package_version_id,
        state=row.state,
        done=row.state in TERMINAL or is_only_planned,
        reason=row.reason,
        plan_only=row.plan_only,
        wave=row.wave,
        waves=[] if wave_counts is None else [waves[number] for number in sorted(waves)],
        counts=counts,
        waiting=waiting,
        plan_digest=row.plan_digest,
        approvals=[ApprovalBody(**one) for one in row.approvals],  # type: ignore[typeddict-item]
        selector=row.selector,
        strategy=row.strategy,
        created_by=row.caller["principal_id"],
        pause_requested_at=unix_or_none(row.pause_requested_at),
        cancel_requested_at=unix_or_none(row.cancel_requested_at),
        rollback_requested_at=unix_or_none(row.rollback_requested_at),
        bake_until=unix_or_none(row.bake_until),
        deadline_at=unix_or_none(row.deadline_at),
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        started_at=unix_or_none(row.started_at),
        completed_at=unix_or_none(row.completed_at),
        etag=str(row.version),
    )


def target_body(row: RolloutTargetRow) -> TargetBody:
    """Render a target."""
    error = row.last_error
    moves = row.state in {TargetState.MOVING, TargetState.ROLLING_BACK}
    is_shown = row.waiting_for is not None or not moves
    return TargetBody(
        install_id=row.install_id,
        grant_id=row.grant_id or None,
        workspace_id=row.customer_workspace_id,
        cluster_id=row.cluster_id,
        region_id=row.region_id,
        wave=row.wave,
        position=row.position,
        state=row.state,
        waiting_for=row.waiting_for,
        next_try_at=unix_or_none(row.next_try_at if is_shown else None),
        attempts=row.attempts,
        from_version_id=row.from_version_id,
        plan_digest=row.plan_digest,
        health=row.health,
        operation_id=row.operation_id,
        rollback_operation_id=row.rollback_operation_id,
        last_error=None if error is None else _error_body(error),
        started_at=unix_or_none(row.started_at),
        completed_at=unix_or_none(row.completed_at),
    )


def event_body(row: RolloutEventRow) -> RolloutEventBody:
    """Render a line of the timeline."""
    return RolloutEventBody(
        sequence=row.sequence,
        kind=row.kind,
        wave=row.wave,
        install_id=row.install_id,
        message=row.message,
        at=unix(row.at),
    )


def _error_body(error: dict[str, Any]) -> TargetErrorBody:
    # What stands there besides, such as a place in the values, is the customer's.
    body = TargetErrorBody(message=str(error.get("message", "")))
    if "reason" in error:
        body["reason"] = str(error["reason"])
    return body
