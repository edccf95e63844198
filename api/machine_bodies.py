"""Machines as the API shows them."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NotRequired

from typing_extensions import TypedDict

from domain.cloud import Provider
from domain.health import outdated
from domain.machine import MachineHealth, MachineKind, MachineStage, MachineState
from domain.names import node_name_of
from infra.database.queries.compute import ShownSuspension
from infra.database.tables import MachineRow, SuspensionEventRow
from infra.database.tables.columns import unix, unix_or_none

# The contract has a compute config for each machine. A server that nobody here made has none, and
# this stands where its id would; it is no id, so nothing can ever have it.
_NO_COMPUTE_CONFIG: Final = "own-server"


class ProviderResource(TypedDict):
    """What the server is to its provider; one of the customer's own stays what it is."""

    identity_kind: Literal["recyclable", "persistent"]
    public_ip: str | None


class SnapshotRef(TypedDict):
    """The contract's snapshot, whose id is Hetzner's; `id` is any provider's, and ours.

    Without a snapshot yet `snapshot_id` is 0; it is also where the provider has no numbers.
    """

    provider: Provider | None
    snapshot_id: int
    size_gb: float
    id: str | None


class CurrentSuspension(TypedDict):
    """The suspension in which a machine is."""

    event_id: str
    snapshot_ref: SnapshotRef
    expires_at: int
    monthly_cost_cents: int
    reason: str


class ChoiceBody(TypedDict):
    """A place and a size that the machine may become."""

    region: str
    instance_type: str


class Health(TypedDict):
    """What is known of it, debounced; `unknown` where nothing was heard of it for too long."""

    state: MachineHealth
    reason: str | None
    since: int


class Credential(TypedDict):
    """When a certificate or a token ends, and when it was renewed last; null: not seen yet."""

    expires_at: int | None
    renewed_at: int | None


class Credentials(TypedDict):
    """What the server shows: to the API, to whoever asks its kubelet, and to the tunnel server."""

    kubelet_client: Credential
    kubelet_serving: Credential
    tunnel: Credential


class MachineBody(TypedDict):
    """The contract's Machine, and from `kind` on what is ours; `view=basic` has the first part.

    `last_heard_at`: its server's last report, or its kubelet's last heartbeat.
    """

    id: str
    workspace_id: str
    cluster_id: str
    compute_config_id: str
    provider_id: str
    provider_resource: ProviderResource
    name: NotRequired[str]
    node_name: str | None
    state: MachineState
    reconciling: bool
    current_suspension: NotRequired[CurrentSuspension]
    created_at: int
    updated_at: int
    etag: str
    kind: NotRequired[MachineKind]
    stage: NotRequired[MachineStage]
    schedulable: NotRequired[bool]
    health: NotRequired[Health]
    certificates: NotRequired[Credentials]
    operating_system: NotRequired[str]
    architecture: NotRequired[str]
    hostname: NotRequired[str]
    addresses: NotRequired[list[str]]
    kubelet_version: NotRequired[str | None]
    last_report_at: NotRequired[int | None]
    last_heard_at: NotRequired[int | None]
    clock_offset_seconds: NotRequired[int | None]
    active_operation_id: NotRequired[str | None]
    instance_type: NotRequired[str | None]
    place: NotRequired[str | None]
    choices: NotRequired[list[ChoiceBody]]
    pool_id: NotRequired[str]


def basic_body(row: MachineRow, suspension: ShownSuspension | None = None) -> MachineBody:
    """Render what the contract publishes of a machine."""
    own = row.kind is MachineKind.OWN_SERVER
    body = MachineBody(
        id=row.id,
        workspace_id=row.workspace_id,
        cluster_id=row.cluster_id,
        compute_config_id=row.compute_config_id or _NO_COMPUTE_CONFIG,
        # One in a cloud has none while it has no server.
        provider_id=f"own-server://{row.hostname}" if own else row.provider_id or "",
        provider_resource=ProviderResource(
            identity_kind="persistent" if own else "recyclable",
            public_ip=_public_address(row.addresses) if own else row.public_ip or None,
        ),
        node_name=None if row.node_seen_at is None else node_name_of(row.id),
        state=row.state,
        reconciling=row.active_operation_id is not None,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )
    if row.name is not None:
        body["name"] = row.name
    if suspension is not None:
        event = suspension.event
        body["current_suspension"] = CurrentSuspension(
            event_id=event.id,
            snapshot_ref=snapshot_ref(event, suspension.provider),
            expires_at=unix(event.expires_at),
            monthly_cost_cents=event.monthly_cost_cents,
            reason=event.reason,
        )
    return body


def machine_body(row: MachineRow, suspension: ShownSuspension | None = None) -> MachineBody:
    """Render a machine."""
    signs = [one for one in (row.reported_at, row.node_seen_at) if one is not None]
    heard_at = max(signs, default=None)
    body = MachineBody(
        **basic_body(row, suspension),
        kind=row.kind,
        schedulable=row.schedulable,
        health=_health(row, datetime.now(UTC)),
        certificates=Credentials(
            kubelet_client=_credential(
                row.client_certificate_expires_at, row.client_certificate_renewed_at
            ),
            kubelet_serving=_credential(
                row.serving_certificate_expires_at, row.serving_certificate_renewed_at
            ),
            tunnel=_credential(row.tunnel_token_expires_at, row.tunnel_token_renewed_at),
        ),
        operating_system=row.operating_system,
        architecture=row.architecture,
        hostname=row.hostname,
        addresses=row.addresses,
        kubelet_version=row.kubelet_version,
        last_report_at=unix_or_none(row.reported_at),
        last_heard_at=unix_or_none(heard_at),
        clock_offset_seconds=row.clock_offset_seconds,
        active_operation_id=row.active_operation_id,
    )
    if row.kind is MachineKind.OWN_SERVER or row.provider_id is not None:
        # One in a cloud has reached no stage while it has no server.
        body["stage"] = row.stage
    if row.kind is MachineKind.CLOUD:
        body |= _of_cloud(row)
    return body


def snapshot_ref(event: SuspensionEventRow, provider: Provider | None) -> SnapshotRef:
    """Render a suspension's snapshot."""
    known = event.snapshot_id or ""
    return SnapshotRef(
        provider=provider,
        snapshot_id=int(known) if known.isascii() and known.isdigit() else 0,
        size_gb=event.size_gb or 0,
        id=event.snapshot_id,
    )


def _of_cloud(row: MachineRow) -> MachineBody:
    choices = row.choices or []
    body: dict[str, Any] = {
        "instance_type": row.instance_type,
        "place": row.place,
        "choices": [
            ChoiceBody(region=choice["place"], instance_type=choice["instance_type"])
            for choice in choices
        ],
    }
    if row.pool_id is not None:
        body["pool_id"] = row.pool_id
    return body  # type: ignore[return-value] # a part of it


def _health(row: MachineRow, now: datetime) -> Health:
    found = outdated(row.health, row.reported_at, row.node_seen_at, now)
    if found is None:
        return Health(state=row.health, reason=row.health_reason, since=unix(row.health_since))
    finding, since = found
    return Health(state=finding.health, reason=finding.reason, since=unix(since))


def _credential(expires_at: datetime | None, renewed_at: datetime | None) -> Credential:
    return Credential(expires_at=unix_or_none(expires_at), renewed_at=unix_or_none(renewed_at))


def _public_address(addresses: Sequence[str]) -> str | None:
    return next((one for one in addresses if ipaddress.ip_address(one).is_global), None)
