"""Brings what Temporal does in line with what the operations table says."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, not_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from domain.errors import Reason
from domain.names import workflow_id_of
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from infra.database.engine import Database
from infra.database.records.operation import notify, owned_operation_of
from infra.database.tables import OperationRow
from infra.temporal.client import TemporalConnection, unavailable
from infra.temporal.start import (
    StartOutcome,
    cancel_operation,
    start_operation,
    wake_rotation,
)

# A request starts its workflow within milliseconds of its commit; what is older was left by a
# process that died in between.
_FRESH = timedelta(seconds=5)

# A worker takes a started workflow up within milliseconds. This is said of one that none does:
_BEGINS_WITHIN = timedelta(seconds=15)
_NOT_BEGUN = (
    "Its workflow was started, and no worker has begun it: its queue is long, or the secret store "
    "does not answer, so that what the workflow was given cannot be opened. It goes on by itself."
)

# A sweep looks at this many that have something to be told to Temporal, and at as many others.
_BATCH = 200

_TO_BE_TOLD = col(OperationRow.workflow_started_at).is_(None) | col(
    OperationRow.cancel_requested_at
).is_not(None)


class Outbox:
    """Starts, cancels and finds workflows for the rows of operations."""

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        temporal: TemporalConnection,
        *,
        batch: int = _BATCH,
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._temporal = temporal
        self._to_be_told = _Walk(_TO_BE_TOLD, batch)
        # Thousands may wait for approvals for a day: they take turns, and hold nobody else up.
        self._others = _Walk(not_(_TO_BE_TOLD), batch)

    async def start(self, typed: TypedOperation) -> None:
        """Start the workflow of an operation that was just planned.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
        """
        await start_operation(await self._temporal.client(), typed.type, typed.operation)

    async def until_closed(self, typed: TypedOperation, at_most_seconds: float) -> None:
        """Wait until the workflow of an operation has closed, or cannot be asked; not for ever.

        How the operation ended is in its row.
        """
        operation = typed.operation
        workflow_id = workflow_id_of(typed.type, operation.owner_id, operation.operation_id)
        handle = (await self._temporal.client()).get_workflow_handle(workflow_id)
        with contextlib.suppress(TimeoutError, RPCError, WorkflowFailureError):
            async with asyncio.timeout(at_most_seconds):
                await handle.result()

    async def cancel(self, workspace_id: str, operation_id: str) -> None:
        """Pass the cancellation that a row asks for on to its workflow.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
        """
        async with self._database.workspace(workspace_id) as session:
            row = await session.get_one(OperationRow, (workspace_id, operation_id))
        if row.cancel_requested_at is not None and row.state is OperationState.RUNNING:
            client = await self._temporal.client()
            await cancel_operation(client, row.type, row.owner_id, row.id)

    async def wake_rotation(self, typed: TypedOperation) -> None:
        """Have a rotation look at its consumers now.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
        """
        operation = typed.operation
        client = await self._temporal.client()
        await wake_rotation(client, operation.owner_id, operation.operation_id)

    async def deliver(self) -> list[TypedOperation]:
        """Start what was never started, deliver late cancels, and return what was lost.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal or the database does not answer.
        """
        client = await self._temporal.client()
        lost: list[TypedOperation] = []
        for row in await self._stale_operations():
            if row.cancel_requested_at is not None:
                await cancel_operation(client, row.type, row.owner_id, row.id)
            operation = owned_operation_of(row)
            if row.workflow_started_at is None:
                outcome = await start_operation(client, row.type, operation)
                runs = outcome is StartOutcome.RUNNING
                if runs and row.last_error is None and _is_overdue(row):
                    await self._note_not_begun(row)
            else:
                runs = await _is_open(client, row)
            if not runs and await self._still_runs(row):
                lost.append(TypedOperation(type=row.type, operation=operation))
        return lost

    async def _stale_operations(self) -> list[OperationRow]:
        async with self._sweeper.transaction() as session:
            to_be_told = await self._to_be_told.next_batch(session)
            return to_be_told + await self._others.next_batch(session)

    async def _note_not_begun(self, row: OperationRow) -> None:
        async with self._database.workspace(row.workspace_id) as session:
            await session.execute(
                update(OperationRow)
                .where(
                    col(OperationRow.id) == row.id,
                    col(OperationRow.state) == OperationState.RUNNING,
                    col(OperationRow.workflow_started_at).is_(None),
                )
                .values(
                    last_error={"reason": Reason.DEPENDENCY_UNAVAILABLE, "message": _NOT_BEGUN},
                    version=OperationRow.version + 1,
                )
            )
            await notify(session, row.id)

    async def _still_runs(self, row: OperationRow) -> bool:
        # It may have ended after the sweep read it, which is why its workflow is closed.
        async with self._database.workspace(row.workspace_id) as session:
            current = await session.get_one(OperationRow, (row.workspace_id, row.id))
            return current.state is OperationState.RUNNING


class _Walk:
    """Goes through the running operations of one sort, a batch at a time, and begins again."""

    def __init__(self, sort: ColumnElement[bool], batch: int) -> None:
        self._sort = sort
        self._batch = batch
        self._after = ""

    async def next_batch(self, session: AsyncSession) -> list[OperationRow]:
        rows = list(
            await session.exec(
                select(OperationRow)
                .where(
                    OperationRow.state == OperationState.RUNNING,
                    col(OperationRow.started_at) < datetime.now(UTC) - _FRESH,
                    self._sort,
                    OperationRow.id > self._after,
                )
                .order_by(col(OperationRow.id))
                .limit(self._batch)
            )
        )
        self._after = rows[-1].id if len(rows) == self._batch else ""
        return rows


def _is_overdue(row: OperationRow) -> bool:
    return datetime.now(UTC) - row.started_at > _BEGINS_WITHIN


async def _is_open(client: Client, row: OperationRow) -> bool:
    handle = client.get_workflow_handle(workflow_id_of(row.type, row.owner_id, row.id))
    try:
        description = await handle.describe(rpc_timeout=timedelta(seconds=3))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise unavailable() from error
    return description.status is WorkflowExecutionStatus.RUNNING
