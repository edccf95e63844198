"""A whole stack in one directory: brought up and taken down."""

import contextlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

from infra.artifacts import ArtifactStore
from infra.control_planes.processes import host_supervisor
from infra.database.bootstrap import bootstrap, ensure_password_files
from infra.embedded import charts, clouds, for_nodes
from infra.embedded import node_address as node_addresses
from infra.embedded import ports as port_files
from infra.embedded.applications import HOST, code_changed_at, environment_of, run_host
from infra.embedded.composition import Composition
from infra.embedded.home import Home
from infra.embedded.openbao import AUDIT_LOGS, OpenBao
from infra.embedded.owner import Owner, ensure_owner
from infra.embedded.registry import REGISTRY_CERTIFICATE
from infra.embedded.server import Part, start
from infra.settings import ControlPlaneSettings, EmbeddedSettings
from infra.supervisor.supervisor import Supervisor
from infra.tools import CLIENT, CONTROL_PLANE, DEPLOYMENT, NODE, STACKS, ensure, install_into

SERVERS = frozenset({Part.POSTGRESQL, Part.TEMPORAL, Part.OPENBAO})
ALL_PARTS = frozenset(Part)
_APPLICATIONS = frozenset({Part.WORKER, Part.API})
# What only servers that join need, and therefore only a stack that they reach has.
_FOR_NODES = frozenset({Part.REGISTRY, Part.GATEWAY, Part.CLOUDS})
# What is brought up behind the servers, because nothing of them needs it.
_BESIDE = _FOR_NODES | {Part.CHARTS}

_WAITING = "waiting for another `up` or `down`"

# Told of each thing that is done: opened when it begins, closed when it ends.
Report = Callable[[str], contextlib.AbstractContextManager[None]]


def report_nothing(_title: str) -> contextlib.AbstractContextManager[None]:
    """Take reports in silence."""
    return contextlib.nullcontext()


class Stack(Composition):
    """One embedded stack, brought up and taken down. Every method may be repeated."""

    def __init__(
        self,
        home: Home,
        settings: EmbeddedSettings | None = None,
        *,
        durable: bool = True,
    ) -> None:
        super().__init__(home, settings, durable=durable)
        self.supervisor = Supervisor(home.supervisor)

    def up(
        self, parts: AbstractSet[Part] = ALL_PARTS, report: Report = report_nothing
    ) -> Owner | None:
        """Bring the parts up and wait until each is ready.

        What runs already is left alone, but for our own processes when their code has changed.

        Returns the first owner when the API is among the parts.

        Raises:
            BulkheadError: something could not be made, or a part did not get ready
                (`PartFailedError`). What came up stays up, and another `up` goes on from there.
        """
        with self.changing(report):
            self.home.refuse_unfinished_restore()
            if parts & {Part.CONTROL_PLANES, Part.WORKER}:
                with report("Kubernetes programs"):
                    install_into(self.home.programs, (*CONTROL_PLANE, *CLIENT, *DEPLOYMENT))
            if Part.CHARTS in parts:
                with report("registry of charts"):
                    install_into(self.home.programs, (charts.PROGRAM,))
            if Part.REGISTRY in parts and self.registry_address is not None:
                with report("images"):
                    for_nodes.make_images(self.home)
            if Part.API in parts and self.node_address is not None:
                with report("programs of nodes"):
                    ArtifactStore(self.home.artifacts).ensure(ensure(NODE))
            if Part.WORKER in parts and self.clouds.are_used:
                with report("Pulumi"):
                    install_into(self.home.programs, STACKS)
                    clouds.install_programs(self.home, self.clouds)
            self.up_servers(parts, report)
            self._up_beside(parts, report)
            return self._up_applications(parts, report)

    @contextlib.contextmanager
    def changing(self, report: Report = report_nothing) -> Iterator[None]:
        """Be the only one that changes the stack, which has a directory and ports from then on."""
        self.end_lost()
        self.home.make()
        with (
            self.home.locked(lambda: report(_WAITING)),
            port_files.chosen(self.home.ports_file, self._settings) as self._ports,
        ):
            node_addresses.ensure(
                self.home.node_address_file, self._settings.node_address, self._ports.number
            )
            clouds.ensure(self.home, self._settings, has_address=self.node_address is not None)
            yield

    def down(self, report: Report = report_nothing) -> None:
        """Stop every process and keep everything else."""
        self.end_lost()
        if not self.home.ports_file.exists():
            return
        with self.home.locked(lambda: report(_WAITING)):
            if self.supervisor.pid:
                # First whoever would miss the servers.
                with report("worker and API"):
                    _all_at_once(lambda part: self.supervisor.stop(part, part), _APPLICATIONS)
            with report("servers"):
                self.supervisor.shutdown()
            if self.home.control_planes.exists():
                with report(Part.CONTROL_PLANES):
                    run_host(self.home, environment_of(self.control_planes), "--stop")

    def lost(self) -> list[int]:
        """Return each supervisord that still runs although this home was removed under it."""
        return [pid for supervisor in self._supervisors() for pid in supervisor.lost()]

    def end_lost(self) -> None:
        """End what runs of a home that was removed, and wait until it is gone."""
        for supervisor in self._supervisors():
            supervisor.end_lost()

    def _supervisors(self) -> tuple[Supervisor, Supervisor]:
        # Also without the ports, which are gone with a home.
        settings = ControlPlaneSettings(
            host=HOST, directory=self.home.control_planes, programs_dir=self.home.programs
        )
        return self.supervisor, host_supervisor(settings)

    def up_servers(self, parts: AbstractSet[Part], report: Report = report_nothing) -> None:
        """Bring the servers among the parts up, for whoever is `changing` the stack.

        All at the same time: the slowest decides, not the sum.
        """
        with report("supervisord"):
            self.supervisor.ensure_running()
        servers = self.servers()

        def bring_up(part: Part) -> None:
            with report(part):
                if part is Part.CONTROL_PLANES:
                    run_host(self.home, environment_of(self.control_planes))
                else:
                    start(self.supervisor, servers[part], self.ports)
            if part is Part.POSTGRESQL:
                with report("database"):
                    self.bootstrap()
            if part is Part.OPENBAO:
                with report("secret store"), self.operator() as operator:
                    operator.ensure_set_up(self.home.openbao)
                keeper = OpenBao(self.home, self.ports).log_keeper()
                self.supervisor.add(AUDIT_LOGS, [keeper])

        _all_at_once(bring_up, (SERVERS | {Part.CONTROL_PLANES}) & parts)

    def bootstrap(self) -> None:
        """Make the database's roles and bring its tables to the newest state."""
        ensure_password_files(self.home.passwords)
        with self.administrator() as connection:
            bootstrap(connection, self.database)

    def _up_applications(self, parts: AbstractSet[Part], report: Report) -> Owner | None:
        servers = self.servers()
        owner = None
        if Part.API in parts:
            with report("owner"), self.administrator(self.database.name) as connection:
                owner = ensure_owner(self.home, self.database, connection, self.api.address)

        changed_at = code_changed_at()

        def bring_up(part: Part) -> None:
            with report(part):
                process = self.supervisor.state(part).get(part)
                if process and process.state.has_process and process.started_at < changed_at:
                    self.supervisor.restart(part, part)
                start(self.supervisor, servers[part], self.ports)

        _all_at_once(bring_up, _APPLICATIONS & parts)
        return owner

    def _up_beside(self, parts: AbstractSet[Part], report: Report) -> None:
        servers = self.servers()
        for part in _FOR_NODES & parts - servers.keys():
            self.supervisor.remove(part)
            if part is Part.REGISTRY:
                self.supervisor.remove(REGISTRY_CERTIFICATE)

        def bring_up(part: Part) -> None:
            with report(part):
                process = start(self.supervisor, servers[part], self.ports)
                if part is Part.CLOUDS and self.local_clouds is not None:
                    self.local_clouds.ensure_accounts(process)

        _all_at_once(bring_up, _BESIDE & parts & servers.keys())
        if (registry := self.registry) is not None and Part.REGISTRY in parts:
            settings = environment_of(self.openbao("api"), registry.certificate_settings)
            self.supervisor.add(REGISTRY_CERTIFICATE, [registry.keeper(settings)])


def _all_at_once(action: Callable[[Part], None], parts: AbstractSet[Part]) -> None:
    """Do it for each part in a thread of its own; wait for all, and raise the first failure."""
    with ThreadPoolExecutor(len(Part)) as pool:
        for future in [pool.submit(action, part) for part in sorted(parts)]:
            future.result()
