"""The progress of operations, written by the activity interceptor alone."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.operation import BOOKKEEPING_PREFIX, OperationState, StepStatus
from infra.database.engine import Database
from infra.database.records.operation import notify
from infra.database.tables import ClusterRow, OperationRow, OperationStepRow


@dataclass(frozen=True, kw_only=True, slots=True)
class StepAttempt:
    """One attempt at one step of an operation."""

    workspace_id: str
    operation_id: str
    name: str
    attempt: int

    @property
    def is_bookkeeping(self) -> bool:
        """Whether the step only writes rows; the contract hides such steps."""
        return self.name.startswith(BOOKKEEPING_PREFIX)


class StepRecords:
    """Writes the start and the end of each attempt."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def started(self, step: StepAttempt) -> None:
        """An attempt begins; the first one of an operation shows that its workflow runs."""
        async with self._database.workspace(step.workspace_id) as session:
            if step.attempt == 1:
                await _mark_started(session, step.operation_id)
            if step.is_bookkeeping:
                return
            await self._upsert(
                session,
                step,
                status=StepStatus.RUNNING,
                started_at=func.coalesce(col(OperationStepRow.started_at), func.now()),
                attempt=step.attempt,
                next_try_at=None,
            )

    async def completed(self, step: StepAttempt) -> None:
        """An attempt succeeded, and the operation's last error, if it was this step's, is over."""
        async with self._database.workspace(step.workspace_id) as session:
            if not step.is_bookkeeping:
                await self._upsert(
                    session,
                    step,
                    status=StepStatus.COMPLETED,
                    completed_at=func.now(),
                    error_reason=None,
                    error_message=None,
                    retryable=False,
                )
            if step.attempt > 1:
                await session.execute(
                    update(OperationRow)
                    .where(
                        col(OperationRow.id) == step.operation_id,
                        col(OperationRow.last_error)["step_name"].astext == step.name,
                    )
                    .values(last_error=None)
                )

    async def failed(
        self, step: StepAttempt, reason: str, message: str, next_try_at: datetime | None
    ) -> None:
        """An attempt failed; with `next_try_at` it is tried again then."""
        async with self._database.workspace(step.workspace_id) as session:
            if not step.is_bookkeeping:
                await self._upsert(
                    session,
                    step,
                    status=StepStatus.FAILED if next_try_at is None else StepStatus.RUNNING,
                    completed_at=None if next_try_at else func.now(),
                    error_reason=reason,
                    error_message=message,
                    retryable=next_try_at is not None,
                    next_try_at=next_try_at,
                )
            await session.execute(
                update(OperationRow)
                .where(
                    col(OperationRow.id) == step.operation_id,
                    col(OperationRow.state) == OperationState.RUNNING,
                )
                .values(
                    last_error={"message": message, "step_name": step.name, "reason": reason},
                    version=col(OperationRow.version) + 1,
                )
            )

    async def _upsert(self, session: AsyncSession, step: StepAttempt, **values: Any) -> None:  # noqa: ANN401 - columns
        key = {
            "workspace_id": step.workspace_id,
            "operation_id": step.operation_id,
            "name": step.name,
        }
        changed = update(OperationStepRow).where(
            *(col(getattr(OperationStepRow, name)) == value for name, value in key.items())
        )
        result = await session.execute(
            changed.values(**values).returning(col(OperationStepRow.name))
        )
        if result.first() is None:
            # An undo: not planned, so it comes after the steps, in the order in which it runs.
            position = (
                select(func.coalesce(func.max(col(OperationStepRow.position)), 0) + 1)
                .where(col(OperationStepRow.operation_id) == step.operation_id)
                .scalar_subquery()
            )
            fresh = {"attempt": step.attempt, "retryable": False, "status": StepStatus.RUNNING}
            await session.execute(
                insert(OperationStepRow)
                .values(**key, position=position, **fresh)
                .on_conflict_do_nothing()
            )
            await session.execute(changed.values(**values))
        await notify(session, step.operation_id)


async def _mark_started(session: AsyncSession, operation_id: str) -> None:
    result = await session.execute(
        update(OperationRow)
        .where(
            col(OperationRow.id) == operation_id, col(OperationRow.workflow_started_at).is_(None)
        )
        .values(workflow_started_at=func.now())
        .returning(col(OperationRow.owner_id))
    )
    owner_id = result.scalar_one_or_none()
    if owner_id is not None:
        await session.execute(
            update(ClusterRow)
            .where(
                col(ClusterRow.id) == owner_id,
                col(ClusterRow.active_operation_id) == operation_id,
                col(ClusterRow.state) == ClusterState.PENDING,
            )
            .values(
                state=ClusterState.PROVISIONING,
                version=col(ClusterRow.version) + 1,
                updated_at=func.now(),
            )
        )
