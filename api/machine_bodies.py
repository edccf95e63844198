"""Machines as the API shows them."""

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NotRequired

from typing_extensions import TypedDict

from domain.machine import MachineHealth, MachineKind, MachineStage, MachineState
from domain.names import node_name_of
from infra.database.tables import MachineRow
from infra.database.tables.columns import unix, unix_or_none

# The contract has a compute config for each machine. A server that nobody here made has none, and
# this stands where its id would; it is no id, so nothing can ever have it.
_NO_COMPUTE_CONFIG: Final = "own-server"


class ProviderResource(TypedDict):
    """What the server is to its provider; one of the customer's own stays what it is."""

    identity_kind: Literal["recyclable", "persistent"]
    public_ip: str | None


class Health(TypedDict):
    """What is known of it, debounced."""

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
    """The contract's Machine, and from `kind` on what is ours; `view=basic` has the first part."""

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
    clock_offset_seconds: NotRequired[int | None]
    active_operation_id: NotRequired[str | None]


def basic_body(row: MachineRow) -> MachineBody:
    """Render what the contract publishes of a machine."""
    body = MachineBody(
        id=row.id,
        workspace_id=row.workspace_id,
        cluster_id=row.cluster_id,
        compute_config_id=_NO_COMPUTE_CONFIG,
        provider_id=f"own-server://{row.hostname}",
        provider_resource=ProviderResource(
            identity_kind="persistent", public_ip=_public_address(row.addresses)
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
    return body


def machine_body(row: MachineRow) -> MachineBody:
    """Render a machine."""
    return MachineBody(
        **basic_body(row),
        kind=row.kind,
        stage=row.stage,
        schedulable=row.schedulable,
        health=Health(state=row.health, reason=row.health_reason, since=unix(row.health_since)),
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
        clock_offset_seconds=row.clock_offset_seconds,
        active_operation_id=row.active_operation_id,
    )


def _credential(expires_at: datetime | None, renewed_at: datetime | None) -> Credential:
    return Credential(expires_at=unix_or_none(expires_at), renewed_at=unix_or_none(renewed_at))


def _public_address(addresses: Sequence[str]) -> str | None:
    return next((one for one in addresses if ipaddress.ip_address(one).is_global), None)
