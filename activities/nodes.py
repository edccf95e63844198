"""A machine's node in its cluster, asked from the control-plane host of the cluster."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from temporalio import activity

from activities.control_planes import RemovalEvidence
from activities.machines import WithinSeconds
from activities.records import worker_is_stopping
from domain.cluster import wait_for_api
from domain.errors import BulkheadError, Reason
from domain.machine import NODE_USER_PREFIX
from domain.names import node_name_of
from domain.owned_operation import MachineOperation
from infra.kubernetes.client import DEPENDENCY
from infra.kubernetes.drain import delete_pods, drain, pods_of
from infra.kubernetes.nodes import remains_of, remove_node, set_schedulable
from infra.kubernetes.signing_requests import decide, undecided_of
from infra.kubernetes.volumes import attachments_of, forget_attachment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from infra.control_planes.backend import ControlPlaneBackend
    from infra.database.records.endings import OperationRecords
    from infra.database.records.machine import MachineRecords
    from infra.kubernetes.client import KubernetesClient
    from infra.machines.clusters import HostClusters

    Result = TypeVar("Result")

_POLL_SECONDS = 0.5

# The response lists so many pods or volumes by name in one sentence.
_NAMED = 3


class NodeActivities:
    """Asks the API servers of one host's clusters. What waits ends within a second of a cancel.

    Args:
        clusters: the host's.
        backend: of the host, for the tunnels.
        machines: rows of machines.
        operations: rows of operations.
        kubectl: the pinned program.
    """

    def __init__(
        self,
        clusters: HostClusters,
        backend: ControlPlaneBackend,
        machines: MachineRecords,
        operations: OperationRecords,
        kubectl: Path,
    ) -> None:
        self._clusters = clusters
        self._backend = backend
        self._machines = machines
        self._operations = operations
        self._kubectl = kubectl

    @activity.defn
    async def cordon_node(self, operation: MachineOperation) -> None:
        """Let no new pods be placed on the node.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the machine has no node.
        """
        await self._set_schedulable(operation, schedulable=False)

    @activity.defn
    async def uncordon_node(self, operation: MachineOperation) -> None:
        """Let new pods be placed on the node; see `cordon_node`."""
        await self._set_schedulable(operation, schedulable=True)

    @activity.defn
    async def restore_schedulability(self, operation: MachineOperation) -> None:
        """Have the node as the machine's row says, which the operation has not reached."""
        sight = await self._machines.look(operation)
        schedulable = sight.machine.schedulable
        name = node_name_of(operation.owner_id)
        await self._ask(operation, partial(set_schedulable, name=name, schedulable=schedulable))

    @activity.defn
    async def cordon_leaving_node(self, operation: MachineOperation) -> None:
        """Let no new pods be placed on a node that shall go, if there is one."""
        name = node_name_of(operation.owner_id)
        cordon = partial(set_schedulable, name=name, schedulable=False)
        await self._unless_lost(operation, self._ask(operation, cordon))

    @activity.defn
    async def drain_node(self, wait: WithinSeconds) -> None:
        """Evict the node's pods; delete those that their budgets still keep at the deadline.

        The time runs from the first moment at which the cluster answered.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the cluster does not answer.
        """
        await self._unless_lost(wait.operation, self._empty(wait))

    async def _empty(self, wait: WithinSeconds) -> None:
        operation, node = wait.operation, node_name_of(wait.operation.owner_id)
        find = partial(pods_of, node=node)
        pods = await self._ask(operation, find)
        since = await self._machines.mark(operation, "drain_began_at")
        deadline = since + timedelta(seconds=wait.seconds)
        while pods:
            _end_if_stopping()
            sight = await self._machines.look(operation)
            left = (deadline - sight.at).total_seconds()
            # On a server that was uninstalled no pod runs, and none can end by itself.
            if left <= 0 or sight.machine.uninstalled_at is not None:
                break
            await self._drain(operation, node, left)
            pods = await self._ask(operation, find)
        if pods:
            await self._machines.remember(operation, "pods_deleted_without_eviction", pods)
            await self._note(operation, "pods to end without eviction", pods)
            await self._ask(operation, partial(delete_pods, pods=pods))
        await self._operations.note_waiting(operation, None)

    @activity.defn
    async def detach_volumes(self, wait: WithinSeconds) -> None:
        """Wait for the node's volumes to be detached; forget those that are not at the deadline.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the cluster does not answer.
        """
        await self._unless_lost(wait.operation, self._detach(wait))

    async def _detach(self, wait: WithinSeconds) -> None:
        operation, node = wait.operation, node_name_of(wait.operation.owner_id)
        find = partial(attachments_of, node=node)
        attached = await self._ask(operation, find)
        since = await self._machines.mark(operation, "detach_began_at")
        deadline = since + timedelta(seconds=wait.seconds)
        while attached and (await self._machines.look(operation)).at < deadline:
            _end_if_stopping()
            await self._note(operation, "volumes to be detached by their driver", attached)
            await asyncio.sleep(_POLL_SECONDS)
            attached = await self._ask(operation, find)
        if attached:
            await self._machines.remember(operation, "volumes_detached_by_force", attached)
            for name in attached:
                await self._ask(operation, partial(forget_attachment, name=name))
        await self._operations.note_waiting(operation, None)

    @activity.defn
    async def remove_node(self, operation: MachineOperation) -> None:
        """Remove the Node object; tokens that are bound to it die with it."""
        remove = partial(remove_node, name=node_name_of(operation.owner_id))
        await self._unless_lost(operation, self._ask(operation, remove))

    @activity.defn
    async def revoke_credentials(self, operation: MachineOperation) -> None:
        """Have nothing count any more that the server has; its tunnel is cut."""
        await self._expel(operation)

    @activity.defn
    async def expel_machine(self, operation: MachineOperation) -> None:
        """Take back that a server joined, however far it came."""
        await self._expel(operation)
        await self._operations.note_waiting(operation, None)

    @activity.defn
    async def verify_machine_removed(self, operation: MachineOperation) -> RemovalEvidence:
        """Look for anything that is left of the machine in its cluster.

        Raises:
            BulkheadError: CONFLICT, worth another try, when something is left. A kubelet that
                still runs can make its node again while its certificate lasts: that is removed.
        """
        name = node_name_of(operation.owner_id)
        look = self._ask(operation, partial(_remains_of, name=name))
        found = await self._unless_lost(operation, look)
        if found is None:
            return RemovalEvidence(facts={"cluster": "not asked: its API server does not answer"})
        left = {kind: ", ".join(things) for kind, things in found.items() if things}
        if left:
            await self._ask(operation, partial(_remove_everything, name=name))
            listed = "; ".join(f"{kind}: {things}" for kind, things in left.items())
            raise BulkheadError(
                Reason.CONFLICT,
                f"Something of the machine is left ({listed}); it is removed and looked at again. "
                "If it comes back, stop bulkhead-kubelet on the server.",
                metadata=left,
                retryable=True,
            )
        facts = dict.fromkeys(found, "none")
        had_token = (await self._machines.look(operation)).machine.tunnel_token_expires_at
        facts["tunnel"] = "never connected" if had_token is None else "cut"
        return RemovalEvidence(facts=facts)

    async def _set_schedulable(self, operation: MachineOperation, *, schedulable: bool) -> None:
        name = node_name_of(operation.owner_id)
        change = partial(set_schedulable, name=name, schedulable=schedulable)
        if not await self._ask(operation, change):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The machine has no node in its cluster. Wait until it has joined, or look at "
                "its health.",
            )

    async def _drain(self, operation: MachineOperation, node: str, seconds: float) -> None:
        plane = operation.control_plane
        result = await drain(
            self._kubectl,
            self._clusters.url_of(plane),
            await self._clusters.login(plane),
            node,
            seconds=seconds,
            on_wait=partial(self._operations.note_waiting, operation),
        )
        if not result.emptied:
            # It ends early when the API server does not answer; at the deadline nothing is lost.
            await asyncio.sleep(_POLL_SECONDS)

    async def _expel(self, operation: MachineOperation) -> None:
        """Revoke first: what is removed afterwards cannot be asked for again."""
        await self._machines.revoke(operation)
        sight = await self._machines.find(operation)
        if sight is not None and sight.machine.identity_key_hash is None:
            # No server ever registered, so that the cluster, which may be suspended, has nothing.
            return
        name = node_name_of(operation.owner_id)
        removal = self._ask(operation, partial(_remove_everything, name=name))
        await self._unless_lost(operation, removal)
        sight = await self._machines.find(operation)
        # The row says so before a server gets its first token, and after that it can connect.
        if sight is not None and sight.machine.tunnel_token_expires_at is not None:
            await self._restart_tunnel(operation)

    async def _unless_lost(
        self, operation: MachineOperation, work: Awaitable[Result]
    ) -> Result | None:
        """Do what takes a machine out of its cluster.

        Returns:
            What the work does; None when it is given up: its cluster cannot be asked, and the
            machine goes by force. The operation's response will say so.
        """
        try:
            return await work
        except BulkheadError as error:
            if not _is_lost(error) or not await self._machines.is_forced(operation):
                raise
        skipped = activity.info().activity_id
        await self._machines.remember(operation, "steps_skipped", [skipped])
        await self._operations.note_waiting(operation, None)
        return None

    async def _restart_tunnel(self, operation: MachineOperation) -> None:
        ended = Event()

        def on_wait() -> None:
            if ended.is_set() or activity.is_worker_shutdown():
                raise worker_is_stopping()

        restart = asyncio.create_task(
            asyncio.to_thread(self._backend.restart_tunnel, operation.control_plane, on_wait)
        )
        try:
            await asyncio.shield(restart)
        except asyncio.CancelledError:
            ended.set()
            await asyncio.wait({restart})
            raise
        except BulkheadError as error:
            # Where no tunnel server runs no agent is connected; the next one asks for tokens anew.
            if error.reason is not Reason.NOT_FOUND:
                raise

    async def _ask(
        self, operation: MachineOperation, work: Callable[[KubernetesClient], Result]
    ) -> Result:
        try:
            return await self._clusters.ask(operation.control_plane, work)
        except BulkheadError as error:
            if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                sight = await self._machines.find(operation)
                cluster_id = operation.control_plane.cluster_id
                state = None if sight is None else sight.cluster_state
                awaited = wait_for_api(state, cluster_id, operation.operation_id)
                await self._operations.note_waiting(operation, awaited)
            raise

    async def _note(self, operation: MachineOperation, what: str, names: object) -> None:
        listed = sorted(names) if isinstance(names, dict | list) else []
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        text = f"{what}: {', '.join(listed[:_NAMED])}{more}"
        await self._operations.note_waiting(operation, text)


def _remains_of(client: KubernetesClient, name: str) -> dict[str, list[str]]:
    requests = undecided_of(client, NODE_USER_PREFIX + name)
    return {
        **remains_of(client, name),
        "certificate_requests": [request.name for request in requests],
    }


def _remove_everything(client: KubernetesClient, name: str) -> None:
    remove_node(client, name)
    for request in undecided_of(client, NODE_USER_PREFIX + name):
        decide(client, request, approve=False, message="The machine was removed.")


def _is_lost(error: BulkheadError) -> bool:
    """Whether it says that a cluster cannot be asked, be it only that it knows nobody any more."""
    return error.metadata.get("dependency") == DEPENDENCY["dependency"] and error.reason in {
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.PERMISSION_DENIED,
    }


def _end_if_stopping() -> None:
    if activity.is_worker_shutdown():
        raise worker_is_stopping()
