"""What a stack is made of: its addresses, the settings of its processes, its programs."""

import contextlib
from collections.abc import Iterator

import psycopg

from domain.cluster import NetworkProfile
from domain.names import API_SERVER_NAME
from infra.control_planes.layout import LOOPBACK
from infra.embedded import charts, clouds, for_nodes
from infra.embedded import node_address as node_addresses
from infra.embedded import ports as port_files
from infra.embedded.applications import HOST, Api, Worker, environment_of
from infra.embedded.charts import ChartRegistry
from infra.embedded.clouds import Clouds, CloudsServer
from infra.embedded.gateway import GatewayServer
from infra.embedded.home import Home
from infra.embedded.openbao import OpenBao
from infra.embedded.ports import Ports
from infra.embedded.postgresql import PostgreSQL
from infra.embedded.registry import RegistryServer
from infra.embedded.server import Part, Server
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
    HelmSettings,
    OpenBaoSettings,
    OutboundSettings,
    ProviderSettings,
    SecretStoreSettings,
    StackSettings,
    TemporalSettings,
)
from infra.tools import CLIENT, CONTROL_PLANE, DEPLOYMENT, NODE, PLATFORM, STACKS


class Composition:
    """The parts of one embedded stack, and how they find each other. Nothing here changes them.

    Args:
        home: its directory.
        settings: ports that shall be fixed, and what it shall have beside what every stack has.
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
            server.part: server
            for server in (self.registry, self.gateway, self.local_clouds)
            if server is not None
        }
        return {
            Part.POSTGRESQL: self.postgresql,
            Part.TEMPORAL: temporal,
            Part.OPENBAO: OpenBao(self.home, self.ports),
            Part.WORKER: self._worker(temporal),
            Part.API: self.api,
            Part.CHARTS: self.charts,
            **reached,
        }

    @property
    def charts(self) -> ChartRegistry:
        """The registry of charts."""
        return ChartRegistry(self.home, self.ports)

    @property
    def helm(self) -> HelmSettings:
        """How the worker fetches charts and deploys them."""
        return HelmSettings(
            program=self.home.programs / "helm",
            cache_dir=self.home.charts / "cache",
            plain_http_registries=[self.charts.host_and_port],
            ca_file=self.home.ca_file,
        )

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
        for_clouds = STACKS if clouds.wanted(self.home, self._settings).are_used else ()
        names = (*CONTROL_PLANE, *CLIENT, *DEPLOYMENT, charts.PROGRAM, *for_nodes, *for_clouds)
        return tuple(dict.fromkeys(names))

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
            node_url=self._node_url,
            public_url=f"http://127.0.0.1:{self.ports.api}",
            temporal_ui_url=f"http://127.0.0.1:{self.ports.temporal_ui}",
            server_names=list(dict.fromkeys(["localhost", LOOPBACK, host, API_SERVER_NAME])),
            artifacts_dir=self.home.artifacts if self.node_address else None,
            gateway_port=self.ports.gateway if self.gateway else 0,
            # The only profile that needs nothing from a public registry.
            default_network_profile=NetworkProfile.LINUX_BRIDGE,
            **self._images_of_nodes(),
        )
        environment = environment_of(
            self.database, self.temporal, self.openbao("api"), self.providers, settings
        )
        return Api(environment, self.ports, https_address)

    @property
    def clouds(self) -> Clouds:
        """Which clouds this stack makes machines in."""
        return clouds.load(self.home.clouds_file)

    @property
    def wants_local_clouds(self) -> bool:
        """Whether the next `up` brings up clouds on this machine."""
        return clouds.wanted(self.home, self._settings).local

    @property
    def local_clouds(self) -> CloudsServer | None:
        """The clouds that are on this machine, if the stack has any."""
        if not self.clouds.local or self.node_address is None:
            return None
        return CloudsServer(self.home, self.ports)

    @property
    def providers(self) -> ProviderSettings:
        """Where the providers are: at their public addresses, or on this machine."""
        local = self.local_clouds
        return ProviderSettings() if local is None else local.providers

    @property
    def stacks(self) -> StackSettings | None:
        """How the worker runs Pulumi's stacks; None when it runs none."""
        if not self.clouds.are_used:
            return None
        return StackSettings(
            directory=self.home.stacks,
            pulumi_home=self.clouds.pulumi_home or self.home.pulumi,
            programs_dir=self.home.programs,
            node_url=self._node_url,
            node_authority_file=self.home.ca_file,
        )

    @property
    def _node_url(self) -> str | None:
        if self.node_address is None:
            return None
        return f"https://{port_files.address_of(self.node_address, self.ports.api_https)}"

    def _worker(self, temporal: Temporal) -> Worker:
        stacks = self.stacks
        environment = environment_of(
            self.database,
            self.temporal,
            self.openbao("worker"),
            self.secret_store,
            self.control_planes,
            OutboundSettings(allowed_networks=self._settings.outbound_networks),
            self.providers,
            self.helm,
            *(() if stacks is None else (stacks,)),
        )
        return Worker(environment, temporal, runs_stacks=stacks is not None)

    @property
    def postgresql(self) -> PostgreSQL:
        """The database server."""
        return PostgreSQL(self.home, self.ports.postgresql, durable=self._durable)

    def _images_of_nodes(self) -> dict[str, str]:
        if self.registry_address is None or self.images is None:
            return {}
        return {"registry": self.registry_address, "pause_image": self.images.pause}
