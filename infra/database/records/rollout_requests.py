"""What requests write about rollouts; the workflow then does what the rows ask for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.rollout import TERMINAL, Gate, RolloutState, TargetState
from domain.rollout_plan import Place, assign_waves, sizes_of_waves, spread_order
from domain.rollout_strategy import Selector, Strategy
from infra.database.queries.access import makers_of
from infra.database.queries.rollout_sight import count_returns
from infra.database.records.new_rows import NewRows
from infra.database.records.rollout_rows import add_event, installs
from infra.database.tables import GrantRow, InstallRow, RolloutRow, RolloutTargetRow

# As many as a rollout is measured with.
MOST_TARGETS: Final = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reached:
    """An install that a rollout may move; `grant_id` is empty for the vendor's own."""

    install_id: str
    grant_id: str
    customer_workspace_id: str
    cluster_id: str
    region_id: str
    current_version_id: str | None
    health: str


async def create_rollout(
    session: AsyncSession,
    caller: Caller,
    *,
    product_id: str,
    package_version_id: str,
    selector: Selector,
    strategy: Strategy,
    plan_only: bool,
) -> RolloutRow:
    """Choose the targets and their waves, and add all rows of a new rollout.

    Targets are the installs of the product on which a grant to the vendor is in force, and the
    vendor's own, which need none.

    Raises:
        BulkheadError: INVALID_ARGUMENT when no install matches, or more than a rollout can have.
    """
    reached = await _reach(session, caller.workspace_id, product_id, selector)
    _check_number(len(reached))
    rollout_id = new_id(Prefix.ROLLOUT)
    order = spread_order(list(reached), rollout_id)
    # Those that have the version come last: a canary of them would show nothing.
    order.sort(key=lambda each: reached[each].current_version_id == package_version_id)
    places = assign_waves(order, strategy)
    rollout = RolloutRow(
        workspace_id=caller.workspace_id,
        id=rollout_id,
        product_id=product_id,
        package_version_id=package_version_id,
        selector=selector.to_json(),
        strategy=strategy.to_json(),
        plan_only=plan_only,
        state=RolloutState.PLANNING,
        waves=len(sizes_of_waves(len(order), strategy)),
        counts={TargetState.PENDING: len(order)},
        approvals=[],
        caller={**asdict(caller), "makers": await makers_of(session, caller)},
    )
    rows = NewRows()
    rows.add(rollout)
    for install_id in order:
        rows.add(_target(rollout, install_id, reached[install_id], places[install_id]))
    await rows.write(session)
    await add_event(
        session,
        rollout,
        "rollout.created",
        f"{installs(len(order))} in {_waves_in_words(rollout.waves, strategy)}.",
    )
    return rollout


def _waves_in_words(count: int, strategy: Strategy) -> str:
    """Return how many waves there are; the canary goes first, and is not counted as one."""
    counted = count - bool(strategy.canary)
    told = "1 wave" if counted == 1 else f"{counted} waves"
    if not strategy.canary:
        return told
    return f"the canary and {told}" if counted else "the canary"


def _target(
    rollout: RolloutRow, install_id: str, found: _Reached, place: Place
) -> RolloutTargetRow:
    return RolloutTargetRow(
        workspace_id=rollout.workspace_id,
        rollout_id=rollout.id,
        install_id=install_id,
        grant_id=found.grant_id,
        customer_workspace_id=found.customer_workspace_id,
        cluster_id=found.cluster_id,
        region_id=found.region_id,
        wave=place.wave,
        position=place.position,
        state=TargetState.PENDING,
        from_version_id=found.current_version_id,
        health=found.health,
    )


async def request_pause(session: AsyncSession, rollout: RolloutRow, caller: Caller) -> None:
    """Ask that nothing new begins. A rollback that is asked for at the same time goes on.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it has ended, or is being taken back.
    """
    _check_not_ended(rollout)
    if rollout.state is RolloutState.ROLLING_BACK:
        message = "The rollout is being taken back, which is not paused. Hold installs instead."
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    if rollout.pause_requested_at is None:
        rollout.pause_requested_at = _touched(rollout)
        await _note(session, rollout, "rollout.pause_requested", "Pause asked for", caller)


async def request_resume(session: AsyncSession, rollout: RolloutRow, caller: Caller) -> None:
    """Take a pause back.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it has ended, or is being taken back.
    """
    _check_not_ended(rollout)
    if rollout.state is RolloutState.ROLLING_BACK:
        message = "The rollout is being taken back; start another one instead."
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    if rollout.pause_requested_at is not None:
        rollout.pause_requested_at = None
        _touched(rollout)
        await _note(session, rollout, "rollout.resume_requested", "Resume asked for", caller)


async def request_cancel(session: AsyncSession, rollout: RolloutRow, caller: Caller) -> None:
    """Ask that it ends with what was moved staying moved.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it has ended, or is being taken back.
    """
    _check_not_ended(rollout)
    if rollout.state is RolloutState.ROLLING_BACK:
        message = "The rollout is being taken back, and ends by itself."
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    if rollout.cancel_requested_at is None:
        rollout.cancel_requested_at = _touched(rollout)
        await _note(session, rollout, "rollout.cancel_requested", "Cancel asked for", caller)


async def request_rollback(session: AsyncSession, rollout: RolloutRow, caller: Caller) -> None:
    """Ask that everything that was moved is taken back, also when the rollout has ended.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it has ended and nothing is left to take back.
    """
    if rollout.state in TERMINAL:
        await _begin_again(session, rollout)
    if rollout.rollback_requested_at is None:
        rollout.rollback_requested_at = _touched(rollout)
        await _note(session, rollout, "rollout.rollback_requested", "Rollback asked for", caller)


async def approve(session: AsyncSession, rollout: RolloutRow, digest: str, caller: Caller) -> None:
    """Let a rollout that waits for an approval go on with its wave.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it does not wait for one; ABORTED for another
            digest, with the one there is; PERMISSION_DENIED for whoever created it, where a gate
            asks for somebody else.
    """
    if rollout.state is not RolloutState.PLANNED or rollout.plan_digest is None:
        message = f"The rollout is {rollout.state}; it does not wait for an approval."
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    if rollout.plan_digest != digest:
        raise BulkheadError(
            Reason.ABORTED,
            "The plan is another one by now. Look at it again, and approve the digest it has.",
            path=("body", "digest"),
            metadata={"plan_digest": rollout.plan_digest},
        )
    strategy = Strategy.from_json(rollout.strategy)
    if strategy.gate is not Gate.NONE:
        _check_is_somebody_else(rollout, await makers_of(session, caller))
    now = _touched(rollout)
    approval = {
        "wave": rollout.wave,
        "principal_id": caller.principal_id,
        "digest": digest,
        "at": int(now.timestamp()),
    }
    rollout.approvals = [*rollout.approvals, approval]
    approved = f"{strategy.wave_in_words(rollout.wave).capitalize()} approved"
    await _note(session, rollout, "rollout.approved", approved, caller)


def _check_is_somebody_else(rollout: RolloutRow, makers: Sequence[str]) -> None:
    """Refuse whoever created a rollout, also with a token of theirs."""
    created = rollout.caller.get("makers") or [rollout.caller["principal_id"]]
    if set(created) & set(makers):
        message = (
            "Who created a rollout with a gate cannot approve it, nor with a token of theirs; "
            "somebody else must."
        )
    elif not (is_id(Prefix.USER, created[-1]) and is_id(Prefix.USER, makers[-1])):
        message = (
            "Whose token created the rollout, or approves it, is not known any more: the token "
            "that made it is gone. Do both as users, or with tokens that users made."
        )
    else:
        return
    raise BulkheadError(Reason.PERMISSION_DENIED, message)


async def _reach(
    session: AsyncSession, workspace_id: str, product_id: str, selector: Selector
) -> dict[str, _Reached]:
    grants = select(GrantRow).where(
        GrantRow.vendor_workspace_id == workspace_id,
        GrantRow.product_id == product_id,
        col(GrantRow.revoked_at).is_(None),
        *_matching(selector, GrantRow, GrantRow.install_id),
    )
    own = select(InstallRow).where(
        InstallRow.workspace_id == workspace_id,
        InstallRow.product_id == product_id,
        *_matching(selector, InstallRow, InstallRow.id),
    )
    found = [_own(install) for install in await session.exec(own)]
    found += [_granted(grant) for grant in await session.exec(grants)]
    return {each.install_id: each for each in found}


def _matching(
    selector: Selector, table: type[GrantRow] | type[InstallRow], install_id: str
) -> Sequence[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if selector.regions:
        conditions.append(col(table.region_id).in_(selector.regions))
    if selector.labels:
        conditions.append(col(table.labels).contains(dict(selector.labels)))
    if selector.channel is not None:
        conditions.append(col(table.channel) == selector.channel)
    if selector.install_ids:
        conditions.append(col(install_id).in_(selector.install_ids))
    return conditions


def _granted(grant: GrantRow) -> _Reached:
    return _Reached(
        install_id=grant.install_id,
        grant_id=grant.id,
        customer_workspace_id=grant.workspace_id,
        cluster_id=grant.cluster_id,
        region_id=grant.region_id,
        current_version_id=grant.current_version_id,
        health=grant.health,
    )


def _own(install: InstallRow) -> _Reached:
    return _Reached(
        install_id=install.id,
        grant_id="",
        customer_workspace_id=install.workspace_id,
        cluster_id=install.cluster_id,
        region_id=install.region_id,
        current_version_id=install.current_version_id,
        health=install.health,
    )


async def _begin_again(session: AsyncSession, rollout: RolloutRow) -> None:
    """Have a rollout that has ended take back what it moved and what nobody moved on since."""
    now = datetime.now(UTC)
    # What could not be taken back is tried again.
    returns = await count_returns(session, rollout.id, None, now, asked_at=now)
    if not returns.due + returns.waiting:
        message = (
            f"The rollout has ended ({rollout.state}), and nothing that it moved is left to take "
            "back. For another version start a rollout of it: `bulkhead rollouts create "
            f"{rollout.product_id} VERSION`."
        )
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    strategy = Strategy.from_json(rollout.strategy)
    rollout.state = RolloutState.ROLLING_BACK
    rollout.reason = rollout.completed_at = rollout.rollback_requested_at = None
    rollout.deadline_at = now + timedelta(seconds=strategy.deadline_seconds)


def _check_not_ended(rollout: RolloutRow) -> None:
    if rollout.state in TERMINAL:
        message = (
            f"The rollout has ended: it is {rollout.state}. "
            f"`bulkhead rollouts rollback {rollout.id}` takes back what it moved."
        )
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)


def _touched(rollout: RolloutRow) -> datetime:
    now = datetime.now(UTC)
    rollout.version += 1
    rollout.updated_at = now
    return now


async def _note(
    session: AsyncSession, rollout: RolloutRow, kind: str, what: str, caller: Caller
) -> None:
    message = f"{what} by {caller.principal_id}."
    await add_event(session, rollout, kind, message, wave=rollout.wave)


def _check_number(targets: int) -> None:
    if targets == 0:
        message = "No install of the product that you may move matches the selector."
    elif targets > MOST_TARGETS:
        message = (
            f"{targets} installs match; a rollout has {MOST_TARGETS} at most. Narrow the selector, "
            "such as by region."
        )
    else:
        return
    raise BulkheadError(Reason.INVALID_ARGUMENT, message, path=("body", "selector"))
