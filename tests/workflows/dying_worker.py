"""A worker on queues of its own that kills itself at one moment of an operation.

`python -m tests.workflows.dying_worker` reads `Orders` as JSON from the first line of its input,
and ends with its input unless it died before.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from pydantic import BaseModel

from domain.names import workflow_id_of
from domain.operation import OPERATIONS, OperationState, OperationType
from domain.owned_operation import (
    InstallOperation,
    MachineOperation,
    SecretOperation,
    WorkerBootstrapOperation,
    machine_kind_of,
)
from infra.settings import (
    ControlPlaneSettings,
    DatabaseSettings,
    HelmSettings,
    OpenBaoSettings,
    ProviderSettings,
    StackSettings,
    TemporalSettings,
    WorkerSettings,
)
from infra.supervisor.configuration import source_root
from infra.telemetry import configure_logging
from tests.durability import ENDS_WITHIN_SECONDS, Case, Death, Fault, FaultInjector
from tests.platform import Platform
from tests.servers import Servers
from tests.workflows.hetzner import Hetzner
from tests.workflows.install.deploying import helm_settings
from worker import WorkerProcess


class Orders(BaseModel):
    """Where everything is, and when to die; without a death it lives."""

    database: DatabaseSettings
    temporal: TemporalSettings
    openbao: OpenBaoSettings
    control_planes: ControlPlaneSettings
    providers: ProviderSettings
    stacks: StackSettings | None
    helm: HelmSettings
    queue: str
    death: Death | None


async def end_despite_a_kill(
    platform: Platform,
    kind: OperationType,
    operation: InstallOperation | MachineOperation | SecretOperation | WorkerBootstrapOperation,
    queue: str,
    case: Case,
    hetzner: Hetzner | None = None,
) -> OperationState:
    """Kill the worker of an operation that is only planned, and return how the next one ends it.

    Args:
        platform: where the operation's rows are.
        kind: of the operation.
        operation: what its workflow gets; steps of a host run where that is named like the queue.
        queue: that no other worker listens on.
        case: when the worker dies.
        hetzner: where it makes machines.
    """
    workflow = OPERATIONS[kind].workflow_for(machine_kind_of(operation))
    await platform.client.start_workflow(
        workflow,
        operation,
        id=workflow_id_of(kind, operation.owner_id, operation.operation_id),
        task_queue=queue,
    )
    step, moment = case
    death = Death(workflow=workflow, step=step, moment=moment)
    within = ENDS_WITHIN_SECONDS if hetzner is None else 2 * ENDS_WITHIN_SECONDS
    with running_worker(platform.servers, queue, hetzner, death) as dying:
        assert await asyncio.to_thread(dying.wait, within) == -signal.SIGKILL
    with running_worker(platform.servers, queue, hetzner):
        return await platform.end_of(operation, within)


@contextmanager
def running_worker(
    servers: Servers, queue: str, hetzner: Hetzner | None, death: Death | None = None
) -> Iterator[subprocess.Popen[str]]:
    orders = Orders(
        database=servers.database,
        temporal=servers.temporal,
        openbao=servers.openbao("worker"),
        control_planes=servers.control_planes.model_copy(update={"host": queue}),
        providers=ProviderSettings() if hetzner is None else hetzner.providers,
        stacks=None if hetzner is None else hetzner.stacks,
        helm=helm_settings(servers.home),
        queue=queue,
        death=death,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.dying_worker"],
        cwd=source_root(),
        stdin=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(orders.model_dump_json() + "\n")
        process.stdin.flush()
        yield process
        process.kill()


async def _serve(orders: Orders) -> None:
    injector = FaultInjector()

    async def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    death = orders.death
    if death is not None:
        injector.fault = Fault(death.workflow, death.step, death.moment, die)
    settings = WorkerSettings(
        database=orders.database,
        temporal=orders.temporal,
        openbao=orders.openbao,
        control_planes=orders.control_planes,
        providers=orders.providers,
        stacks=orders.stacks,
        helm=orders.helm,
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    with (
        # Workers of other tests listen on the queues that every worker shares.
        patch("worker.CONTROL_TASK_QUEUE", orders.queue),
        patch("worker.ROLLOUTS_TASK_QUEUE", f"{orders.queue}-rollouts"),
        patch("worker.STACKS_TASK_QUEUE", f"{orders.queue}-stacks"),
        # Workflows are loaded anew for each run, and name the queue of their steps; what they share
        # is loaded once.
        patch("domain.names.STACKS_TASK_QUEUE", f"{orders.queue}-stacks"),
        patch("workflows.machine.cloud.STACKS_TASK_QUEUE", f"{orders.queue}-stacks"),
        patch("worker.SCHEDULES", ()),
        # Clusters of other tests would be placed on a host that was announced.
        patch("worker.register_host"),
    ):
        await WorkerProcess(settings, [injector]).run(ended)


if __name__ == "__main__":
    configure_logging("WARNING")
    asyncio.run(_serve(Orders.model_validate_json(sys.stdin.readline())))
