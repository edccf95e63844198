"""What stands for the workers that compare an install, in tests of the API."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.worker import Worker

from domain.install_drift import InstallDriftRequest, ObjectDrift
from domain.names import CONTROL_TASK_QUEUE, task_queue_of_host
from infra.database.records.install_drift import InstallDriftRecords
from tests.api.gate import HOST, Gate
from workflows.install.drift import CompareInstall
from workflows.registry import sandbox


@dataclass
class _Looks:
    records: InstallDriftRecords
    finds: list[ObjectDrift] = field(default_factory=list)

    @activity.defn(name="detect_install_drift")
    async def look(self, request: InstallDriftRequest) -> int:
        subject = await self.records.subject_of(request)
        if subject is not None:
            await self.records.write(request, subject.render_id, self.finds)
        return len(self.finds)


@contextlib.asynccontextmanager
async def running_drift_worker(gate: Gate) -> AsyncIterator[None]:
    """Run a worker that compares installs on request, and nothing else that its queue is for."""
    async with Worker(
        await gate.clients.temporal.client(),
        task_queue=CONTROL_TASK_QUEUE,
        workflows=[CompareInstall],
        workflow_runner=sandbox(),
    ):
        yield


@contextlib.asynccontextmanager
async def finding(gate: Gate, *finds: ObjectDrift) -> AsyncIterator[None]:
    """Run a worker of the clusters' host that finds this, whatever it looks at."""
    # The sweeper is asked by the clock alone.
    looks = _Looks(InstallDriftRecords(gate.worker_database, gate.worker_database), list(finds))
    async with Worker(
        await gate.clients.temporal.client(),
        task_queue=task_queue_of_host(HOST),
        activities=[looks.look],
    ):
        yield
