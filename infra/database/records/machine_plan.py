"""The rows of machines that shall be made in clouds, alone or as a pool."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from domain.caller import Caller
from domain.compute import Choice
from domain.identifiers import Prefix, new_id
from domain.machine import Instruction, MachineHealth, MachineKind, MachineStage, MachineState
from domain.names import node_name_of
from domain.operation import OperationType
from infra.database.records.new_rows import Adds
from infra.database.records.operation import plan_operation
from infra.database.tables import ClusterRow, MachinePoolRow, MachineRow, OperationRow


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedMachines:
    """What a request asks for.

    Attributes:
        choices: places and sizes, best first.
        name: of the machine; those of a pool are numbered after it.
    """

    compute_config_id: str
    choices: Sequence[Choice]
    count: int = 1
    name: str | None = None


def fingerprint_of(*parts: str | Mapping[str, Any]) -> str:
    """Return what the contract shows of a request, so that two can be told apart."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add_machine(rows: Adds, cluster: ClusterRow, wanted: WantedMachines) -> MachineRow:
    """Add one machine that has no server yet."""
    return _add(rows, cluster, wanted, name=wanted.name, pool_id=None)


def add_pool(
    rows: Adds, cluster: ClusterRow, wanted: WantedMachines
) -> tuple[MachinePoolRow, list[MachineRow]]:
    """Add a pool and its machines, without operations."""
    pool = MachinePoolRow(
        workspace_id=cluster.workspace_id,
        id=new_id(Prefix.MACHINE_POOL),
        cluster_id=cluster.id,
        compute_config_id=wanted.compute_config_id,
        instance_type=wanted.choices[0].instance_type,
        count=wanted.count,
    )
    rows.add(pool)
    machines = [
        _add(
            rows,
            cluster,
            wanted,
            name=None if wanted.name is None else f"{wanted.name}-{number}",
            pool_id=pool.id,
        )
        for number in range(1, wanted.count + 1)
    ]
    return pool, machines


def plan_machine(
    rows: Adds,
    caller: Caller,
    cluster: ClusterRow,
    machine: MachineRow,
    *,
    parent_operation_id: str | None = None,
) -> OperationRow:
    """Plan the creation of a machine that was just added."""
    assert machine.choices  # noqa: S101 - as every machine in a cloud has
    return plan_operation(
        rows,
        OperationType.MACHINE_CREATE,
        machine,
        caller,
        request={
            "cluster_id": cluster.id,
            "compute_config_id": machine.compute_config_id,
            "instance_type": machine.choices[0]["instance_type"],
            # Lists of operations call it so when its row is gone.
            **({"name": machine.name} if machine.name else {}),
            # By the contract's word: in an account of the platform's own.
            "managed": False,
            "request_fingerprint": fingerprint_of(
                machine.id, {"config": machine.compute_config_id, "choices": machine.choices}
            ),
        },
        cluster=cluster,
        parent_operation_id=parent_operation_id,
    )


def plan_pool(
    rows: Adds,
    caller: Caller,
    cluster: ClusterRow,
    pool: MachinePoolRow,
    machines: Sequence[MachineRow],
) -> OperationRow:
    """Plan the creation of a pool; its workflow plans those of its machines, as its parts."""
    return plan_operation(
        rows,
        OperationType.MACHINE_POOL_CREATE,
        pool,
        caller,
        request={
            "workspace_id": pool.workspace_id,
            "pool_id": pool.id,
            "compute_config_id": pool.compute_config_id,
            "instance_type": pool.instance_type,
            "count": pool.count,
            "machine_ids": [machine.id for machine in machines],
            "managed": False,
            "request_fingerprint": fingerprint_of(pool.id, pool.compute_config_id),
        },
        cluster=cluster,
    )


def plan_cluster(
    rows: Adds,
    caller: Caller,
    cluster: ClusterRow,
    first_pools: Sequence[WantedMachines],
    request: dict[str, Any],
) -> OperationRow:
    """Plan the creation of a cluster, with its first pools as a part of the one operation.

    Their machines get operations of their own when the cluster can take them.
    """
    pools = [add_pool(rows, cluster, wanted)[0] for wanted in first_pools]
    operation = plan_operation(
        rows,
        OperationType.CLUSTER_CREATE,
        cluster,
        caller,
        request=request,
        pool_ids=[pool.id for pool in pools],
    )
    for pool in pools:
        pool.active_operation_id = operation.id
    return operation


def _add(
    rows: Adds,
    cluster: ClusterRow,
    wanted: WantedMachines,
    *,
    name: str | None,
    pool_id: str | None,
) -> MachineRow:
    machine_id = new_id(Prefix.MACHINE)
    machine = MachineRow(
        workspace_id=cluster.workspace_id,
        id=machine_id,
        cluster_id=cluster.id,
        kind=MachineKind.CLOUD,
        name=name,
        state=MachineState.PROVISIONING,
        stage=MachineStage.PROVISIONED,
        # What its server will say of itself when it registers.
        operating_system="linux",
        architecture="",
        hostname=node_name_of(machine_id),
        addresses=[],
        artifact_set="",
        instruction=Instruction.NONE,
        health=MachineHealth.UNKNOWN,
        health_candidate=MachineHealth.UNKNOWN,
        compute_config_id=wanted.compute_config_id,
        choices=[asdict(choice) for choice in wanted.choices],
        pool_id=pool_id,
    )
    rows.add(machine)
    return machine
