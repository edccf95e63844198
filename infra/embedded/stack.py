"""A whole stack in one directory: brought up, taken down, and its addresses."""

import contextlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

import psycopg

from domain.cluster import NetworkProfile
from domain.names import API_SERVER_NAME
from infra.artifacts import ArtifactStore
from infra.control_planes.layout import LOOPBACK
from infra.control_planes.processes import host_supervisor
from infra.database.bootstrap import bootstrap, ensure_password_files
from infra.embedded import for_nodes
from infra.embedded import node_address as node_addresses
from infra.embedded import ports as port_files
from infra.embedded.applications import (
    HOST,
    Api,
    Worker,
    code_changed_at,
    environment_of,
    run_host,
)
from infra.embedded.gateway import GatewayServer
from infra.embedded.home import Home
from infra.embedded.openbao import AUDIT_LOGS, OpenBao
from infra.embedded.owner import Owner, ensure_owner
from infra.embedded.ports import Ports
from infra.embedded.postgresql import PostgreSQL
from infra.embedded.registry import REGISTRY_CERTIFICATE, RegistryServer
from infra.embedded.server import Part, Server, start
from infra.embedded.temporal import NAMESPACE, Temporal
from infra.gateway import haproxy
from infra.images import ImageReferences
from infra.openbao.operator import Operator
from infra.openbao.policies import OPERATOR
from infra.settings import (
    ApiSettings,
    ControlPlaneSettings,
    DatabaseSettings,
    EmbeddedSettings,
    OpenBaoSettings,
    OutboundSettings,
    SecretStoreSettings,
    TemporalSettings,
)
from infra.supervisor.supervisor import Supervisor
from infra.tools import CLIENT, CONTROL_PLANE, NODE, PLATFORM, ensure, install_into

SERVERS = frozenset({Part.POSTGRESQL, Part.TEMPORAL, Part.OPENBAO})
ALL_PARTS = frozenset(Part)
_APPLICATIONS = frozenset({Part.WORKER, Part.API})
# What only servers that join need, and therefore only a stack that they reach has.
_FOR_NODES = frozenset({Part.REGISTRY, Part.GATEWAY})

_WAITING = "waiting for another `up` or `down`"

# Told of each thing that is done: opened when it begins, closed when it ends.
Report = Callable[[str], contextlib.AbstractContextManager[None]]


def report_nothing(_title: str) -> contextlib.AbstractContextManager[None]:
    """Take reports in silence."""
    return contextlib.nullcontext()


class Stack:
    """One embedded stack. Every method may be repeated.

    Args:
        home: its directory.
        settings: ports that shall be fixed.
        durable: whether a commit is on disk before it is answered. Only tests say no.
    """

    def __init__(
        self,
        home: Home,
        settings: EmbeddedSettings | None = None,
        *,
        durable: bool = True,
    ) -> None:
        self.home = home
        self._settings = settings or EmbeddedSettings()
        self._durable = durable
        self._ports: Ports | None = None
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
                    install_into(self.home.programs, (*CONTROL_PLANE, *CLIENT))
            if Part.REGISTRY in parts and self.registry_address is not None:
                with report("images"):
                    for_nodes.make_images(self.home)
            if Part.API in parts and self.node_address is not None:
                with report("programs of nodes"):
                    ArtifactStore(self.home.artifacts).ensure(ensure(NODE))
            self.up_servers(parts, report)
            self._up_for_nodes(parts, report)
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

    @property
    def ports(self) -> Ports:
        """The ports of this stack.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it was never started.
        """
        if self._ports is None:
            self._ports = port_files.load(self.home.ports_file)
        return self._ports

    @property
    def database(self) -> DatabaseSettings:
        """Where the database is."""
        return DatabaseSettings(
            host="127.0.0.1", port=self.ports.postgresql, passwords_dir=self.home.passwords
        )

    @property
    def temporal(self) -> TemporalSettings:
        """Where the workflow engine is."""
        return TemporalSettings(address=f"127.0.0.1:{self.ports.temporal}", namespace=NAMESPACE)

    def openbao(self, role: str) -> OpenBaoSettings:
        """Return where the secret store is, for who logs in as `worker`, `api` or `operator`."""
        server = OpenBao(self.home, self.ports)
        return OpenBaoSettings(
            address=server.address,
            login_key_file=server.login_key_file(role),
            restored_at_file=server.restored_at_file,
        )

    @property
    def secret_store(self) -> SecretStoreSettings:
        """Return what the worker keeps the secret store in order with."""
        return SecretStoreSettings(
            ledger_file=self.home.tombstones,
            audit_log_dirs=OpenBao(self.home, self.ports).audit_log_dirs,
        )

    @contextlib.contextmanager
    def operator(self) -> Iterator[Operator]:
        """Log in to the secret store as who runs it."""
        operator = Operator(self.openbao(OPERATOR))
        try:
            yield operator
        finally:
            operator.close()

    @property
    def control_planes(self) -> ControlPlaneSettings:
        """This machine as a control-plane host."""
        return ControlPlaneSettings(
            host=HOST,
            directory=self.home.control_planes,
            programs_dir=self.home.programs,
            first_port=self.ports.control_planes,
            first_uid=self.ports.first_uid,
            advertise_host=self.node_address or LOOPBACK,
            bind_address=self.node_address or LOOPBACK,
            coredns_image=self.images.coredns if self.images else "",
        )

    @property
    def node_address(self) -> str | None:
        """The address at which servers reach this machine, None when none can join."""
        chosen = node_addresses.load(self.home.node_address_file)
        return None if chosen is None else chosen.address

    @property
    def registry_address(self) -> str | None:
        """The `host:port` of the image registry, None when there is none."""
        if self.node_address is None:
            return None
        return port_files.address_of(self.node_address, self.ports.registry)

    @property
    def images(self) -> ImageReferences | None:
        """The images as nodes ask for them, None while there are none."""
        address = self.registry_address
        return None if address is None else for_nodes.images_of(self.home, address)

    @contextlib.contextmanager
    def administrator(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """Open a connection as the database server's administrator, in autocommit mode."""
        connection = self.postgresql.connect(database)
        try:
            yield connection
        finally:
            connection.close()

    def servers(self) -> dict[Part, Server]:
        """Return every part that is a program under the stack's own supervisord."""
        temporal = Temporal(self.home, self.ports, durable=self._durable)
        reached = {
            server.part: server for server in (self.registry, self.gateway) if server is not None
        }
        return {
            Part.POSTGRESQL: self.postgresql,
            Part.TEMPORAL: temporal,
            Part.OPENBAO: OpenBao(self.home, self.ports),
            Part.WORKER: Worker(
                environment_of(
                    self.database,
                    self.temporal,
                    self.openbao("worker"),
                    self.secret_store,
                    self.control_planes,
                    OutboundSettings(allowed_networks=self._settings.outbound_networks),
                ),
                temporal,
            ),
            Part.API: self.api,
            **reached,
        }

    @property
    def registry(self) -> RegistryServer | None:
        """The image registry, if servers can join."""
        if self.node_address is None:
            return None
        return for_nodes.registry_of(self.home, self.ports, self.node_address, self.openbao("api"))

    @property
    def lacks_gateway(self) -> bool:
        """Whether servers can join, or will after the next `up`, and haproxy is not installed."""
        return self._will_be_reached and haproxy.find() is None

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that the next `up` needs, of those that may have to be built."""
        for_nodes = (*NODE, *PLATFORM) if self._will_be_reached else ()
        return (*CONTROL_PLANE, *CLIENT, *for_nodes)

    @property
    def _will_be_reached(self) -> bool:
        setting = self._settings.node_address
        return self.node_address is not None if setting is None else setting != "none"

    @property
    def gateway(self) -> GatewayServer | None:
        """The gateway, if servers can join and its program is installed."""
        if self.node_address is None:
            return None
        slots = self.control_planes.slots
        return for_nodes.gateway_of(self.home, self.ports, self.node_address, slots)

    @property
    def api(self) -> Api:
        """The API of this stack."""
        host = self.node_address or LOOPBACK
        https_address = port_files.address_of(host, self.ports.api_https)
        settings = ApiSettings(
            http_address=f"127.0.0.1:{self.ports.api}",
            https_address=https_address,
            node_url=None if self.node_address is None else f"https://{https_address}",
            public_url=f"http://127.0.0.1:{self.ports.api}",
            temporal_ui_url=f"http://127.0.0.1:{self.ports.temporal_ui}",
            server_names=list(dict.fromkeys(["localhost", LOOPBACK, host, API_SERVER_NAME])),
            artifacts_dir=self.home.artifacts if self.node_address else None,
            gateway_port=self.ports.gateway if self.gateway else 0,
            # The only profile that needs nothing from a public registry.
            default_network_profile=NetworkProfile.LINUX_BRIDGE,
            **self._images_of_nodes(),
        )
        environment = environment_of(self.database, self.temporal, self.openbao("api"), settings)
        return Api(environment, self.ports, https_address)

    def _supervisors(self) -> tuple[Supervisor, Supervisor]:
        # Also without the ports, which are gone with a home.
        settings = ControlPlaneSettings(
            host=HOST, directory=self.home.control_planes, programs_dir=self.home.programs
        )
        return self.supervisor, host_supervisor(settings)

    @property
    def postgresql(self) -> PostgreSQL:
        """The database server."""
        return PostgreSQL(self.home, self.ports.postgresql, durable=self._durable)

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

    def _images_of_nodes(self) -> dict[str, str]:
        if self.registry_address is None or self.images is None:
            return {}
        return {"registry": self.registry_address, "pause_image": self.images.pause}

    def _up_for_nodes(self, parts: AbstractSet[Part], report: Report) -> None:
        servers = self.servers()
        for part in _FOR_NODES & parts - servers.keys():
            self.supervisor.remove(part)
            if part is Part.REGISTRY:
                self.supervisor.remove(REGISTRY_CERTIFICATE)

        def bring_up(part: Part) -> None:
            with report(part):
                start(self.supervisor, servers[part], self.ports)

        _all_at_once(bring_up, _FOR_NODES & parts & servers.keys())
        if (registry := self.registry) is not None and Part.REGISTRY in parts:
            settings = environment_of(self.openbao("api"), registry.certificate_settings)
            self.supervisor.add(REGISTRY_CERTIFICATE, [registry.keeper(settings)])


def _all_at_once(action: Callable[[Part], None], parts: AbstractSet[Part]) -> None:
    """Do it for each part in a thread of its own; wait for all, and raise the first failure."""
    with ThreadPoolExecutor(len(Part)) as pool:
        for future in [pool.submit(action, part) for part in sorted(parts)]:
            future.result()
