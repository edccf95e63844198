import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from infra.openbao.policies import WORKER
from infra.settings import OpenBaoSettings
from infra.temporal.client import TemporalConnection
from tests.infra.temporal import samples
from tests.servers import Servers


@dataclass(frozen=True)
class Engine:
    """Temporal as a process of ours sees it."""

    servers: Servers
    connection: TemporalConnection
    client: Client
    task_queue: str


@contextlib.contextmanager
def connected(
    servers: Servers, openbao: OpenBaoSettings, principal: str = WORKER
) -> Iterator[TemporalConnection]:
    """Have the connection of one more process."""
    connection = TemporalConnection(servers.temporal, openbao, principal)
    yield connection
    connection.close()


def sample_worker(client: Client, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[samples.Everything, samples.Child, samples.Echo],
        activities=[samples.beat_and_fail_once, samples.fail],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


@pytest.fixture
async def engine(servers: Servers) -> AsyncIterator[Engine]:
    """Run the samples' worker, which keeps no workflow in memory, so that all is read again."""
    task_queue = f"samples-{uuid4().hex}"
    with connected(servers, servers.openbao("worker")) as connection:
        client = await connection.client()
        async with sample_worker(client, task_queue):
            yield Engine(servers, connection, client, task_queue)
