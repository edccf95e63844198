"""Which activities each queue has, and of what they are made."""

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
from domain.rollout_work import RolloutPlace
from infra.clouds.accounts import Accounts
from infra.clouds.rate_budget import RateBudgets
from infra.clouds.visits import AccountVisits
from infra.control_planes.backend import ControlPlaneBackend
from infra.control_planes.processes import ProcessBackend
from infra.database.engine import Database
from infra.database.records.account import AccountRecords
from infra.database.records.cluster import ClusterRecords
from infra.database.records.cluster_installs import ClusterInstallRecords
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
from infra.database.records.rollout import RolloutRecords
from infra.database.records.rotation import RotationRecords
from infra.database.records.stack import StackRecords
from infra.database.records.suspension import SuspensionRecords
from infra.database.records.sweeps import Sweeps
from infra.database.records.worker_bootstrap import WorkerBootstrapRecords
from infra.helm.chart_access import ChartAccess
from infra.helm.charts import Charts
from infra.helm.program import Helm
from infra.installs.cluster_installs import ClusterInstalls
from infra.installs.deployer import Deployer
from infra.installs.renders import Renders
from infra.installs.secret_consumers import SecretConsumers
from infra.installs.secret_objects import SecretObjects
from infra.machines.clusters import HostClusters
from infra.machines.server_bootstraps import ServerBootstraps
from infra.openbao.client import OpenBao
from infra.outbound import Outbound
from infra.rollouts.checks import RolloutChecks
from infra.rollouts.cluster_checks import ClusterChecks
from infra.rollouts.engine import InstallEngine
from infra.rollouts.planner import InstallPlanner
from infra.rollouts.target_ends import TargetEnds
from infra.rollouts.target_rows import TargetRows
from infra.rollouts.targets import TargetMoves
from infra.rotators.places import TargetPlaces
from infra.rotators.registry import rotators
from infra.secret_store.cross_check import CrossCheck
from infra.secret_store.ledger import Ledger
from infra.secret_store.purges import SecretPurges
from infra.secret_store.quarantine import Quarantine
from infra.secret_store.reader import SecretReader
from infra.secret_store.rotation_values import RotationValues
from infra.secret_store.serving import ServingGate
from infra.secret_store.settlement import Settlement
from infra.settings import ControlPlaneSettings, StackSettings, WorkerSettings
from infra.stacks.stacks import Stacks
from infra.temporal.client import TemporalConnection
from infra.temporal.outbox import Outbox
from infra.temporal.rollouts import start_rollout


class Activities:
    """Makes the activity classes of one process, of the clients that it has.

    Args:
        settings: where everything is.
        database: under the worker's role.
        sweeper: under the role of the schedules' sweeps.
        openbao: signs and keeps secrets.
        temporal: for activities that start workflows.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        sweeper: Database,
        openbao: OpenBao,
        temporal: TemporalConnection,
    ) -> None:
        self._settings = settings
        self._database = database
        self._sweeper = sweeper
        self._openbao = openbao
        self._temporal = temporal
        self.outbox = Outbox(database, sweeper, temporal)
        ledger_file = settings.secret_store.ledger_file
        self.ledger = None if ledger_file is None else Ledger(ledger_file)
        self._charts = self._chart_access()
        # One for all: it bounds what runs at a time by the host's memory.
        self._helm = None if settings.helm is None else Helm(settings.helm.program)
        self._rollout_activities = self._rollouts()

    def of_control(self) -> list[object]:
        """Return the activities that need no particular host."""
        operations = OperationRecords(self._database)
        return [
            OpenBaoActivities(self._openbao),
            self._machines(operations),
            RecordActivities(
                operations,
                ClusterRecords(self._database),
                ClusterInstalls(ClusterInstallRecords(self._database), self._openbao.installs),
                self.outbox,
            ),
            InstallRecordActivities(InstallRecords(self._database), operations),
            HoldActivities(operations),
            InstallSecretRecordActivities(InstallSecretRecords(self._database), self.outbox),
            InstallSweepActivities(self.outbox, InstallSweeps(self._database, self._sweeper)),
            self._clouds(),
            self._suspensions(),
            PartActivities(PartRecords(self._database), operations, self.outbox),
            PackageActivities(PackageRecords(self._database), self._charts),
            self._account_upkeep(),
            PreflightActivities(self._accounts(), self._account_records()),
            self._secret_rotation(),
            self._secret_upkeep(),
            SweepActivities(self.outbox, Sweeps(self._database, self._sweeper)),
            DueInstallDriftActivities(self._install_drift()),
            self._rollout_activities,
        ]

    def of_rollouts(self) -> list[object]:
        """Return the activities that wait for the operations of rollouts."""
        return [self._rollout_activities]

    def of_host(self, planes: ControlPlaneSettings, clusters: HostClusters) -> list[object]:
        """Return the activities on the control planes of a host."""
        operations = OperationRecords(self._database)
        backend: ControlPlaneBackend = ProcessBackend(planes, self._openbao)
        kubectl = planes.programs_dir.absolute() / "kubectl"
        return [
            ControlPlaneActivities(backend, self._openbao),
            self._machines(operations),
            NodeActivities(clusters, backend, MachineRecords(self._database), operations, kubectl),
            InstallDriftActivities(clusters, self._openbao, self._install_drift(), self.outbox),
            self._rollout_hosts(clusters),
            *self._installs(clusters, operations),
        ]

    def of_stacks(self, stacks: Stacks, settings: StackSettings) -> list[object]:
        """Return the activities that run Pulumi."""
        return [self._stack_activities(stacks, settings), self._drift(stacks)]

    def _machines(self, operations: OperationRecords) -> MachineActivities:
        return MachineActivities(
            MachineRecords(self._database), WorkerBootstrapRecords(self._database), operations
        )

    def _rollouts(self) -> RolloutActivities:
        engine = InstallEngine(self._database, self.outbox)
        rows = TargetRows(self._database)

        async def start(place: RolloutPlace) -> None:
            await start_rollout(await self._temporal.client(), place)

        outbound = Outbound(self._settings.outbound)
        return RolloutActivities(
            RolloutRecords(self._database, self._sweeper),
            TargetMoves(rows, engine),
            TargetEnds(rows),
            engine,
            RolloutChecks(self._database, self._sweeper, outbound),
            start,
        )

    def _rollout_hosts(self, clusters: HostClusters) -> RolloutHostActivities:
        return RolloutHostActivities(
            TargetEnds(TargetRows(self._database)),
            InstallPlanner(self._database, self._deployer(clusters)),
            ClusterChecks(clusters),
        )

    def _install_drift(self) -> InstallDriftRecords:
        return InstallDriftRecords(self._database, self._sweeper)

    def _deployer(self, clusters: HostClusters) -> Deployer | None:
        if self._helm is None or self._charts is None:
            return None
        renders = Renders(clusters, self._openbao.installs, self._charts, self._helm)
        return Deployer(clusters, renders, self._helm)

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
            SuspensionRecords(self._database, self._sweeper),
            InventoryRecords(self._database),
            OperationRecords(self._database),
        )

    def _suspensions(self) -> SuspensionActivities:
        return SuspensionActivities(
            self._accounts(),
            ComputeRecords(self._database),
            StackRecords(self._database),
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
            RateBudgets(self._database),
        )
        return SecretRotationActivities(
            RotationRecords(self._database), reader, values, targets, TargetPlaces()
        )

    def _secret_upkeep(self) -> SecretUpkeepActivities:
        devices = self._settings.secret_store.audit_log_dirs
        return SecretUpkeepActivities(
            Settlement(self._database, self._sweeper, self._openbao),
            Quarantine(self._database, self._sweeper, self._openbao),
            SecretPurges(self._database, self._sweeper, self._openbao.values, self.ledger),
            CrossCheck(self._database, self._sweeper, devices),
            self.outbox,
        )
