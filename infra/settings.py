"""Every variable of the environment that Bulkhead reads, typed, one group a system.

Read only where a process is composed (`worker.py`, `api/main.py`); everything below receives
values. A secret is never a variable: it is a file whose path is one.
"""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, IPvAnyNetwork, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from domain.cluster import NetworkProfile
from domain.names import api_server_port_of

# IANA's dynamic ports begin after it.
_LAST_PORT = 49151


class DatabaseSettings(BaseModel):
    """Where PostgreSQL is. `passwords_dir` holds one file a role, named like the role."""

    host: str
    port: int = 5432
    name: str = "bulkhead"
    passwords_dir: Path
    pool_size: int = Field(default=10, ge=1)


class TemporalSettings(BaseModel):
    """Where the Temporal frontend is, and which namespace is ours."""

    address: str
    namespace: str = "default"


class OpenBaoSettings(BaseModel):
    """Where OpenBao is, and the ES256 key with which this process logs in.

    `restored_at_file` appears, or changes, when the store was put back to an older state.
    """

    address: str
    ca_file: Path | None = None
    login_key_file: Path
    restored_at_file: Path | None = None


class SecretStoreSettings(BaseModel):
    """What the worker of the control queue keeps the secret store in order with.

    `ledger_file` is the ledger of purges: on a disk of its own account, in no backup that is ever
    restored, and of one worker, or shared by all of them. Nothing is purged without it.
    `audit_log_dirs` are the folders of OpenBao's audit devices, to be compared with our own audit
    log; empty: they cannot be read from here, and are not compared.
    """

    ledger_file: Path | None = None
    audit_log_dirs: list[Path] = Field(default_factory=list)


class ControlPlaneSettings(BaseModel):
    """This control-plane host: its name, its room, and where its clusters live.

    `advertise_host` is the address under which clients reach the clusters' API servers.
    `coredns_image` is CoreDNS's full reference at the platform's registry; empty: there is none,
    and clusters get no DNS from the platform.
    """

    host: str
    directory: Path
    programs_dir: Path
    advertise_host: str = "127.0.0.1"
    bind_address: str = "127.0.0.1"
    first_port: int = Field(default=20000, ge=1024, le=48000)
    first_uid: int = 210000
    coredns_image: str = ""
    slots: int = Field(default=100, ge=1, le=1000)
    memory_bytes: int = Field(default=0, ge=0, description="0: what the machine has, less 2 GiB")

    @model_validator(mode="after")
    def tunnel_servers_accept_its_ports(self) -> Self:
        """Refuse ports that could belong to an outgoing connection: tunnel servers do as well."""
        last = api_server_port_of(self.first_port, self.slots) - 1
        if last > _LAST_PORT:
            message = f"the last of its ports would be {last}; they must end at {_LAST_PORT}"
            raise ValueError(message)
        return self


class ApiSettings(BaseModel):
    """Where the API listens. Plain HTTP is for loopback only; beyond it there is HTTPS.

    Without `certificate_file` the HTTPS listener gets its certificate from the platform's own
    authority in OpenBao and renews it by itself.

    Servers join through `node_url`, the HTTPS address under which they reach this API; without it
    none can. `node_authority_file` is the root that they check it against, where it is not the
    platform's own. `artifacts_dir` holds the programs that they download. `gateway_port` is the one
    port by which they reach clusters where there is a gateway; 0: each by its own ports. `registry`
    (host:port) has the few images that a node needs, `pause_image` among them; empty: public
    registries have them.
    """

    http_address: str | None = None
    https_address: str | None = None
    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    server_names: list[str] = Field(default_factory=lambda: ["localhost", "127.0.0.1"])
    public_url: str = "http://127.0.0.1:8080"
    temporal_ui_url: str | None = None
    node_url: str | None = None
    node_authority_file: Path | None = None
    artifacts_dir: Path | None = None
    gateway_port: int = Field(default=0, ge=0, le=65535)
    registry: str = ""
    pause_image: str = "registry.k8s.io/pause:3.10.1"
    default_network_profile: NetworkProfile = NetworkProfile.LINUX_CILIUM

    @field_validator("node_url")
    @classmethod
    def servers_come_by_https(cls, value: str | None) -> str | None:
        """Refuse to start with bootstrap tokens in clear text, and cut a slash at the end."""
        if value is not None and not value.startswith("https://"):
            message = f"API__NODE_URL={value} is not an HTTPS address"
            raise ValueError(message)
        return None if value is None else value.rstrip("/")

    @field_validator("http_address")
    @classmethod
    def plain_http_stays_on_loopback(cls, value: str | None) -> str | None:
        """Refuse to start with tokens in clear text on a network."""
        if value is not None and value.rsplit(":", 1)[0] not in {
            "127.0.0.1",
            "[::1]",
            "localhost",
        }:
            message = f"API__HTTP_ADDRESS={value} is not loopback; use API__HTTPS_ADDRESS there"
            raise ValueError(message)
        return value


class RegistrySettings(BaseModel):
    """What keeps the registry's certificate: its file, who reads it, and what it says.

    `ca_file` is the platform's authority, `supervisor_dir` that of the supervisord that runs the
    registry, which is restarted with each new certificate.
    """

    certificate_file: Path
    ca_file: Path
    server_names: list[str]
    supervisor_dir: Path
    uid: int | None = None


class OutboundSettings(BaseModel):
    """Where rotators, and who fetches charts, may go beside the public internet.

    What a workspace names (a database, an HTTPS endpoint, a registry) is reached from here, so
    that a private address would let it use our place in the network. Link-local addresses and
    those of cloud metadata services stay closed whatever this says.
    """

    allowed_networks: list[IPvAnyNetwork] = Field(default_factory=list)


class ProviderSettings(BaseModel):
    """Where the credentials of cloud providers are validated; none of it comes from a request."""

    hcloud_url: str = "https://api.hetzner.cloud/v1"
    aws_sts_url: str = "https://sts.amazonaws.com"
    aws_sts_region: str = "us-east-1"
    gcp_token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    azure_login_url: str = "https://login.microsoftonline.com"
    ca_file: Path | None = None
    # Where the three clouds are when they are not at their public addresses.
    aws_endpoint_url: str | None = None
    gcp_compute_url: str | None = None
    gcp_iam_url: str | None = None
    gcp_resource_manager_url: str | None = None
    gcp_billing_url: str | None = None


class StackSettings(BaseModel):
    """How this worker runs Pulumi stacks; without it, it runs none.

    `directory` has the runs' work directories, `pulumi_home` the engine's provider programs,
    `programs_dir` the CLI. `slots` runs go on at once: what memory allows, at about 350 MB for
    each at Hetzner and 700 MB at AWS and GCP with the real provider programs. `node_url` and
    `node_authority_file` are what new servers call and check.
    """

    directory: Path
    pulumi_home: Path
    programs_dir: Path
    slots: int = Field(default=4, ge=1, le=64)
    node_url: str | None = None
    node_authority_file: Path | None = None


class HelmSettings(BaseModel):
    """How this worker fetches charts and deploys them; without it, it does neither.

    `program` is Helm, `cache_dir` keeps charts by their digest. `plain_http_registries` (host:port)
    are asked without TLS, as repositories at this machine's own http addresses are. `ca_file` has
    further roots that registries' certificates are checked against, such as the platform's own.

    `hook_seconds` is what a chart's hooks may take, `healthy_seconds` what a release may take until
    it is healthy, and `degraded_seconds` how long it may be degraded on the way.
    """

    program: Path
    cache_dir: Path
    plain_http_registries: list[str] = Field(default_factory=list)
    ca_file: Path | None = None
    hook_seconds: int = Field(default=600, ge=1, le=3000)
    healthy_seconds: int = Field(default=600, ge=1, le=6000)
    degraded_seconds: int = Field(default=60, ge=1, le=6000)


class LogSettings(BaseModel):
    """How much is logged; always JSON lines on standard error."""

    level: str = "INFO"


class _ProcessSettings(BaseSettings):
    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore")

    database: DatabaseSettings
    temporal: TemporalSettings
    openbao: OpenBaoSettings
    providers: ProviderSettings = ProviderSettings()
    log: LogSettings = LogSettings()


class ApiProcessSettings(_ProcessSettings):
    """What the API process reads."""

    api: ApiSettings


class WorkerSettings(_ProcessSettings):
    """What a worker process reads; without `control_planes` it serves no host."""

    control_planes: ControlPlaneSettings | None = None
    stacks: StackSettings | None = None
    helm: HelmSettings | None = None
    secret_store: SecretStoreSettings = SecretStoreSettings()
    outbound: OutboundSettings = OutboundSettings()


class RegistryCertificateSettings(BaseSettings):
    """What `python -m infra.registry` reads."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore")

    openbao: OpenBaoSettings
    registry: RegistrySettings
    log: LogSettings = LogSettings()


class EmbeddedSettings(BaseSettings):
    """What `python -m infra.embedded` reads: where the stack is, and ports that shall be fixed.

    A port that is not set is chosen at the first start and kept from then on. So is the address at
    which servers that join reach the stack: an address of this machine, `local` for one that is
    made here for what runs here, `none` (and what a new stack has) for no servers at all. Kept are
    also the clouds that machines are made in: those on this machine, or those of `pulumi_home`.
    """

    model_config = SettingsConfigDict(env_prefix="BULKHEAD_", extra="ignore")

    home: Path | None = None
    node_address: str | None = None
    api_port: int | None = Field(default=None, ge=1, le=65535)
    api_https_port: int | None = Field(default=None, ge=1, le=65535)
    temporal_port: int | None = Field(default=None, ge=1, le=65535)
    temporal_http_port: int | None = Field(default=None, ge=1, le=65535)
    temporal_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    temporal_ui_port: int | None = Field(default=None, ge=1, le=65535)
    postgresql_port: int | None = Field(default=None, ge=1, le=65535)
    openbao_port: int | None = Field(default=None, ge=1, le=65535)
    openbao_cluster_port: int | None = Field(default=None, ge=1, le=65535)
    registry_port: int | None = Field(default=None, ge=1, le=65535)
    charts_port: int | None = Field(default=None, ge=1, le=65535)
    gateway_port: int | None = Field(default=None, ge=1, le=65535)
    clouds_hcloud_port: int | None = Field(default=None, ge=1, le=65535)
    clouds_aws_port: int | None = Field(default=None, ge=1, le=65535)
    clouds_gcp_port: int | None = Field(default=None, ge=1, le=65535)
    control_planes_port: int | None = Field(default=None, ge=1024, le=48000)
    local_clouds: bool | None = Field(
        default=None, description="whether three clouds run on this machine, and are used"
    )
    pulumi_home: Path | None = Field(
        default=None, description="where `pulumi plugin install` put the providers' own programs"
    )
    outbound_networks: list[IPvAnyNetwork] = Field(
        default_factory=list, description="what rotators may reach beside the public internet"
    )

    @field_validator("node_address")
    @classmethod
    def servers_can_dial_it(cls, value: str | None) -> str | None:
        """Refuse names, and addresses that no other machine could dial."""
        if value is None or value in {"local", "none"}:
            return value
        address = ipaddress.ip_address(value)
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            message = f"{value} is no address at which a server could reach this machine"
            raise ValueError(message)
        return str(address)
