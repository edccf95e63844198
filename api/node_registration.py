"""How a server becomes a machine: its token consumed, its rows written, its certificate signed."""

import asyncio
import base64
import dataclasses
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fastapi import Request
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.clients import Clients
from api.node_endpoint import NodeEndpoint
from api.node_identity import Identity, identity_of
from api.node_scope import NodeScope
from api.scope import Attempt, record_stranger, run_after_commit
from domain.audit_budget import AuditBudget
from domain.caller import Caller, system_caller
from domain.cluster import POD_NETWORK, SERVICE_NETWORK, ClusterProvider, ClusterState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import Instruction, MachineHealth, MachineKind, MachineStage, MachineState
from domain.operation import OperationType
from domain.tokens import TokenKind, hash_of, is_well_formed
from infra.artifacts import ArtifactSet
from infra.database.queries.cluster import Endpoint, find_endpoint
from infra.database.queries.machine import find_cluster_to_join, find_machine
from infra.database.queries.worker_bootstrap import consume_bootstrap, enter_by_token
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import machine_operation_of, plan_operation
from infra.database.statements import violated_by
from infra.database.tables import ClusterRow, MachineRow, OperationRow, WorkerBootstrapRow
from infra.temporal.start import start_operation

_ACTION: Final = "node.register"

# The constraint of the database.
_ONE_KEY_EACH: Final = "machines_identity_key_hash_key"

# What the published type of an operation calls the size of a server that nobody here made.
_INSTANCE_TYPE: Final = "own-server"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """What a server says of itself when it comes for the first time."""

    csr: str
    hostname: str
    operating_system: str
    architecture: str
    addresses: Sequence[str]

    @property
    def platform(self) -> str:
        """Which programs it needs."""
        return f"{self.operating_system}/{self.architecture}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """A machine, and all that is needed to tell its server how to go on."""

    machine: MachineRow
    cluster: ClusterRow
    endpoint: Endpoint
    artifacts: ArtifactSet
    certificate: str
    cluster_authority: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Joined:
    machine: MachineRow
    cluster: ClusterRow
    endpoint: Endpoint
    operation: OperationRow
    identity: Identity


async def register(request: Request, token: str, hello: Hello) -> Admission:
    """Exchange a bootstrap token for a machine and its certificate.

    Raises:
        BulkheadError: UNAUTHENTICATED for a token that is not good (any more), in the audit log
            where its workspace is known; INVALID_ARGUMENT for a signing request that is refused;
            FAILED_PRECONDITION for a cluster that cannot be joined. Nothing is used up by any of
            them. After the exchange: DEPENDENCY_UNAVAILABLE when nothing can be signed.
    """
    clients: Clients = request.app.state.clients
    nodes: NodeEndpoint = request.app.state.nodes
    if not token.startswith(TokenKind.WORKER_BOOTSTRAP) or not is_well_formed(token):
        if is_well_formed(token):
            # Whoever has taken a person's token tries it here as well: its owner shall see that.
            attempt = Attempt(_ACTION, "workspace")
            await record_stranger(request, clients, token, None, attempt, Reason.UNAUTHENTICATED)
        raise _unauthenticated(message="This is not a worker bootstrap's token, or a mistyped one.")
    # Before anything is locked: files are read and a signature is verified.
    artifacts = await asyncio.to_thread(nodes.artifacts_for, hello.platform)
    joined, refusal = None, None
    try:
        async with clients.database.transaction() as session:
            bootstrap = await enter_by_token(session, hash_of(token))
            if bootstrap is None:
                raise _unauthenticated(message="This token is unknown.")
            request.state.caller = {
                "workspace_id": bootstrap.workspace_id,
                "principal_id": bootstrap.id,
            }
            caller = dataclasses.replace(
                system_caller(bootstrap.workspace_id, bootstrap.id),
                request_id=request.state.request_id,
            )
            joined = await _join(session, caller, bootstrap, hello, artifacts.id)
            if joined is None:
                await session.refresh(bootstrap)
                refusal = _why_not(bootstrap)
                _audit_refusal(request, session, caller, bootstrap.id, refusal, hello)
    except IntegrityError as error:
        if violated_by(error) != _ONE_KEY_EACH:
            raise
        raise _known_key() from None
    if joined is None:
        assert refusal is not None  # noqa: S101 - one of the two
        raise refusal
    return await _admit(clients, joined, artifacts)


def _audit_refusal(
    request: Request,
    session: AsyncSession,
    caller: Caller,
    bootstrap_id: str,
    refusal: BulkheadError,
    hello: Hello,
) -> None:
    """Tell that a token was of no use; of one that is tried all the time, how often."""
    refused: AuditBudget = request.app.state.refused_tokens
    times = refused.take(bootstrap_id)
    if times is None:
        return
    add_audit_event(
        session,
        caller,
        _ACTION,
        "worker_bootstrap",
        bootstrap_id,
        outcome="denied",
        details={
            "why": refusal.metadata["status"],
            "hostname": hello.hostname,
            "times_within_the_hour": times,
        },
    )


async def resume(clients: Clients, nodes: NodeEndpoint, scope: NodeScope, csr: str) -> "Resumption":
    """Prepare a fresh certificate for a machine that is known; signed after the commit.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a request of another key than the machine's own.
    """
    identity = identity_of(csr)
    machine = scope.machine
    if identity.key_hash != machine.identity_key_hash:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "The signing request is of another key than the machine's own.",
            path=("body", "csr"),
            status=400,
        )
    # Its own ones, also when there are newer ones: a node is not upgraded by the way.
    artifacts = await asyncio.to_thread(nodes.kept_artifacts, machine.artifact_set)
    if artifacts is None:
        platform = f"{machine.operating_system}/{machine.architecture}"
        artifacts = await asyncio.to_thread(nodes.artifacts_for, platform)
    cluster = await find_cluster_to_join(scope.session, machine.cluster_id)
    endpoint = await find_endpoint(scope.session, machine.cluster_id)
    if cluster is None or endpoint is None or cluster.state is not ClusterState.ACTIVE:
        raise _not_joinable(cluster)
    machine.artifact_set = artifacts.id
    scope.audit("node.resume")
    return Resumption(clients, machine, cluster, endpoint, artifacts, identity)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A certificate that is in the audit log, and not signed yet."""

    clients: Clients
    machine: MachineRow
    cluster: ClusterRow
    endpoint: Endpoint
    artifacts: ArtifactSet
    identity: Identity

    async def sign(self) -> Admission:
        """Sign it.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        certificate, authority = await asyncio.to_thread(
            _sign, self.clients, self.machine, self.identity
        )
        return Admission(
            machine=self.machine,
            cluster=self.cluster,
            endpoint=self.endpoint,
            artifacts=self.artifacts,
            certificate=certificate,
            cluster_authority=authority,
        )


def usable(addresses: Sequence[str]) -> list[str]:
    """Return the addresses under which a server can be told from others, in their order.

    Those of pods and Services are every cluster's, and a certificate never names them.
    """
    kept = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        inside = address in SERVICE_NETWORK or address in POD_NETWORK
        special = address.is_loopback or address.is_link_local or address.is_multicast
        if not inside and not special and not address.is_unspecified:
            kept.append(str(address))
    return list(dict.fromkeys(kept))


async def _join(
    session: AsyncSession,
    caller: Caller,
    bootstrap: WorkerBootstrapRow,
    hello: Hello,
    artifact_set: str,
) -> _Joined | None:
    """Consume the token and write everything; None when it is not good any more."""
    if bootstrap.used_at is not None or bootstrap.revoked_at is not None:
        return None
    identity = identity_of(hello.csr)
    cluster = await find_cluster_to_join(session, bootstrap.cluster_id)
    endpoint = await find_endpoint(session, bootstrap.cluster_id)
    if (
        cluster is None
        or endpoint is None
        or cluster.state is not ClusterState.ACTIVE
        or cluster.provider is not ClusterProvider.MANAGED_KAAS
    ):
        raise _not_joinable(cluster)
    rows = NewRows()
    if bootstrap.machine_id is None:
        machine = _new_machine(bootstrap, hello, identity, artifact_set)
        operation = _plan(rows, caller, cluster, machine, identity)
    else:
        found = await _awaited(session, bootstrap)
        if found is None:
            return None
        machine, operation = found
    if not await consume_bootstrap(session, bootstrap.id, machine.id):
        return None
    details = {"operation_id": operation.id, "machine_id": machine.id, "cluster_id": cluster.id}
    add_audit_event(rows, caller, _ACTION, "worker_bootstrap", bootstrap.id, details=details)
    if machine.kind is MachineKind.OWN_SERVER:
        create = OperationType.MACHINE_CREATE
        add_audit_event(rows, caller, create, "machine", machine.id, details=details)
    else:
        # Only now: the key of a server that is refused must open nothing.
        _become(machine, hello, identity, artifact_set)
    await rows.write(session)
    return _Joined(
        machine=machine,
        cluster=cluster,
        endpoint=endpoint,
        operation=operation,
        identity=identity,
    )


def _plan(
    rows: NewRows, caller: Caller, cluster: ClusterRow, machine: MachineRow, identity: Identity
) -> OperationRow:
    """Add the machine of a customer's own server, and the operation that follows it."""
    rows.add(machine)
    return plan_operation(
        rows,
        OperationType.MACHINE_CREATE,
        machine,
        caller,
        request={
            "cluster_id": cluster.id,
            "instance_type": _INSTANCE_TYPE,
            "managed": False,
            "request_fingerprint": identity.key_hash.hex(),
        },
        cluster=cluster,
    )


async def _awaited(
    session: AsyncSession, bootstrap: WorkerBootstrapRow
) -> tuple[MachineRow, OperationRow] | None:
    """Return the machine that the platform made the server for, if its operation waits for it."""
    machine = await find_machine(session, bootstrap.machine_id or "", lock=True)
    if (
        machine is None
        or machine.state is not MachineState.PROVISIONING
        or machine.identity_key is not None
        or machine.credentials_revoked_at is not None
        or machine.active_operation_id is None
    ):
        return None
    key = (machine.workspace_id, machine.active_operation_id)
    return machine, await session.get_one(OperationRow, key)


def _become(machine: MachineRow, hello: Hello, identity: Identity, artifact_set: str) -> None:
    """Have a machine be what its server says that it is."""
    machine.identity_key = identity.key
    machine.identity_key_hash = identity.key_hash
    machine.operating_system = hello.operating_system
    machine.architecture = hello.architecture
    machine.hostname = hello.hostname
    machine.addresses = usable(hello.addresses)
    machine.artifact_set = artifact_set
    machine.version += 1
    machine.updated_at = datetime.now(UTC)


def _new_machine(
    bootstrap: WorkerBootstrapRow, hello: Hello, identity: Identity, artifact_set: str
) -> MachineRow:
    return MachineRow(
        workspace_id=bootstrap.workspace_id,
        id=new_id(Prefix.MACHINE),
        cluster_id=bootstrap.cluster_id,
        bootstrap_id=bootstrap.id,
        kind=MachineKind.OWN_SERVER,
        name=hello.hostname,
        state=MachineState.PROVISIONING,
        stage=MachineStage.PROVISIONED,
        schedulable=True,
        identity_key=identity.key,
        identity_key_hash=identity.key_hash,
        operating_system=hello.operating_system,
        architecture=hello.architecture,
        hostname=hello.hostname,
        addresses=usable(hello.addresses),
        artifact_set=artifact_set,
        instruction=Instruction.NONE,
        health=MachineHealth.UNKNOWN,
        health_candidate=MachineHealth.UNKNOWN,
    )


async def _admit(clients: Clients, joined: _Joined, artifacts: ArtifactSet) -> Admission:
    async def start() -> None:
        client = await clients.temporal.client()
        await start_operation(
            client, OperationType.MACHINE_CREATE, machine_operation_of(joined.operation)
        )

    # The start does not depend on the certificate, nor the other way round.
    _, (certificate, authority) = await asyncio.gather(
        run_after_commit(start),
        asyncio.to_thread(_sign, clients, joined.machine, joined.identity),
    )
    return Admission(
        machine=joined.machine,
        cluster=joined.cluster,
        endpoint=joined.endpoint,
        artifacts=artifacts,
        certificate=certificate,
        cluster_authority=authority,
    )


def _sign(clients: Clients, machine: MachineRow, identity: Identity) -> tuple[str, str]:
    place = (machine.workspace_id, machine.cluster_id)
    certificate = clients.openbao.sign_node_certificate(*place, identity.request, machine.id)
    return certificate, clients.openbao.authority_of(*place)


def encoded(pem: str) -> str:
    """Return a PEM file in one line."""
    return base64.b64encode(pem.encode()).decode()


def _why_not(bootstrap: WorkerBootstrapRow) -> BulkheadError:
    if bootstrap.revoked_at is not None:
        status, what = "revoked", "was revoked"
    elif bootstrap.used_at is not None:
        status, what = "used", "was used; it works once"
    else:
        status, what = "expired", "has expired"
    advice = "Make a new one with `bulkhead bootstraps create`."
    if status == "used":
        advice += " The server that used it goes on with POST /v1/nodes/self:resume."
    error = _unauthenticated(message=f"This token {what}. {advice}")
    error.metadata["status"] = status
    return error


def _not_joinable(cluster: ClusterRow | None) -> BulkheadError:
    state = "being deleted" if cluster is None else cluster.state
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The cluster is {state}; only a hosted one that is active can be joined. The token was "
        "not used: try again when the cluster is active.",
        metadata={"state": state},
    )


def _known_key() -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        "A machine has this key already. If this server is that machine, it goes on with POST "
        "/v1/nodes/self:resume; else run `bulkhead-node uninstall` first, which removes the key. "
        "The token was not used.",
        path=("body", "csr"),
    )


def _unauthenticated(*, message: str) -> BulkheadError:
    return BulkheadError(Reason.UNAUTHENTICATED, message, path=("header", "authorization"))
