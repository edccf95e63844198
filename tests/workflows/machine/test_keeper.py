"""What the keeper does in a real cluster: certificates, facts, repairs, strangers."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from cryptography import x509
from sqlmodel import select

from domain.audit_budget import FULL_LINES
from domain.cluster import ClusterState, HostedControlPlane
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.machine import Instruction, MachineHealth, MachineState
from domain.names import node_name_of
from domain.operation import OperationType
from domain.owned_operation import MachineOperation
from infra.database.engine import Database, DatabaseRole
from infra.database.records.operation import machine_operation_of
from infra.database.tables import AuditEventRow, ClusterRow, OperationRow
from infra.kubernetes.client import KubernetesClient
from infra.kubernetes.logins import Login
from infra.kubernetes.nodes import list_nodes, remains_of, remove_node
from infra.kubernetes.signing_requests import CLIENT_SIGNER, SERVING_SIGNER, list_requests
from infra.machines.clusters import HostClusters
from infra.machines.decisions import MOST_KEPT_EACH
from infra.machines.keeper import MachineKeeper
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.temporal.outbox import Outbox
from tests.infra.machines.requests import request_pem
from tests.servers import Servers
from tests.workflows.machine.fleet import Fleet, new_machine
from tests.workflows.machine.servers import ADDRESS, LEASES, register

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
GROUP = "system:nodes"
USAGES = {CLIENT_SIGNER: "client auth", SERVING_SIGNER: "server auth"}
LONG_AGO = datetime.now(UTC) - timedelta(minutes=5)


def kubelet_of(fleet: Fleet, node: str) -> KubernetesClient:
    """Return a client that is the kubelet of a node."""
    openbao = fleet.platform.openbao
    spec = LeafSpec(
        authority=Authority.KUBERNETES,
        common_name=f"system:node:{node}",
        organization=GROUP,
        usages=("ClientAuth",),
    )

    def log_in() -> Login:
        key, certificate = make_leaf(
            lambda request, usages: openbao.sign(
                fleet.cluster, spec.authority, request, usages=usages, lifetime_seconds=600
            ),
            spec,
        )
        return Login(openbao.certificate_of(fleet.cluster, spec.authority), certificate, key)

    return KubernetesClient(fleet.clusters.url_of(fleet.cluster), log_in)


def ask_for(
    client: KubernetesClient, signer: str, pem: bytes, usage: str = "", name: str = ""
) -> str:
    """Ask for a certificate and return the name of the request."""
    body = request_body(signer, pem, usage, name)
    return str(client.create(REQUESTS, body)["metadata"]["name"])


def request_body(signer: str, pem: bytes, usage: str = "", name: str = "") -> dict[str, Any]:
    """Return a request as it is sent."""
    usages = ["digital signature", usage or USAGES[signer]]
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name} if name else {"generateName": "csr-"},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer,
            "usages": usages,
        },
    }


async def decision_on(fleet: Fleet, name: str, decision: str) -> dict[str, Any]:
    """Wait until a request has a condition, or was issued a certificate, and return its status."""
    async with asyncio.timeout(60):
        while True:
            found = await fleet.ask(lambda client: client.get(f"{REQUESTS}/{name}"))
            status: dict[str, Any] = found.get("status") or {}
            kinds = {condition["type"] for condition in status.get("conditions", [])}
            if decision in kinds and (decision == "Denied" or "certificate" in status):
                return status
            await asyncio.sleep(0.1)


async def lines_of(fleet: Fleet, action: str, request: str) -> list[AuditEventRow]:
    """Return the audit lines about a request."""
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        rows = await session.exec(select(AuditEventRow).where(AuditEventRow.action == action))
        return [row for row in rows if row.details["request"] == request]


async def test_kubelets_get_their_own_certificates_and_no_others(fleet: Fleet) -> None:
    machine = await fleet.have_active()
    async with fleet.server_of(machine) as server:
        await server.ensure_node()
        user = f"system:node:{server.node}"
        with kubelet_of(fleet, server.node) as kubelet:
            client = ask_for(kubelet, CLIENT_SIGNER, request_pem(user, GROUP))
            serving = ask_for(
                kubelet, SERVING_SIGNER, request_pem(user, GROUP, names=[server.node, ADDRESS])
            )
            foreign = ask_for(kubelet, SERVING_SIGNER, request_pem(user, GROUP, names=["10.9.9.9"]))
        stolen = await fleet.ask(
            lambda administrator: ask_for(administrator, CLIENT_SIGNER, request_pem(user, GROUP))
        )
        customers = await fleet.ask(
            lambda administrator: ask_for(
                administrator, "example.com/own", request_pem("alice"), "client auth"
            )
        )
        issued = await decision_on(fleet, client, "Approved")
        certificate = x509.load_pem_x509_certificate(base64.b64decode(issued["certificate"]))
        end = certificate.not_valid_after_utc
        assert end < datetime.now(UTC) + timedelta(hours=1, minutes=1)
        await decision_on(fleet, serving, "Approved")
        row = await fleet.until(
            machine.owner_id,
            lambda row: (
                row.client_certificate_expires_at == end
                and row.serving_certificate_renewed_at is not None
            ),
        )
        assert row.client_certificate_renewed_at is not None
        await decision_on(fleet, foreign, "Denied")
        await decision_on(fleet, stolen, "Denied")
        await asyncio.sleep(1)
        status = await fleet.ask(lambda api: api.get(f"{REQUESTS}/{customers}").get("status"))
        assert not status
    [approved] = await lines_of(fleet, "node.certificate.approve", client)
    assert (approved.resource_id, approved.outcome) == (machine.owner_id, "allowed")
    [denied] = await lines_of(fleet, "node.certificate.deny", foreign)
    assert (denied.resource_id, denied.outcome) == (machine.owner_id, "denied")
    [stranger] = await lines_of(fleet, "node.certificate.deny", stolen)
    assert stranger.resource_id == fleet.cluster.cluster_id
    await fleet.forget(machine)


@pytest.mark.parametrize(
    "renewed", ["0000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999-23:00"]
)
async def test_a_server_that_is_taken_over_keeps_no_other_from_its_certificate(
    fleet: Fleet, renewed: str
) -> None:
    taken, other = await fleet.have_active(), await fleet.have_active()
    intruder = fleet.server_of(taken)
    # It renews its lease no more: what the intruder writes there stays.
    intruder.has_kubelet = False
    async with intruder, fleet.server_of(other) as server:
        await intruder.ensure_node()
        await server.ensure_node()
        evil = {"type": "Evil", "status": "True", "message": "a\0b" * 9000}
        await fleet.ask(
            lambda api: api.patch(
                f"/api/v1/nodes/{intruder.node}/status", {"status": {"conditions": [evil]}}
            )
        )
        with kubelet_of(fleet, intruder.node) as kubelet:
            kubelet.patch(f"{LEASES}/{intruder.node}", {"spec": {"renewTime": renewed}})
            for number in range(40):
                name = f"a{number:02}" + "?#%\0 "[number % 6 :].replace("%", "")
                pem = request_pem(f"system:node:{intruder.node}", GROUP, names=["\x01"])
                ask_for(kubelet, SERVING_SIGNER, pem, name=name)
            # Both servers of this test say that they have it.
            pem = request_pem(f"system:node:{intruder.node}", GROUP, names=[ADDRESS])
            shared = ask_for(kubelet, SERVING_SIGNER, pem, name="0")
        with kubelet_of(fleet, server.node) as kubelet:
            pem = request_pem(f"system:node:{server.node}", GROUP, names=[server.node])
            own = ask_for(kubelet, SERVING_SIGNER, pem, name="z")
        await decision_on(fleet, own, "Approved")
        await decision_on(fleet, shared, "Denied")
        for operation in (taken, other):
            await fleet.until(operation.owner_id, lambda row: row.node_conditions is not None)
    for operation in (taken, other):
        await fleet.forget(operation)


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.full)])
async def test_a_flood_of_requests_is_bounded_and_counted(fleet: Fleet, count: int) -> None:
    machine = await fleet.have_active()
    async with fleet.server_of(machine) as server:
        await server.ensure_node()
        pem = request_pem(f"system:node:{server.node}", GROUP, names=["10.9.9.9"])
        with kubelet_of(fleet, server.node) as kubelet:
            await asyncio.to_thread(
                lambda: [ask_for(kubelet, SERVING_SIGNER, pem) for _ in range(count)]
            )
        async with asyncio.timeout(120):
            while await _requests_of(fleet, server.node) > MOST_KEPT_EACH:  # noqa: ASYNC110 - the cluster is another process
                await asyncio.sleep(0.2)
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        query = select(AuditEventRow).where(AuditEventRow.resource_id == machine.owner_id)
        lines = [
            row for row in await session.exec(query) if row.action.startswith("node.certificate.")
        ]
    counts = {
        action: [row.details["times_within_the_hour"] for row in lines if row.action == action]
        for action in ("node.certificate.deny", "node.certificate.remove")
    }
    assert 0 < len(lines) < 2 * (FULL_LINES + 11)
    # Each was denied or removed; the last doubling is told, not the last one.
    assert sum(map(max, counts.values())) > (count - MOST_KEPT_EACH) / 2
    assert {row.outcome for row in lines} == {"denied"}
    await fleet.forget(machine)


async def _requests_of(fleet: Fleet, node: str) -> int:
    found = await fleet.ask(list_requests)
    return sum(request.username == f"system:node:{node}" for request in found)


async def test_no_request_of_a_node_is_large_or_refuses_to_go(fleet: Fleet) -> None:
    machine = await fleet.have_active()
    async with fleet.server_of(machine) as server:
        await server.ensure_node()
        user = f"system:node:{server.node}"
        large = request_pem(user, GROUP, names=[f"n{n}.example" for n in range(5000)])
        body = request_body(SERVING_SIGNER, request_pem(user, GROUP))
        with kubelet_of(fleet, server.node) as kubelet:
            for metadata in (
                {"finalizers": ["example.com/stay"]},
                {"annotations": {"a": "b" * 1000}},
                {"labels": {"a": "b"}},
            ):
                with pytest.raises(BulkheadError) as refused:
                    kubelet.create(
                        REQUESTS, body | {"metadata": {"generateName": "csr-", **metadata}}
                    )
                assert "a node's request has no" in refused.value.message
            with pytest.raises(BulkheadError) as too_large:
                kubelet.create(REQUESTS, request_body(SERVING_SIGNER, large))
            assert "bytes at most" in too_large.value.message
    await fleet.forget(machine)


async def test_the_node_of_a_machine_that_is_gone_is_removed_again(fleet: Fleet) -> None:
    machine = await fleet.have_active()
    node = node_name_of(machine.owner_id)
    async with fleet.server_of(machine) as server:
        await server.ensure_node()
        # A cluster is looked at for as long as one of its machines could still come back.
        await fleet.until(machine.owner_id, lambda row: row.node_conditions is not None)
    await fleet.forget(machine)
    await fleet.ask(lambda client: register(client, node))
    await fleet.ask(lambda client: register(client, "of-the-customer"))
    async with asyncio.timeout(60):
        while node in await fleet.ask(list_nodes):  # noqa: ASYNC110 - the cluster is another process
            await asyncio.sleep(0.1)
    assert "of-the-customer" in await fleet.ask(list_nodes)
    await fleet.ask(lambda client: client.delete("/api/v1/nodes/of-the-customer"))


async def test_a_node_that_its_server_gave_a_finalizer_can_be_removed(fleet: Fleet) -> None:
    machine = await fleet.have_active()
    server = fleet.server_of(machine)
    await server.ensure_node()
    stays = {"metadata": {"finalizers": ["example.com/stay"]}}
    with kubelet_of(fleet, server.node) as kubelet:
        kubelet.patch(f"/api/v1/nodes/{server.node}", stays)
        kubelet.patch(f"{LEASES}/{server.node}", stays)
    await fleet.ask(partial(remove_node, name=server.node))
    assert await fleet.ask(partial(remains_of, name=server.node)) == {"node": [], "lease": []}
    await fleet.forget(machine)


async def test_a_cordoned_node_that_its_kubelet_made_anew_is_cordoned_again(fleet: Fleet) -> None:
    cordoned, other = await fleet.have_active(), await fleet.have_active()
    await fleet.change(cordoned, schedulable=False)
    nodes = [node_name_of(machine.owner_id) for machine in (cordoned, other)]
    for node in nodes:
        await fleet.ask(partial(register, name=node))
    async with asyncio.timeout(60):
        while (await fleet.ask(list_nodes))[nodes[0]].schedulable:  # noqa: ASYNC110 - the cluster is another process
            await asyncio.sleep(0.1)
    assert (await fleet.ask(list_nodes))[nodes[1]].schedulable
    for machine in (cordoned, other):
        await fleet.forget(machine)


async def repairs_of(fleet: Fleet, machine: MachineOperation) -> list[OperationRow]:
    """Return the repairs of a machine."""
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        query = select(OperationRow).where(
            OperationRow.owner_id == machine.owner_id,
            OperationRow.type == OperationType.MACHINE_REPAIR,
        )
        return list(await session.exec(query))


async def not_ready_for_long(fleet: Fleet, machine: MachineOperation) -> None:
    await fleet.until(machine.owner_id, lambda row: row.health_candidate is MachineHealth.NOT_READY)
    await fleet.change(machine, health_candidate_since=LONG_AGO)


async def have_budget(fleet: Fleet) -> None:
    """Have the cluster's repairs so far be older than the budget looks back."""
    await fleet.execute(
        """UPDATE operations SET started_at = started_at - interval '2 hours'
           WHERE type = 'machine.repair' AND placement ->> 'cluster_id' = %s""",
        fleet.cluster.cluster_id,
    )


async def test_a_node_that_stays_unready_is_repaired_once(fleet: Fleet) -> None:
    await have_budget(fleet)
    machine = await fleet.have_active()
    async with fleet.server_of(machine) as server:
        await fleet.until(machine.owner_id, lambda row: row.health is MachineHealth.HEALTHY)
        server.ready = False
        await not_ready_for_long(fleet, machine)
        await fleet.until(machine.owner_id, lambda row: row.repaired_at is not None)
        [repair] = await repairs_of(fleet, machine)
        planned = machine_operation_of(repair)
        await fleet.platform.succeed(planned)
        assert server.told == [Instruction.RESTART]
        server.ready = False
        await not_ready_for_long(fleet, machine)
        row = await fleet.until(
            machine.owner_id,
            lambda row: (
                row.health is MachineHealth.NOT_READY
                and "did not help" in (row.health_reason or "")
            ),
        )
        assert "container runtime is down" in (row.health_reason or "")
        assert len(await repairs_of(fleet, machine)) == 1
    await fleet.forget(machine)


async def test_a_machine_whose_tunnel_or_serving_certificate_is_missing_is_degraded(
    fleet: Fleet,
) -> None:
    machine = await fleet.have_active()
    async with fleet.server_of(machine) as server:
        await fleet.until(machine.owner_id, lambda row: row.health is MachineHealth.HEALTHY)
        server.phase, server.message = "failed", "The tunnel is not connected."
        await fleet.until(
            machine.owner_id, lambda row: row.health_candidate is MachineHealth.DEGRADED
        )
        await fleet.change(machine, health_candidate_since=LONG_AGO)
        await fleet.until(
            machine.owner_id,
            lambda row: (
                row.health is MachineHealth.DEGRADED
                and "tunnel is not connected" in (row.health_reason or "")
            ),
        )
        server.phase, server.message = "running", None
        await fleet.change(machine, serving_certificate_expires_at=None)
        row = await fleet.until(
            machine.owner_id, lambda row: "no serving certificate" in (row.health_reason or "")
        )
        assert row.health is MachineHealth.DEGRADED
    await fleet.forget(machine)


async def test_machines_that_are_unhealthy_together_are_not_repaired(fleet: Fleet) -> None:
    machines = [await fleet.have_active() for _ in range(3)]
    # In one moment: one of them alone would be repaired.
    await fleet.execute(
        """UPDATE machines SET health = 'not_ready', health_candidate = 'not_ready',
           health_candidate_since = now() - interval '5 minutes',
           reported_at = now(), node_seen_at = now() WHERE id = ANY(%s)""",
        [machine.owner_id for machine in machines[:2]],
    )
    for machine in machines[:2]:
        row = await fleet.until(
            machine.owner_id,
            lambda row: "no machine's fault" in (row.health_reason or ""),
        )
        assert "2 of the 3 machines" in (row.health_reason or "")
        assert await repairs_of(fleet, machine) == []
    for machine in machines:
        await fleet.forget(machine)


class _Looks(MachineKeeper):
    """Hangs at one cluster for ever, and tells when another one had its third look."""

    hangs: HostedControlPlane
    again: asyncio.Event
    seen: ClassVar[list[HostedControlPlane]] = []

    async def look(self, cluster: HostedControlPlane) -> None:
        self.seen.append(cluster)
        if cluster == self.hangs:
            await asyncio.Event().wait()
        if self.seen.count(cluster) == 3:
            self.again.set()


async def test_a_cluster_that_hangs_keeps_no_other_waiting(fleet: Fleet) -> None:
    platform, host = fleet.platform, new_id(Prefix.REQUEST)
    first, second = [(await platform.plan_cluster(fleet.owner, host)).control_plane for _ in "ab"]
    added = [new_machine(plane) for plane in (first, second)]
    async with platform.api.workspace(fleet.owner.workspace_id) as session:
        for plane in (first, second):
            row = await session.get_one(ClusterRow, (plane.workspace_id, plane.cluster_id))
            row.state = ClusterState.ACTIVE
        await session.flush()
        session.add_all(added)
    servers = platform.servers
    worker = Database(servers.database, DatabaseRole.WORKER)
    sweeper = Database(servers.database, DatabaseRole.SWEEPER)
    outbox = Outbox(worker, sweeper, platform.connection)
    clusters = HostClusters(servers.control_planes, platform.openbao)
    keeper = _Looks(worker, sweeper, clusters, outbox, host, every_seconds=0.05)
    keeper.hangs, keeper.again = first, asyncio.Event()
    keeping = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(60):
            await keeper.again.wait()
        assert keeper.seen.count(first) == 1
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        clusters.close()
        await worker.close()
        await sweeper.close()
        _remove_clusters_of(servers, host)


def _remove_clusters_of(servers: Servers, host: str) -> None:
    with servers.administrator() as administrator:
        for statement in (
            "DELETE FROM machines USING clusters c WHERE cluster_id = c.id AND c.host = %s",
            """DELETE FROM operation_steps s USING operations o
               WHERE s.operation_id = o.id AND o.placement ->> 'host' = %s""",
            "DELETE FROM operations WHERE placement ->> 'host' = %s",
            "DELETE FROM clusters WHERE host = %s",
        ):
            administrator.execute(statement, (host,))


async def test_a_machine_that_leaves_is_not_repaired(fleet: Fleet) -> None:
    machine = await fleet.have_active()
    await fleet.change(
        machine,
        state=MachineState.DELETING,
        reported_at=datetime.now(UTC),
        node_seen_at=datetime.now(UTC),
        health=MachineHealth.NOT_READY,
        health_candidate=MachineHealth.NOT_READY,
    )
    await fleet.until(machine.owner_id, lambda row: "is gone" in (row.health_reason or ""))
    assert await repairs_of(fleet, machine) == []
    await fleet.forget(machine)


async def test_what_nodes_need_of_their_cluster_comes_back_when_somebody_removes_it(
    fleet: Fleet,
) -> None:
    binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bulkhead:konnectivity-server"
    account = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
    servers = fleet.platform.servers
    worker = Database(servers.database, DatabaseRole.WORKER)
    sweeper = Database(servers.database, DatabaseRole.SWEEPER)
    outbox = Outbox(worker, sweeper, fleet.platform.connection)
    keeper = MachineKeeper(worker, sweeper, fleet.clusters, outbox, servers.control_planes.host)
    try:
        for path in (binding, account):
            assert await fleet.clusters.ask(
                fleet.cluster, partial(KubernetesClient.delete, path=path)
            )
        await keeper.look(fleet.cluster)
        for path in (binding, account):
            assert await fleet.clusters.ask(
                fleet.cluster, partial(KubernetesClient.find, path=path)
            )
    finally:
        await worker.close()
        await sweeper.close()
