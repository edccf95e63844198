"""A server of a customer as the platform sees it: reports in rows, and a kubelet at the API.

It writes what the API writes for a server's report, and asks the cluster as a kubelet would: a Node
object, its status, its lease, and the end of pods that were deleted.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Self

from sqlalchemy import func
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.machine import Instruction
from domain.names import node_name_of
from domain.owned_operation import MachineOperation
from infra.database.tables import MachineRow
from infra.kubernetes.client import KubernetesClient, Object, none_if_missing
from infra.machines.clusters import HostClusters
from tests.platform import Platform

TICK_SECONDS = 0.2
ADDRESS = "10.9.0.7"

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


_RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


class Server:
    """Reports, obeys and runs a kubelet for as long as the context lasts."""

    def __init__(
        self, platform: Platform, clusters: HostClusters, operation: MachineOperation
    ) -> None:
        self._platform = platform
        self._clusters = clusters
        self._operation = operation
        self._task: asyncio.Task[None] | None = None
        self.node = node_name_of(operation.owner_id)
        self.phase = "running"
        self.message: str | None = None
        self.reports = True
        self.has_kubelet = True
        self.ready = True
        self.told: list[Instruction] = []
        self._registered = False
        self._lock = Lock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def ensure_node(self) -> None:
        """Have the node in the cluster now."""
        await self._clusters.ask(self._operation.control_plane, self._beat)

    async def _run(self) -> None:
        while True:
            # In one transaction: whoever revokes the server's credentials waits for requests that
            # are on their way, which would make its node or its lease again beside their removal.
            async with self._platform.api.workspace(self._operation.workspace_id) as session:
                if self.reports:
                    await self._report(session)
                if self.has_kubelet:
                    await self.ensure_node()
            await asyncio.sleep(TICK_SECONDS)

    async def _report(self, session: AsyncSession) -> None:
        key = (self._operation.workspace_id, self._operation.owner_id)
        row = await session.get(MachineRow, key, with_for_update=True)
        if row is None or row.credentials_revoked_at is not None:
            # It is told 401, and leaves.
            self.has_kubelet = self.reports = False
            return
        row.reported_at = (await session.execute(func.clock_timestamp().select())).scalar_one()
        row.reported_phase, row.reported_message = self.phase, self.message
        if row.instruction is not Instruction.NONE:
            self.told.append(row.instruction)
        if row.instruction is Instruction.RESTART:
            row.instruction = Instruction.NONE
            self.has_kubelet = self.ready = True
        if row.instruction is Instruction.UNINSTALL:
            row.uninstalled_at = row.reported_at
            self.reports = self.has_kubelet = False

    def _beat(self, client: KubernetesClient) -> None:
        with self._lock:
            if not self._registered:
                register(client, self.node)
                self._registered = True
        if client.find(f"/api/v1/nodes/{self.node}") is None:
            return
        now = datetime.now(UTC)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.node},
            "spec": {
                "holderIdentity": self.node,
                "leaseDurationSeconds": 40,
                "renewTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            },
        }
        client.apply(f"{LEASES}/{self.node}", lease)
        status = {"status": _status(self.ready, now)}
        path = f"/api/v1/nodes/{self.node}/status"
        if none_if_missing(partial(client.patch, path, status)) is None:
            return
        pods = client.list_all("/api/v1/pods", fieldSelector=f"spec.nodeName={self.node}")
        for pod in pods:
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            path = f"/api/v1/namespaces/{namespace}/pods/{name}"
            if pod["metadata"].get("deletionTimestamp"):
                client.delete(path, grace_seconds=0)
            elif pod["status"]["phase"] == "Pending":
                # A pod that never ran is evicted whatever its budget says.
                none_if_missing(partial(client.patch, f"{path}/status", {"status": _RUNNING}))


def register(client: KubernetesClient, name: str) -> None:
    if client.find(f"/api/v1/nodes/{name}") is None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        client.create("/api/v1/nodes", node)


def _status(ready: bool, now: datetime) -> Object:  # noqa: FBT001 - a column of a node
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "reason": "Test",
        "message": "ready" if ready else "container runtime is down",
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }
    return {
        "conditions": [condition],
        "addresses": [{"type": "InternalIP", "address": ADDRESS}],
    }
