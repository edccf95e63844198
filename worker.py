"""Composes a worker: settings -> clients -> activity classes -> one Worker per task queue.

Run with `python -m worker`. SIGTERM drains: running activities get a bounded time to finish, and
what they do not finish is taken up by the next worker.
"""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from activities.composition import Activities
from activities.interceptor import ActivityInterceptor
from domain.names import (
    CONTROL_TASK_QUEUE,
    ROLLOUTS_TASK_QUEUE,
    STACKS_TASK_QUEUE,
    task_queue_of_host,
)
from infra.core_dumps import forbid_core_dumps
from infra.database.engine import Database, DatabaseRole
from infra.database.records.placement import register_host
from infra.database.records.steps import StepRecords
from infra.installs.observer import InstallObserver
from infra.machines.clusters import HostClusters
from infra.machines.keeper import MachineKeeper
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.secret_store.restore_guard import RestoreGuard
from infra.settings import WorkerSettings
from infra.stacks.stacks import Stacks
from infra.telemetry import configure_logging
from infra.temporal.client import TemporalConnection
from infra.temporal.schedules import apply_schedule
from infra.waiting import unless_set, when_available
from workflows.registry import TARGET_WORKFLOWS, WORKFLOWS, sandbox
from workflows.schedules import SCHEDULES

# Longer than a step that stops a control plane takes (etcd needs up to 8 s), shorter than what
# process supervisors wait before they kill.
_DRAIN = timedelta(seconds=15)

# A cancel reaches an activity with its next heartbeat; the default would hold that back for most
# of the heartbeat timeout.
_HEARTBEAT_THROTTLE = timedelta(seconds=1)

# Host and schedules are announced again and again: a Temporal server that lost its store, or a
# database restored from a backup, gets them back without a restart of the workers.
_ANNOUNCE_SECONDS = 30.0

# What waits holds a place on the control queue and costs no more than a coroutine: for another
# operation's end, for a part of an operation, for a server that shall join. The rest are calls of
# milliseconds, which must always find a place.
_CONTROL_PLACES = 2000

# What blocks and is no activity of its own, all of it calls of milliseconds to servers of ours: a
# process of two cores would have six threads for it. What clouds are asked has threads of its own.
_THREADS = 32

# Waits for operations of targets: each is a coroutine that looks at a row once a second.
_ROLLOUT_PLACES = 1000

# A cluster has one operation at a time, and so has a machine: those of this many machines find a
# place at once, most of which are drains that wait.
_PLACES_BESIDE_THE_SLOTS = 200

# How often the secret store is compared with what a restored backup could not know.
_GUARD_SECONDS = 60.0

_OBJECTS_BETWEEN_COLLECTIONS = 20_000

log = structlog.get_logger(__name__)


class WorkerProcess:
    """The clients, activities and Temporal workers of one process.

    Args:
        settings: where everything is.
        interceptors: further ones, inside our own; a proof of durability injects faults there.
    """

    def __init__(self, settings: WorkerSettings, interceptors: Sequence[Interceptor] = ()) -> None:
        self._settings = settings
        self._interceptors = interceptors
        self._database = Database(settings.database, DatabaseRole.WORKER)
        self._sweeper = Database(settings.database, DatabaseRole.SWEEPER)
        self._steps = StepRecords(settings.database)
        self._temporal = TemporalConnection(settings.temporal, settings.openbao, WORKER)
        self._openbao = OpenBao(settings.openbao)
        self._activities = Activities(
            settings, self._database, self._sweeper, self._openbao, self._temporal
        )
        self._threads: list[ThreadPoolExecutor] = []
        planes = settings.control_planes
        self._clusters = None if planes is None else HostClusters(planes, self._openbao)
        stacks = settings.stacks
        self._stacks = (
            None
            if stacks is None
            else Stacks(self._database, self._openbao, settings.database, stacks)
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; waits for what is not up yet."""
        guarding = asyncio.create_task(self._keep_guarding())
        keeping = asyncio.create_task(self.keep_machines())
        observing = asyncio.create_task(self.observe_installs())
        client = await unless_set(stop, when_available(self._temporal.client))
        if client is not None:
            async with AsyncExitStack() as running:
                workers = self.workers(client)
                for worker in workers:
                    await running.enter_async_context(worker)
                log.info("worker is ready")
                await unless_set(stop, self._keep_announcing(client))
                # Side by side: one after the other each would take its full time to drain.
                await asyncio.gather(*(worker.shutdown() for worker in workers))
        guarding.cancel()
        keeping.cancel()
        observing.cancel()
        await asyncio.wait({guarding, keeping, observing})
        await self.close()

    async def close(self) -> None:
        """Close what the process holds open."""
        for threads in self._threads:
            threads.shutdown(wait=False)
        if self._clusters is not None:
            self._clusters.close()
        if self._stacks is not None:
            await self._stacks.close()
        self._openbao.close()
        self._temporal.close()
        await self._steps.close()
        await self._database.close()
        await self._sweeper.close()

    def workers(self, client: Client) -> list[Worker]:
        """Build the workers of the control queue, of rollouts, of this host's queue, of stacks."""
        made = self._activities
        workers = [
            self._worker(
                client,
                CONTROL_TASK_QUEUE,
                _CONTROL_PLACES,
                workflows=WORKFLOWS,
                holders=made.of_control(),
            ),
            self._worker(
                client,
                ROLLOUTS_TASK_QUEUE,
                _ROLLOUT_PLACES,
                workflows=TARGET_WORKFLOWS,
                holders=made.of_rollouts(),
            ),
        ]
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            places = planes.slots + _PLACES_BESIDE_THE_SLOTS
            holders = made.of_host(planes, self._clusters)
            queue = task_queue_of_host(planes.host)
            workers.append(self._worker(client, queue, places, holders=holders))
        stacks = self._settings.stacks
        if stacks is not None and self._stacks is not None:
            holders = made.of_stacks(self._stacks, stacks)
            workers.append(self._worker(client, STACKS_TASK_QUEUE, stacks.slots, holders=holders))
        return workers

    async def keep_machines(self) -> None:
        """Look after the machines of this host's clusters, where there is a host."""
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            await MachineKeeper(
                self._database, self._sweeper, self._clusters, self._activities.outbox, planes.host
            ).run()

    async def observe_installs(self) -> None:
        """Look after the installs on this host's clusters, where there is a host."""
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            await InstallObserver(self._database, self._sweeper, self._clusters, planes.host).run()

    async def _keep_guarding(self) -> None:
        """Look for restored backups at the start and then every minute, where the ledger is."""
        if self._activities.ledger is None:
            log.warning("no ledger of purges is kept here: SECRET_STORE__LEDGER_FILE is not set")
            return
        restored_at_file = self._settings.openbao.restored_at_file
        guard = RestoreGuard(
            self._database, self._sweeper, self._openbao, self._activities.ledger, restored_at_file
        )
        while True:
            await when_available(guard.check)
            await asyncio.sleep(_GUARD_SECONDS)

    async def _keep_announcing(self, client: Client) -> None:
        while True:
            await self._announce(client)
            await asyncio.sleep(_ANNOUNCE_SECONDS)

    async def _announce(self, client: Client) -> None:
        planes = self._settings.control_planes
        if planes is not None:
            await when_available(lambda: register_host(self._database, planes))
        for schedule in SCHEDULES:
            await when_available(
                partial(
                    apply_schedule,
                    client,
                    schedule.id,
                    schedule.workflow.__name__,
                    schedule.every,
                    schedule.jitter,
                )
            )

    def _worker(
        self,
        client: Client,
        task_queue: str,
        places: int,
        *,
        holders: Sequence[object],
        workflows: Sequence[type] = (),
    ) -> Worker:
        # Threads are made when they are needed, and kept.
        threads = ThreadPoolExecutor(places, thread_name_prefix=task_queue)
        self._threads.append(threads)
        return Worker(
            client,
            task_queue=task_queue,
            workflows=workflows,
            activities=[each for holder in holders for each in _activities(holder)],
            activity_executor=threads,
            max_concurrent_activities=places,
            interceptors=[ActivityInterceptor(self._steps), *self._interceptors],
            workflow_runner=sandbox(),
            graceful_shutdown_timeout=_DRAIN,
            max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
            default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        )


def _activities(holder: object) -> list[Callable[..., Any]]:
    methods = (getattr(holder, name) for name in dir(type(holder)) if not name.startswith("_"))
    return [method for method in methods if hasattr(method, "__temporal_activity_definition")]


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    forbid_core_dumps()
    settings = WorkerSettings()
    configure_logging(settings.log.level)
    # Not uvloop, which the API has: it starts programs by a fork that runs Python code in the
    # child, and of a process with many threads that child can stop before it becomes the program.
    # The loop waits for it, and with it the whole worker; seen in a hundred runs of helm.
    asyncio.run(_run(settings))


async def _run(settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="worker"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    process = WorkerProcess(settings)
    # What is loaded by now stays: the collector need not look through it again and again. Every 700
    # new objects, as by default, it was a twentieth of what a rollout takes of the processor.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    await process.run(stop)


if __name__ == "__main__":
    main()
    logging.shutdown()
    # The SDK's threads can abort a plain interpreter exit (temporalio/sdk-python issue 300).
    os._exit(0)
