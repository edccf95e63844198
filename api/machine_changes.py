"""What requests change about machines: rules, rows, the operation and its audit line.

Each function runs in the request's transaction, takes the machine's row lock first, and leaves the
start of the workflow to after the commit.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from api.cancellations import send_cancellation
from api.cluster_operations import wake
from api.fields import check_etag, check_id, not_found
from api.places import check_allowed
from api.scope import RequestScope
from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.machine import MachineKind, MachineState
from domain.operation import OperationType
from infra.database.queries.cluster import find_cluster
from infra.database.queries.compute import find_config, find_suspension
from infra.database.queries.machine import find_machine
from infra.database.queries.operation import find_operation
from infra.database.records.machine import FORCED
from infra.database.records.operation import (
    machine_operation_of,
    plan_operation,
    request_cancellation,
)
from infra.database.records.suspension import plan_resumption, plan_suspension
from infra.database.tables import ClusterRow, MachineRow, OperationRow
from infra.temporal.start import start_operation

Verb = Callable[[RequestScope, str, str], Awaitable[OperationRow]]

_NAMES: Final = {
    OperationType.MACHINE_CORDON: "cordoned",
    OperationType.MACHINE_UNCORDON: "uncordoned",
    OperationType.MACHINE_SUSPEND: "suspended",
    OperationType.MACHINE_RESUME: "resumed",
    OperationType.MACHINE_REPLACE: "replaced",
}


async def hold(scope: RequestScope, machine_id: str, if_match: str) -> MachineRow:
    """Lock a machine.

    Raises:
        BulkheadError: NOT_FOUND, or ABORTED.
    """
    machine = await find_machine(scope.session, check_id(Prefix.MACHINE, machine_id), lock=True)
    if machine is None:
        raise not_found(Prefix.MACHINE)
    check_etag(if_match, machine.version)
    return machine


def rename(scope: RequestScope, machine: MachineRow, name: str | None) -> None:
    """Give a machine another name to be shown, or none."""
    if machine.name != name:
        machine.name = name
        _touch(machine)
        scope.audit("machine.update", "machine", machine.id, fields="name")


async def delete(
    scope: RequestScope, machine_id: str, if_match: str, *, force: bool = False
) -> OperationRow:
    """Plan that a machine is drained and taken out, taking its lock over from whatever runs.

    With `force` it is not waited for a cluster that does not answer: what would be done there is
    skipped, also by a delete that runs already.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT when it is being deleted already, or
            FAILED_PRECONDITION when its cluster cannot be asked; neither of these with `force`.
    """
    machine = await hold(scope, machine_id, if_match)
    cluster = await (_cluster_of if force else _active_cluster)(scope, machine)
    predecessor = await _running_operation(scope, machine)
    if predecessor is not None:
        if predecessor.type is OperationType.MACHINE_DELETE:
            if not force:
                raise _busy(predecessor)
            return _force(scope, machine, predecessor)
        if await request_cancellation(scope.session, predecessor.id, scope.caller.kind):
            scope.after_commit.append(
                partial(send_cancellation, scope, predecessor.type, machine.id, predecessor.id)
            )
    machine.state = MachineState.DELETING
    _touch(machine)
    return await _plan(
        scope,
        OperationType.MACHINE_DELETE,
        machine,
        cluster,
        predecessor_operation_id=None if predecessor is None else predecessor.id,
        force=force,
    )


def _force(scope: RequestScope, machine: MachineRow, operation: OperationRow) -> OperationRow:
    """Have a delete that runs wait for its cluster no more; its next attempt finds that."""
    operation.placement = {**operation.placement, FORCED: True}
    operation.version += 1
    _audit(scope, operation, machine, force=True)
    return operation


async def cordon(scope: RequestScope, machine_id: str, if_match: str) -> OperationRow:
    """Plan that a machine takes no new pods.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while an operation runs, FAILED_PRECONDITION.
    """
    return await _set_schedulable(scope, machine_id, if_match, OperationType.MACHINE_CORDON)


async def uncordon(scope: RequestScope, machine_id: str, if_match: str) -> OperationRow:
    """Plan that a machine takes new pods again.

    Raises:
        BulkheadError: as `cordon`.
    """
    return await _set_schedulable(scope, machine_id, if_match, OperationType.MACHINE_UNCORDON)


def out_of_reach(machine: MachineRow, participle: str) -> BulkheadError:
    """Return the failure of what can only be done to a server that the platform made."""
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"This is a server of your own, which cannot be {participle} from here: turn it off or on "
        "yourself; it comes back by itself. Cordon it before, or delete the machine to drain it.",
        metadata={"kind": machine.kind},
    )


async def suspend(
    scope: RequestScope, machine_id: str, if_match: str, *, reason: str
) -> OperationRow:
    """Plan that a machine's disk is kept as a snapshot and its server removed.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while an operation runs, FAILED_PRECONDITION;
            PERMISSION_DENIED where the workspace lets no snapshot be.
    """
    kind = OperationType.MACHINE_SUSPEND
    machine = await _hold_idle(scope, machine_id, if_match, kind, MachineState.ACTIVE)
    cluster = await _active_cluster(scope, machine)
    await _check_place(scope, machine)
    _touch(machine)
    request = {"reason": reason, **_fingerprint(kind, machine)}
    operation = plan_suspension(
        scope.rows, machine, cluster, scope.caller, reason=reason, request=request
    )
    return await _begin(scope, operation, machine)


async def resume(scope: RequestScope, machine_id: str, if_match: str) -> OperationRow:
    """Plan that a suspended machine gets a server again, made of its snapshot.

    Raises:
        BulkheadError: as `suspend`; FAILED_PRECONDITION when the snapshot is kept no more;
            CAPACITY_UNAVAILABLE when a suspended cluster cannot be resumed for it.
    """
    kind = OperationType.MACHINE_RESUME
    machine = await _hold_idle(scope, machine_id, if_match, kind, MachineState.SUSPENDED)
    cluster = await find_cluster(scope.session, machine.cluster_id, lock=True)
    if cluster is not None and cluster.state is ClusterState.SUSPENDED:
        await wake(scope, cluster)
    else:
        cluster = await _active_cluster(scope, machine)
    await _check_place(scope, machine)
    event = None
    if machine.suspension_id is not None:
        event = await find_suspension(scope.session, machine.id, machine.suspension_id)
    if event is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Nothing is known of the machine's snapshot. Delete it, and create another one.",
        )
    _touch(machine)
    operation = plan_resumption(
        scope.rows, machine, event, cluster, scope.caller, request=_fingerprint(kind, machine)
    )
    return await _begin(scope, operation, machine)


async def replace(scope: RequestScope, machine_id: str, if_match: str) -> OperationRow:
    """Plan that another machine of the same shape takes a machine's place, and it is deleted.

    Raises:
        BulkheadError: as `suspend`.
    """
    kind = OperationType.MACHINE_REPLACE
    machine = await _hold_idle(scope, machine_id, if_match, kind, MachineState.ACTIVE)
    cluster = await _active_cluster(scope, machine)
    await _check_place(scope, machine)
    _touch(machine)
    return await _plan(scope, kind, machine, cluster)


async def _hold_idle(
    scope: RequestScope,
    machine_id: str,
    if_match: str,
    kind: OperationType,
    needed: MachineState,
) -> MachineRow:
    """Lock a machine in a cloud that nothing works on, and that is in the state needed."""
    machine = await hold(scope, machine_id, if_match)
    if machine.kind is not MachineKind.CLOUD:
        raise out_of_reach(machine, _NAMES[kind])
    await _check_idle(scope, machine, kind, needed)
    return machine


async def _check_idle(
    scope: RequestScope, machine: MachineRow, kind: OperationType, needed: MachineState
) -> None:
    running = await _running_operation(scope, machine)
    if running is not None:
        raise _busy(running)
    if machine.state is not needed:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The machine is {machine.state}; only one that is {needed} can be {_NAMES[kind]}.",
            metadata={"state": machine.state},
        )


async def _check_place(scope: RequestScope, machine: MachineRow) -> None:
    """Refuse to keep or make anything where the workspace lets nothing be by now."""
    config = None
    if machine.compute_config_id is not None:
        config = await find_config(scope.session, machine.compute_config_id)
    if config is not None and machine.place is not None:
        await check_allowed(scope, config.provider, [machine.place])


async def _set_schedulable(
    scope: RequestScope, machine_id: str, if_match: str, operation_type: OperationType
) -> OperationRow:
    machine = await hold(scope, machine_id, if_match)
    await _check_idle(scope, machine, operation_type, MachineState.ACTIVE)
    cluster = await _active_cluster(scope, machine)
    _touch(machine)
    return await _plan(scope, operation_type, machine, cluster)


async def _plan(
    scope: RequestScope,
    operation_type: OperationType,
    machine: MachineRow,
    cluster: ClusterRow,
    *,
    predecessor_operation_id: str | None = None,
    force: bool = False,
) -> OperationRow:
    operation = plan_operation(
        scope.rows,
        operation_type,
        machine,
        scope.caller,
        request=_fingerprint(operation_type, machine),
        predecessor_operation_id=predecessor_operation_id,
        cluster=cluster,
    )
    if force:
        operation.placement = {**operation.placement, FORCED: True}
    return await _begin(scope, operation, machine, **({"force": True} if force else {}))


def _fingerprint(operation_type: OperationType, machine: MachineRow) -> dict[str, str]:
    # The contract shows which request it was; ours differ by what they are based on.
    wanted = f"{operation_type} {machine.id} {machine.version}"
    return {"request_fingerprint": hashlib.sha256(wanted.encode()).hexdigest()}


async def _begin(
    scope: RequestScope, operation: OperationRow, machine: MachineRow, **details: bool
) -> OperationRow:
    """Write a planned operation and its audit line, and start it after the commit."""
    _audit(scope, operation, machine, **details)
    await scope.rows.write(scope.session)
    workflow_input = machine_operation_of(operation)

    async def start() -> None:
        client = await scope.clients.temporal.client()
        await start_operation(client, operation.type, workflow_input)

    scope.after_commit.append(start)
    return operation


def _audit(
    scope: RequestScope, operation: OperationRow, machine: MachineRow, **details: bool
) -> None:
    scope.audit(
        operation.type,
        "machine",
        machine.id,
        operation_id=operation.id,
        cluster_id=machine.cluster_id,
        **details,
    )


async def _cluster_of(scope: RequestScope, machine: MachineRow) -> ClusterRow:
    cluster = await find_cluster(scope.session, machine.cluster_id)
    assert cluster is not None  # noqa: S101 - a foreign key holds it
    return cluster


async def _active_cluster(scope: RequestScope, machine: MachineRow) -> ClusterRow:
    cluster = await _cluster_of(scope, machine)
    if cluster.state is not ClusterState.ACTIVE:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The machine's cluster is {cluster.state}, and its API is what has to be asked; "
            "wait until it is active, or resume it. A delete with force=true does without it.",
            metadata={"state": cluster.state, "cluster_id": cluster.id},
        )
    return cluster


async def _running_operation(scope: RequestScope, machine: MachineRow) -> OperationRow | None:
    if machine.active_operation_id is None:
        return None
    return await find_operation(scope.session, machine.active_operation_id)


def _touch(machine: MachineRow) -> None:
    machine.version += 1
    machine.updated_at = datetime.now(UTC)


def _busy(running: OperationRow) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        f"{running.type} is running on the machine. Wait for it with "
        f"POST /v1/operations/{running.id}:wait, or cancel it.",
        metadata={"operation_id": running.id, "operation_type": running.type},
    )
