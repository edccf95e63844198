"""Servers: how one becomes a machine and stays one. No user's token is of any use here.

A server comes with a bootstrap token once; from then on it signs with its own key. Every answer is
JSON, or lines `key value` where `Accept: text/plain` asks for them; failures are JSON always.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import FileResponse, PlainTextResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Body
from api.node_answers import answer
from api.node_endpoint import NodeEndpoint
from api.node_registration import Admission, Hello, encoded, register, resume, usable
from api.node_scope import NodeScope, open_node_scope
from domain.cluster import (
    CLUSTER_DNS,
    CLUSTER_DOMAIN,
    POD_NETWORK,
    SERVICE_NETWORK,
    ClusterState,
    can_be_endpoint,
)
from domain.errors import BulkheadError, Reason
from domain.machine import Instruction, Phase
from domain.names import (
    Listener,
    api_server_port_of,
    node_name_of,
    server_name_of,
    tunnel_port_of,
)
from infra.database.queries.cluster import find_cluster, find_endpoint
from infra.database.records.audit import add_audit_event
from infra.database.tables import MachineRow
from infra.kubernetes.node_tokens import ClusterAddress
from infra.node_setup import SCRIPT

router = APIRouter(prefix="/nodes", tags=["nodes"])

# How often a server reports: each report is one small transaction.
REPORT_SECONDS: Final = 30

_MOST_ADDRESSES: Final = 32
_LONGEST_MESSAGE: Final = 500
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


def _as_line(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()[:_LONGEST_MESSAGE]


def _as_address(text: str) -> str:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        # A zone is of one machine alone, and any text.
        message = "This is an address of one link; leave it out."
        raise ValueError(message)
    return str(address)


Hostname = Annotated[
    str,
    StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"),
]
Addresses = Annotated[
    list[Annotated[str, StringConstraints(max_length=45), AfterValidator(_as_address)]],
    Field(max_length=_MOST_ADDRESSES),
]
# What a tool on the server printed is shown, and not a reason to refuse the report.
Message = Annotated[str, AfterValidator(_as_line)]
Moment = Annotated[int, Field(ge=0, le=4_102_444_800, description="Unix seconds.")]


class RegisterRequest(Body):
    """A server that has a token. `csr` is PEM in base64: a P-256 key, and nothing asked for."""

    csr: str
    hostname: Hostname
    operating_system: Literal["linux"]
    architecture: Literal["amd64", "arm64"]
    addresses: Addresses


class ResumeRequest(Body):
    """A server that is a machine and needs a certificate; `csr` is of its own key."""

    csr: str


class ReportRequest(Body):
    """How far a server is, and what it has."""

    phase: Annotated[Phase, Field(strict=False)]
    code: Annotated[int, Field(ge=0, le=255)] = 0
    message: Message = ""
    hostname: Hostname
    addresses: Addresses
    client_certificate_expires_at: Moment | None = None
    serving_certificate_expires_at: Moment | None = None


class NodeArtifact(TypedDict):
    """A program that a server needs: what it is, and where it goes with which octal mode."""

    name: str
    sha256: str
    size: int
    mode: str
    path: str


class Registration(TypedDict):
    """All that a server needs to be the node of its cluster; PEM files are in base64.

    Without a name of its own, the address is the name that a certificate is checked for. Pods reach
    the cluster's API at its address and a port of its own, by way of a Service; null: they do not.
    """

    machine_id: str
    node_name: str
    cluster_id: str
    server_time: int
    certificate: str
    cluster_authority: str
    platform_url: str
    cluster_api_host: str
    cluster_api_port: int
    cluster_api_server_name: str
    pods_api_port: int | None
    tunnel_host: str
    tunnel_port: int
    tunnel_server_name: str
    registry: str
    pause_image: str
    network_profile: str
    cluster_dns: str
    cluster_domain: str
    service_network: str
    pod_network: str
    report_seconds: int
    artifact_set: str
    artifacts: list[NodeArtifact]


class ReportAnswer(TypedDict):
    """What the server is to do now."""

    instruction: Instruction
    server_time: int


class NodeTokensBody(TypedDict):
    """Tokens that are bound to the Node object of the machine, and end with it."""

    tunnel_token: str
    kube_proxy_token: str
    flannel_token: str
    expires_at: int


_OPEN: Final[dict[str, Any]] = {"security": []}
_SIGNATURE: Final = (
    "Base64 of a DER ECDSA signature with SHA-256 over four lines, without a line feed at the end: "
    "method, path, time, and the SHA-256 of the body in hexadecimal."
)
_SIGNED: Final[dict[str, Any]] = {
    "security": [],
    "parameters": [
        {
            "in": "header",
            "name": name,
            "required": True,
            "schema": {"type": "string"},
            "description": description,
        }
        for name, description in (
            ("Bulkhead-Key", "SHA-256 of the DER form of the server's public key, in hexadecimal."),
            ("Bulkhead-Time", "Unix seconds by the server's clock; 300 s off at most."),
            ("Bulkhead-Signature", _SIGNATURE),
        )
    ],
}


@router.get(
    "/authority",
    response_class=PlainTextResponse,
    responses=documented(409),
    openapi_extra=_OPEN,
)
async def get_node_authority(request: Request) -> Response:
    """Get the root certificate that servers check this API against; its hash is in the command."""
    nodes: NodeEndpoint = request.app.state.nodes
    pem = await asyncio.to_thread(nodes.authority)
    return PlainTextResponse(pem, media_type="application/x-pem-file")


@router.get(
    "/script", response_class=PlainTextResponse, responses=documented(), openapi_extra=_OPEN
)
async def get_node_script() -> Response:
    """Get the script that makes a server a node; the same for everybody, and without secrets."""
    return FileResponse(SCRIPT, media_type="text/x-shellscript")


@router.post(
    "",
    status_code=201,
    response_model=Registration,
    responses=documented(409, 422),
    openapi_extra={"security": [{"token": []}]},
)
async def register_node(
    request: Request,
    body: RegisterRequest,
    authorization: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Exchange the token of a worker bootstrap for a machine; it works once."""
    scheme, _, token = authorization.partition(" ")
    hello = Hello(**body.model_dump())
    admission = await register(request, token.strip() if scheme.lower() == "bearer" else "", hello)
    return answer(request, _registration(request.app.state.nodes, admission), 201)


@router.post(
    "/self:resume",
    response_model=Registration,
    responses=documented(409, 422),
    openapi_extra=_SIGNED,
)
async def resume_node(request: Request, body: ResumeRequest) -> Response:
    """Get a fresh certificate, after a power cut in the exchange or a sleep past the end of one."""
    nodes: NodeEndpoint = request.app.state.nodes
    # In the audit log before it is signed; and no transaction is held meanwhile.
    async with open_node_scope(request, "node.resume") as scope:
        resumption = await resume(scope.clients, nodes, scope, body.csr)
    return answer(request, _registration(nodes, await resumption.sign()))


@router.post(
    "/self:report",
    response_model=ReportAnswer,
    responses=documented(422),
    openapi_extra=_SIGNED,
)
async def report_node(request: Request, body: ReportRequest) -> Response:
    """Tell how far the server is, and learn what it is to do."""
    async with open_node_scope(request, "node.report") as scope:
        instruction = _take_report(scope, body)
    return answer(request, ReportAnswer(instruction=instruction, server_time=round(time.time())))


@router.post(
    "/self:tokens",
    response_model=NodeTokensBody,
    responses=documented(409),
    openapi_extra=_SIGNED,
)
async def mint_node_tokens(request: Request) -> Response:
    """Get tokens for the tunnel and the pod network, bound to the machine's Node object."""
    async with open_node_scope(request, "node.tokens") as scope:
        cluster = await _address_of(scope)
    node = node_name_of(scope.machine.id)
    tokens = await asyncio.to_thread(scope.clients.node_tokens.mint, cluster, node)
    # After the mint, since a server asks all the time while there is no node, and before the
    # answer: tokens that are not in the audit log are given to nobody.
    async with scope.clients.database.workspace(cluster.workspace_id) as session:
        machine = await session.get(MachineRow, (cluster.workspace_id, scope.machine.id))
        if machine is None:
            raise BulkheadError(Reason.FAILED_PRECONDITION, "The machine has left its cluster.")
        machine.tunnel_token_expires_at = tokens.expires_at
        machine.tunnel_token_renewed_at = datetime.now(UTC)
        add_audit_event(session, scope.caller, "node.tokens", "machine", machine.id)
    return answer(
        request,
        NodeTokensBody(
            tunnel_token=tokens.tunnel,
            kube_proxy_token=tokens.proxy,
            flannel_token=tokens.pod_network,
            expires_at=int(tokens.expires_at.timestamp()),
        ),
    )


def _take_report(scope: NodeScope, body: ReportRequest) -> Instruction:
    machine, now = scope.machine, datetime.now(UTC)
    machine.reported_at = now
    machine.reported_phase = body.phase
    machine.reported_code = body.code
    machine.reported_message = body.message
    machine.clock_offset_seconds = scope.clock_offset_seconds
    machine.hostname = body.hostname
    addresses = usable(body.addresses)
    if machine.addresses != addresses:
        machine.addresses = addresses
    for kind in ("client", "serving"):
        told = getattr(body, f"{kind}_certificate_expires_at")
        expires_at = None if told is None else datetime.fromtimestamp(told, UTC)
        if expires_at is not None and expires_at != getattr(
            machine, f"{kind}_certificate_expires_at"
        ):
            setattr(machine, f"{kind}_certificate_expires_at", expires_at)
            setattr(machine, f"{kind}_certificate_renewed_at", now)
    if body.phase is Phase.UNINSTALLED:
        machine.uninstalled_at = machine.uninstalled_at or now
        return Instruction.NONE
    instruction = machine.instruction
    if instruction is Instruction.RESTART:
        # Told once: a server that restarts with every report would never be up.
        machine.instruction = Instruction.NONE
    return instruction


async def _address_of(scope: NodeScope) -> ClusterAddress:
    cluster = await find_cluster(scope.session, scope.machine.cluster_id)
    endpoint = await find_endpoint(scope.session, scope.machine.cluster_id)
    if cluster is None or endpoint is None or cluster.state is not ClusterState.ACTIVE:
        state = "being deleted" if cluster is None else cluster.state
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {state}; tokens are to be had when it is active.",
            metadata={"state": state},
        )
    return ClusterAddress(scope.machine.workspace_id, scope.machine.cluster_id, endpoint.url)


def _registration(nodes: NodeEndpoint, admission: Admission) -> Registration:
    machine, endpoint = admission.machine, admission.endpoint
    gateway = nodes.settings.gateway_port
    api_port = api_server_port_of(endpoint.first_port, endpoint.slot)
    tunnel_port = tunnel_port_of(endpoint.first_port, endpoint.slot)
    host, cluster_id = endpoint.address, machine.cluster_id
    # Without a gateway the address is what a certificate is checked for.
    api_name = server_name_of(cluster_id, Listener.API, api_port) if gateway else host
    tunnel_name = server_name_of(cluster_id, Listener.TUNNEL, tunnel_port) if gateway else host
    return Registration(
        machine_id=machine.id,
        node_name=node_name_of(machine.id),
        cluster_id=cluster_id,
        server_time=round(time.time()),
        certificate=encoded(admission.certificate),
        cluster_authority=encoded(admission.cluster_authority),
        platform_url=nodes.url,
        cluster_api_host=host,
        cluster_api_port=gateway or api_port,
        cluster_api_server_name=api_name,
        pods_api_port=api_port if can_be_endpoint(host) else None,
        tunnel_host=host,
        tunnel_port=gateway or tunnel_port,
        tunnel_server_name=tunnel_name,
        registry=nodes.settings.registry,
        pause_image=nodes.settings.pause_image,
        network_profile=admission.cluster.network_profile,
        cluster_dns=CLUSTER_DNS,
        cluster_domain=CLUSTER_DOMAIN,
        service_network=str(SERVICE_NETWORK),
        pod_network=str(POD_NETWORK),
        report_seconds=REPORT_SECONDS,
        artifact_set=admission.artifacts.id,
        artifacts=_artifacts(admission),
    )


def _artifacts(admission: Admission) -> list[NodeArtifact]:
    listed: Sequence[Any] = admission.artifacts.manifest.artifacts
    return [
        NodeArtifact(
            name=one.name,
            sha256=one.sha256,
            size=one.size_bytes,
            mode=one.mode,
            path=one.install_path,
        )
        for one in listed
    ]
