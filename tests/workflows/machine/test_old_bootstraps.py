"""Worker bootstraps are kept for a month after their end, and then forgotten."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlmodel import col, select

from domain.identifiers import Prefix, new_id
from domain.names import CONTROL_TASK_QUEUE
from infra.database.tables import WorkerBootstrapRow
from tests.workflows.machine.fleet import Fleet
from workflows.operation.reconcile import ReconcileOperations


async def test_bootstraps_that_ended_a_month_ago_are_forgotten(fleet: Fleet) -> None:
    def ended(days: int, operation_id: str | None = None) -> WorkerBootstrapRow:
        return WorkerBootstrapRow(
            workspace_id=fleet.owner.workspace_id,
            id=new_id(Prefix.WORKER_BOOTSTRAP),
            cluster_id=fleet.cluster.cluster_id,
            token_hash=secrets.token_bytes(32),
            created_by=fleet.owner.principal_id,
            expires_at=datetime.now(UTC) - timedelta(days=days),
            active_operation_id=operation_id,
        )

    old, recent, busy = ended(31), ended(29), ended(31, new_id(Prefix.OPERATION))
    identifiers = [row.id for row in (old, recent, busy)]
    kept = {recent.id, busy.id}
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        session.add_all([old, recent, busy])
    scheduled = await fleet.platform.client.start_workflow(
        ReconcileOperations.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    await asyncio.wait_for(scheduled.result(), 60)
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        identifier = col(WorkerBootstrapRow.id)
        found = await session.exec(select(identifier).where(identifier.in_(identifiers)))
        assert set(found) == kept
    await fleet.execute("DELETE FROM worker_bootstraps WHERE id = ANY(%s)", identifiers)
