"""Composes a worker: settings -> clients -> activity classes -> one Worker per task queue.

Run with `python -m worker`. SIGTERM drains: running activities get a bounded time to finish, and
what they do not finish is taken up by the next worker.
"""

import asyncio
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

from activities.account_upkeep import AccountUpkeepActivities
from activities.clouds import CloudActivities
from activities.control_planes import ControlPlaneActivities
from activities.drift import DriftActivities
from activities.holds import HoldActivities
from activities.install_drift import DueInstallDriftActivities, InstallDriftActivities
from activities.install_records import InstallRecordActivities
from activities.install_removal import InstallRemovalActivities
from activities.install_secrets import InstallSecretActivities, InstallSecretRecordActivities
from activities.install_sweeps import InstallSweepActivities
from activities.installs import InstallActivities
from activities.interceptor import ActivityInterceptor
from activities.machines import MachineActivities
from activities.nodes import NodeActivities
from activities.openbao import OpenBaoActivities
from activities.packages import PackageActivities
from activities.parts import PartActivities
from activities.preflight import PreflightActivities
from activities.records import RecordActivities
from activities.rollout_hosts import RolloutHostActivities
from activities.rollouts import RolloutActivities
from activities.secret_rotation import SecretRotationActivities
from activities.secret_upkeep import SecretUpkeepActivities
from activities.stacks import StackActivities
from activities.suspensions import SuspensionActivities
from activities.sweeps import SweepActivities
from domain.names import (
    CONTROL_TASK_QUEUE,
    ROLLOUTS_TASK_QUEUE,
    STACKS_TASK_QUEUE,
    task_queue_of_host,
)
from domain.rollout_work import RolloutPlace
from infra.clouds.accounts import Accounts
from infra.clouds.rate_budget import RateBudgets
from infra.clouds.visits import AccountVisits
from infra.control_planes.backend import ControlPlaneBackend
from infra.control_planes.processes import ProcessBackend
from infra.core_dumps import forbid_core_dumps
from infra.database.engine import Database, DatabaseRole
from infra.database.records.account import AccountRecords
from infra.database.records.cluster import ClusterRecords
from infra.database.records.compute import ComputeRecords
from infra.database.records.drift import DriftRecords
from infra.database.records.endings import OperationRecords
from infra.database.records.install import InstallRecords
from infra.database.records.install_drift import InstallDriftRecords
from infra.database.records.install_secret import InstallSecretRecords
from infra.database.records.install_sweeps import InstallSweeps
from infra.database.records.inventory import InventoryRecords
from infra.database.records.machine import MachineRecords
from infra.database.records.package import PackageRecords
from infra.database.records.part import PartRecords
from infra.database.records.placement import register_host
from infra.database.records.rollout import RolloutRecords
from infra.database.records.rotation import RotationRecords
from infra.database.records.stack import StackRecords
from infra.database.records.steps import StepRecords
from infra.database.records.suspension import SuspensionRecords
from infra.database.records.sweeps import Sweeps
from infra.database.records.worker_bootstrap import WorkerBootstrapRecords
from infra.helm.chart_access import ChartAccess
from infra.helm.charts import Charts
from infra.helm.program import Helm
from infra.installs.cluster_installs import ClusterInstalls
from infra.installs.deployer import Deployer
from infra.installs.observer import InstallObserver
from infra.installs.secret_consumers import SecretConsumers
from infra.installs.secret_objects import SecretObjects
from infra.machines.clusters import HostClusters
from infra.machines.keeper import MachineKeeper
from infra.machines.server_bootstraps import ServerBootstraps
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.rollouts.checks import RolloutChecks
from infra.rollouts.cluster_checks import ClusterChecks
from infra.rollouts.engine import InstallEngine
from infra.rollouts.planner import InstallPlanner
from infra.rollouts.targets import TargetMoves
from infra.rotators.outbound import Outbound
from infra.rotators.registry import rotators
from infra.secret_store.cross_check import CrossCheck
from infra.secret_store.ledger import Ledger
from infra.secret_store.purges import SecretPurges
from infra.secret_store.quarantine import Quarantine
from infra.secret_store.reader import SecretReader
from infra.secret_store.restore_guard import RestoreGuard
from infra.secret_store.rotation_values import RotationValues
from infra.secret_store.serving import ServingGate
from infra.secret_store.settlement import Settlement
from infra.settings import StackSettings, WorkerSettings
from infra.stacks.stacks import Stacks
from infra.telemetry import configure_logging
from infra.temporal.client import TemporalConnection
from infra.temporal.outbox import Outbox
from infra.temporal.rollouts import start_rollout
from infra.temporal.schedules import apply_schedule
from infra.waiting import unless_set, when_available
from workflows.registry import WORKFLOWS, sandbox
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

# Deletes that wait for another operation's end hold a place on the control queue, at most one a
# cluster; the rest are calls of milliseconds, which must always find one.
_CONTROL_PLACES = 500

# Waits for operations of targets: each is a coroutine that looks at a row once a second.
_ROLLOUT_PLACES = 1000

# A cluster has one operation at a time, and so has a machine: those of this many machines find a
# place at once, most of which are drains that wait.
_PLACES_BESIDE_THE_SLOTS = 200

# How often the secret store is compared with what a restored backup could not know.
_GUARD_SECONDS = 60.0

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
        self._outbox = Outbox(self._database, self._sweeper, self._temporal)
        ledger_file = settings.secret_store.ledger_file
        self._ledger = None if ledger_file is None else Ledger(ledger_file)
        self._threads: list[ThreadPoolExecutor] = []
        planes = settings.control_planes
        self._clusters = None if planes is None else HostClusters(planes, self._openbao)
        stacks = settings.stacks
        self._charts = self._chart_access()
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
        """Build the workers of the control queue, of this host's queue, and of stacks."""
        operations = OperationRecords(self._database)
        machine_records = MachineRecords(self._database)
        machines = MachineActivities(
            machine_records, WorkerBootstrapRecords(self._database), operations
        )
        rollouts = self._rollouts()
        workers = [
            self._control_worker(client, operations, machines, rollouts),
            self._worker(client, ROLLOUTS_TASK_QUEUE, _ROLLOUT_PLACES, holders=[rollouts]),
        ]
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            backend: ControlPlaneBackend = ProcessBackend(planes, self._openbao)
            kubectl = planes.programs_dir.absolute() / "kubectl"
            nodes = NodeActivities(self._clusters, backend, machine_records, operations, kubectl)
            workers.append(
                self._worker(
                    client,
                    task_queue_of_host(planes.host),
                    planes.slots + _PLACES_BESIDE_THE_SLOTS,
                    holders=[
                        ControlPlaneActivities(backend, self._openbao),
                        machines,
                        nodes,
                        InstallDriftActivities(
                            self._clusters, self._openbao, self._install_drift(), self._outbox
                        ),
                        self._rollout_hosts(self._clusters),
                        *self._installs(self._clusters, operations),
                    ],
                )
            )
        if self._settings.stacks is not None and self._stacks is not None:
            stacks = self._stack_activities(self._stacks, self._settings.stacks)
            workers.append(
                self._worker(
                    client,
                    STACKS_TASK_QUEUE,
                    self._settings.stacks.slots,
                    holders=[stacks, self._drift(self._stacks)],
                )
            )
        return workers

    def _control_worker(
        self,
        client: Client,
        operations: OperationRecords,
        machines: MachineActivities,
        rollouts: RolloutActivities,
    ) -> Worker:
        return self._worker(
            client,
            CONTROL_TASK_QUEUE,
            _CONTROL_PLACES,
            workflows=WORKFLOWS,
            holders=[
                OpenBaoActivities(self._openbao),
                machines,
                RecordActivities(
                    operations,
                    ClusterRecords(self._database),
                    ClusterInstalls(InstallRecords(self._database), self._openbao.installs),
                    self._outbox,
                ),
                InstallRecordActivities(InstallRecords(self._database), operations),
                HoldActivities(operations),
                InstallSecretRecordActivities(InstallSecretRecords(self._database), self._outbox),
                InstallSweepActivities(self._outbox, InstallSweeps(self._database, self._sweeper)),
                self._clouds(),
                self._suspensions(),
                PartActivities(PartRecords(self._database), operations, self._outbox),
                PackageActivities(PackageRecords(self._database), self._charts),
                self._account_upkeep(),
                PreflightActivities(self._accounts(), self._account_records()),
                self._secret_rotation(),
                self._secret_upkeep(),
                SweepActivities(self._outbox, Sweeps(self._database, self._sweeper)),
                DueInstallDriftActivities(self._install_drift()),
                rollouts,
            ],
        )

    def _rollouts(self) -> RolloutActivities:
        engine = InstallEngine(self._database, self._outbox)

        async def start(place: RolloutPlace) -> None:
            await start_rollout(await self._temporal.client(), place)

        outbound = Outbound(self._settings.outbound)
        return RolloutActivities(
            RolloutRecords(self._database, self._sweeper),
            TargetMoves(self._database, engine),
            engine,
            RolloutChecks(self._database, self._sweeper, outbound),
            start,
        )

    def _rollout_hosts(self, clusters: HostClusters) -> RolloutHostActivities:
        return RolloutHostActivities(
            TargetMoves(self._database, InstallEngine(self._database, self._outbox)),
            InstallPlanner(self._database, self._deployer(clusters)),
            ClusterChecks(clusters),
        )

    async def keep_machines(self) -> None:
        """Look after the machines of this host's clusters, where there is a host."""
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            await MachineKeeper(
                self._database, self._sweeper, self._clusters, self._outbox, planes.host
            ).run()

    async def observe_installs(self) -> None:
        """Look after the installs on this host's clusters, where there is a host."""
        planes = self._settings.control_planes
        if planes is not None and self._clusters is not None:
            await InstallObserver(self._database, self._sweeper, self._clusters, planes.host).run()

    def _install_drift(self) -> InstallDriftRecords:
        return InstallDriftRecords(self._database, self._sweeper)

    def _deployer(self, clusters: HostClusters) -> Deployer | None:
        helm = self._settings.helm
        if helm is None or self._charts is None:
            return None
        return Deployer(clusters, self._openbao.installs, self._charts, Helm(helm.program))

    def _installs(self, clusters: HostClusters, operations: OperationRecords) -> list[object]:
        helm, deployer = self._settings.helm, self._deployer(clusters)
        if helm is None or deployer is None:
            return []
        secret_records = InstallSecretRecords(self._database)
        secrets = SecretObjects(secret_records, self._secret_reader(), clusters)
        records, vault = InstallRecords(self._database), self._openbao.installs
        return [
            InstallActivities(deployer, secrets, vault, records, operations, helm),
            InstallRemovalActivities(deployer, secrets, vault, records, operations, helm),
            InstallSecretActivities(secrets, SecretConsumers(clusters), secret_records),
        ]

    def _chart_access(self) -> ChartAccess | None:
        helm = self._settings.helm
        if helm is None:
            return None
        return ChartAccess(
            Charts(helm, Outbound(self._settings.outbound)),
            PackageRecords(self._database),
            self._secret_reader(),
        )

    def _secret_reader(self) -> SecretReader:
        gate = ServingGate(self._openbao.marker, self._settings.openbao.restored_at_file)
        return SecretReader(self._database, self._openbao.values, gate)

    def _accounts(self) -> Accounts:
        return Accounts(
            self._secret_reader(), RateBudgets(self._database), self._settings.providers
        )

    def _clouds(self) -> CloudActivities:
        return CloudActivities(
            self._accounts(),
            ComputeRecords(self._database),
            StackRecords(self._database),
            InventoryRecords(self._database),
            OperationRecords(self._database),
        )

    def _suspensions(self) -> SuspensionActivities:
        return SuspensionActivities(
            self._accounts(),
            ComputeRecords(self._database),
            SuspensionRecords(self._database, self._sweeper),
        )

    def _account_records(self) -> AccountRecords:
        return AccountRecords(self._database, self._sweeper)

    def _account_upkeep(self) -> AccountUpkeepActivities:
        return AccountUpkeepActivities(
            AccountVisits(
                self._accounts(), self._account_records(), InventoryRecords(self._database)
            ),
            SuspensionRecords(self._database, self._sweeper),
            DriftRecords(self._database, self._sweeper),
        )

    def _drift(self, stacks: Stacks) -> DriftActivities:
        return DriftActivities(
            stacks,
            self._accounts(),
            ComputeRecords(self._database),
            DriftRecords(self._database, self._sweeper),
        )

    def _stack_activities(self, stacks: Stacks, settings: StackSettings) -> StackActivities:
        return StackActivities(
            stacks,
            self._accounts(),
            ServerBootstraps(self._database, self._openbao, settings),
            MachineRecords(self._database),
            ComputeRecords(self._database),
            StackRecords(self._database),
            SuspensionRecords(self._database, self._sweeper),
        )

    def _secret_rotation(self) -> SecretRotationActivities:
        values = self._openbao.values
        reader = self._secret_reader()
        targets = rotators(
            self._database,
            self._openbao,
            RotationValues(reader),
            self._settings.outbound,
            self._settings.providers,
        )
        return SecretRotationActivities(RotationRecords(self._database), reader, values, targets)

    def _secret_upkeep(self) -> SecretUpkeepActivities:
        devices = self._settings.secret_store.audit_log_dirs
        return SecretUpkeepActivities(
            Settlement(self._database, self._sweeper, self._openbao),
            Quarantine(self._database, self._sweeper, self._openbao),
            SecretPurges(self._database, self._sweeper, self._openbao.values, self._ledger),
            CrossCheck(self._database, self._sweeper, devices),
            self._outbox,
        )

    async def _keep_guarding(self) -> None:
        """Look for restored backups at the start and then every minute, where the ledger is."""
        if self._ledger is None:
            log.warning("no ledger of purges is kept here: SECRET_STORE__LEDGER_FILE is not set")
            return
        restored_at_file = self._settings.openbao.restored_at_file
        guard = RestoreGuard(
            self._database, self._sweeper, self._openbao, self._ledger, restored_at_file
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


async def _main() -> None:
    forbid_core_dumps()
    settings = WorkerSettings()
    configure_logging(settings.log.level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await WorkerProcess(settings).run(stop)


if __name__ == "__main__":
    asyncio.run(_main())
    logging.shutdown()
    # The SDK's threads can abort a plain interpreter exit (temporalio/sdk-python issue 300).
    os._exit(0)
