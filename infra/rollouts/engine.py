"""Moves one install for a rollout: plans the operation, starts it and waits for its end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller, PrincipalKind, system_caller
from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.install import RenderState
from domain.operation import (
    UNDO_PREFIX,
    WAITING_FOR_APPROVAL,
    WAITING_FOR_EMERGENCY_STOP,
    OperationState,
    OperationType,
)
from domain.owned_operation import TypedOperation
from domain.rollout import Obstacle
from domain.rollout_failures import failure_told
from domain.rollout_obstacles import TargetFacts
from domain.rollout_strategy import Strategy
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.records.install_plan import Deployment, plan_deployment
from infra.database.records.operation import (
    caller_of,
    notify,
    owned_operation_of,
    request_cancellation,
)
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    OperationRow,
    OperationStepRow,
    PackageVersionRow,
    RenderRow,
)
from infra.temporal.outbox import Outbox

# Its workflow says when an operation has ended. One that was lost, or that nobody can be asked
# for, says nothing: then the row is looked at.
_WORKFLOW_SECONDS: Final = 20.0
_LOOKS_SECONDS: Final = 1.0

# What ends by what a person does alone. Everything else for which an operation waits has a bound.
_WAITS: Final[Mapping[str, Obstacle]] = {
    WAITING_FOR_APPROVAL: Obstacle.APPROVAL,
    WAITING_FOR_EMERGENCY_STOP: Obstacle.EMERGENCY_STOP,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveOrder:
    """What an operation does for a rollout.

    Attributes:
        rollout_id: the rollout.
        version_id: what the install becomes.
        restored_from: the render to which it returns; None: the version is rendered.
        approved_plan_digest: of the plan that was approved; another one fails the operation.
    """

    rollout_id: str
    version_id: str
    restored_from: str | None = None
    approved_plan_digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveEnd:
    """How an operation ended.

    Attributes:
        succeeded: it did what was asked for; otherwise it put back what was there.
        reason: why it did not succeed.
        told: the same as the start of a sentence for the vendor, with nothing of the customer's.
    """

    succeeded: bool
    reason: str | None = None
    told: str = "Its operation failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSubject:
    """What the host of a target's control plane needs to know of it.

    Attributes:
        rollout_id: the rollout.
        install_id: the install.
        region_id: where it is.
        plane: its control plane.
        version: what it shall become, or has become.
        strategy: of the rollout.
        waits_for: what is in its way, as was noted last.
        bake_until: when its wave's bake ends; None: nothing bakes.
        facts: what is known of it at the moment; None: it is gone.
    """

    rollout_id: str
    install_id: str
    region_id: str
    plane: HostedControlPlane
    version: PackageVersionRow
    strategy: Strategy
    waits_for: Obstacle | None
    bake_until: datetime | None
    facts: TargetFacts | None


class TargetPlanner(Protocol):
    """Makes the plan of a target, and changes nothing of the install."""

    async def digest_of(self, subject: TargetSubject) -> str:
        """Return the digest of what the version would do, and keep the plan for its own people.

        Raises:
            BulkheadError: the plan cannot be made.
        """


class TargetEngine(Protocol):
    """Moves installs. Each method may be repeated."""

    async def plan(
        self, session: AsyncSession, install: InstallRow, cluster: ClusterRow, order: MoveOrder
    ) -> str:
        """Add the rows of an operation and return its id; nothing is started.

        Args:
            session: a transaction in the customer's workspace that holds the install.
            install: on which no operation works.
            cluster: of the install.
            order: what to do.

        Raises:
            BulkheadError: FAILED_PRECONDITION when there is nothing to return to.
        """

    async def look(self, workspace_id: str, operation_id: str) -> MoveEnd | Obstacle | None:
        """Wait for the end of an operation for a while, unless it waits for something itself.

        One that was planned is started.

        Returns:
            How it ended, or what it waits for; None: it goes on.
        """

    async def cancel(self, workspace_id: str, operation_id: str) -> None:
        """Have an operation undo what it did; nothing happens when it is too late for that."""


class InstallEngine:
    """The real one: an install's own operations, started as the outbox does."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def plan(
        self, session: AsyncSession, install: InstallRow, cluster: ClusterRow, order: MoveOrder
    ) -> str:
        """Plan a render, or a restore, of the install."""
        caller = system_caller(install.workspace_id, order.rollout_id)
        request: dict[str, Any] = {"rollout_id": order.rollout_id}
        if order.restored_from is None:
            kind, values = OperationType.INSTALL_RENDER, install.values
            message = f"Rollout {order.rollout_id}"
        else:
            render = await _render_to_restore(session, order.restored_from)
            kind, values = OperationType.INSTALL_RESTORE, render.values
            message = f"Rollout {order.rollout_id} is taken back"
        if order.approved_plan_digest is not None:
            request["approved_plan_digest"] = order.approved_plan_digest
        operation, _ = plan_deployment(
            session,
            install,
            cluster,
            caller,
            kind,
            Deployment(
                version_id=order.version_id,
                values=values,
                restored_from=order.restored_from,
                message=message,
            ),
            request=request,
        )
        _audit(session, caller, install, operation)
        return operation.id

    async def look(self, workspace_id: str, operation_id: str) -> MoveEnd | Obstacle | None:
        """Look at the operation's row; while it goes on, wait for its workflow and look again.

        The workflow is started where nothing says that it runs.
        """
        row = await self._read(workspace_id, operation_id)
        obstacle = await self._obstacle_of(row)
        if row.state is OperationState.RUNNING and obstacle is None:
            typed = TypedOperation(type=row.type, operation=owned_operation_of(row))
            if row.workflow_started_at is None:
                await self._outbox.start(typed)
            await self._outbox.until_closed(typed, _WORKFLOW_SECONDS)
            row = await self._read(workspace_id, operation_id)
            obstacle = await self._obstacle_of(row)
            if row.state is OperationState.RUNNING and obstacle is None:
                await asyncio.sleep(_LOOKS_SECONDS)
        return obstacle if row.state is OperationState.RUNNING else await self._end_of(row)

    async def cancel(self, workspace_id: str, operation_id: str) -> None:
        """Ask in the row, as a customer does, and pass that on to the workflow."""
        async with self._database.workspace(workspace_id) as session:
            row = await session.get_one(OperationRow, (workspace_id, operation_id))
            by = PrincipalKind.SYSTEM
            if row.cancel_requested_at or not await request_cancellation(session, row.id, by):
                return
            caller = caller_of(row)
            details = {"operation_id": row.id}
            add_audit_event(
                session, caller, "operation.cancel", "install", row.owner_id, details=details
            )
            await notify(session, operation_id)
        await self._outbox.cancel(workspace_id, operation_id)

    async def _obstacle_of(self, row: OperationRow) -> Obstacle | None:
        # Before a step has failed there is nothing to undo.
        known = _WAITS.get(row.waiting_for or "")
        if known or row.state is not OperationState.RUNNING or row.last_error is None:
            return known
        query = select(OperationStepRow.name).where(
            OperationStepRow.operation_id == row.id,
            col(OperationStepRow.name).startswith(UNDO_PREFIX, autoescape=True),
            col(OperationStepRow.error_reason).is_not(None),
            col(OperationStepRow.completed_at).is_(None),
        )
        async with self._database.workspace(row.workspace_id) as session:
            failing = (await session.exec(query.limit(1))).first()
        return None if failing is None else Obstacle.UNDO

    async def _end_of(self, row: OperationRow) -> MoveEnd:
        if row.state is OperationState.SUCCEEDED:
            return MoveEnd(succeeded=True)
        reason = str((row.error or {}).get("reason", Reason.ABORTED))
        async with self._database.workspace(row.workspace_id) as session:
            step = await _failed_step(session, row.id)
            unhealthy = await _unhealthy_object(session, row.id)
        # A cancel may arrive while a step is tried again: it is the reason then.
        failed = step if row.state is OperationState.FAILED else None
        told = failure_told(failed, reason, unhealthy)
        return MoveEnd(succeeded=False, reason=reason, told=told)

    async def _read(self, workspace_id: str, operation_id: str) -> OperationRow:
        async with self._database.workspace(workspace_id) as session:
            return await session.get_one(OperationRow, (workspace_id, operation_id))


async def _render_to_restore(session: AsyncSession, render_id: str) -> RenderRow:
    query = select(RenderRow).where(RenderRow.id == render_id)
    render = (await session.exec(query)).one_or_none()
    if render is None or render.state is not RenderState.DEPLOYED:
        message = "The render that the install had before is not there any more."
        raise BulkheadError(Reason.FAILED_PRECONDITION, message)
    return render


async def _failed_step(session: AsyncSession, operation_id: str) -> str | None:
    """Return the last step that has an error: none was begun after the one that failed."""
    query = (
        select(OperationStepRow.name)
        .where(
            OperationStepRow.operation_id == operation_id,
            col(OperationStepRow.error_reason).is_not(None),
        )
        .order_by(col(OperationStepRow.position).desc())
        .limit(1)
    )
    return (await session.exec(query)).one_or_none()


async def _unhealthy_object(session: AsyncSession, operation_id: str) -> Mapping[str, Any] | None:
    query = select(RenderRow.unhealthy).where(RenderRow.operation_id == operation_id)
    return (await session.exec(query)).one_or_none()


def _audit(
    session: AsyncSession, caller: Caller, install: InstallRow, operation: OperationRow
) -> None:
    add_audit_event(
        session,
        caller,
        operation.type,
        "install",
        install.id,
        details={"operation_id": operation.id, "cluster_id": install.cluster_id},
    )
