"""What a machine in a cloud may become, in whose account, and the stacks that are planned for it.

A network is wanted where a machine's stack is, or where a machine is suspended. Whoever plans a
machine and whoever gives a network up take the network's row lock first; a network that was given
up once is only removed any more, and the next machine gets another one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import tuple_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Place, Provider
from domain.cloud_account import Account
from domain.cluster import ClusterState
from domain.compute import Choice, allowed_place
from domain.errors import BulkheadError, Reason
from domain.machine import MachineState
from domain.operation import OperationState
from domain.owned_operation import MachineOperation
from domain.secret import CURRENT
from domain.stack import MachineShape, StackKind, StackState
from infra.database.engine import Database
from infra.database.queries.cluster import find_cluster, find_resumption
from infra.database.queries.compute import allowed_places, find_config, select_credential
from infra.database.queries.stack import (
    PLACEMENT_GROUP,
    SLEEPING,
    is_group_full,
    is_wanted,
)
from infra.database.records.operation import hold, taken_over
from infra.database.records.planned_stacks import have_network, have_server
from infra.database.tables import ComputeConfigRow, MachineRow, OperationRow, StackRow


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStacks:
    """What a machine that shall be made somewhere needs."""

    network: StackRow
    server: StackRow


class ComputeRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account_of(self, operation: MachineOperation) -> Account:
        """Return the account in which an operation's machine is, or shall be.

        Raises:
            BulkheadError: FAILED_PRECONDITION when its compute config is gone.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            machine = await _machine(session, operation)
            config = await find_config(session, machine.compute_config_id or "")
            if config is None:
                raise _no_config(machine.compute_config_id)
            return account_of(config)

    async def account_of_stack(self, stack: StackRow) -> Account:
        """Return the account in which a stack is, whatever its config has become since."""
        async with self._database.workspace(stack.workspace_id) as session:
            config = await find_config(session, stack.compute_config_id)
        if config is not None and config.secret_id == stack.secret_id:
            return account_of(config)
        return Account(
            workspace_id=stack.workspace_id,
            compute_config_id=stack.compute_config_id,
            provider=stack.provider,
            secret_id=stack.secret_id,
        )

    async def resumption_of(self, operation: MachineOperation) -> str | None:
        """Return the running operation that resumes the cluster; None: it is not suspended.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the cluster stays suspended.
        """
        cluster_id = operation.control_plane.cluster_id
        async with self._database.workspace(operation.workspace_id) as session:
            cluster = await find_cluster(session, cluster_id)
            if cluster is None or cluster.state is not ClusterState.SUSPENDED:
                return None
            resumption = await find_resumption(session, cluster_id)
            if resumption is not None and resumption.id == cluster.active_operation_id:
                return resumption.id
        raise _stays_suspended(resumption)

    async def credential_version(self, operation: MachineOperation) -> str | None:
        """Return the id of the version that would be read now; None: none can be."""
        account = await self.account_of(operation)
        async with self._database.workspace(operation.workspace_id) as session:
            try:
                _, version = await select_credential(session, account.secret_id, account.version)
            except BulkheadError as error:
                if error.reason in {Reason.NOT_FOUND, Reason.FAILED_PRECONDITION}:
                    return None
                raise
            return version.id

    async def choices_of(self, operation: MachineOperation) -> list[Choice]:
        """Return what an operation's machine may become, best first, where the workspace allows.

        Raises:
            BulkheadError: FAILED_PRECONDITION when none of it is allowed.
        """
        account = await self.account_of(operation)
        async with self._database.workspace(operation.workspace_id) as session:
            machine = await _machine(session, operation)
            wanted = _wanted(machine)
            allowed = await allowed_places(session)
        choices = [
            choice
            for choice in wanted
            if allowed is None or allowed_place(account.provider, choice.place) in allowed
        ]
        if not choices:
            raise _not_allowed(choice.place for choice in wanted)
        return choices

    async def plan_stacks(
        self, operation: MachineOperation, account: Account, choice: Choice, place: Place
    ) -> PlannedStacks:
        """Write the machine's stack, and its network's where the cluster has none there.

        Repeated, it finds what it wrote.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over; CONFLICT while the
                machine has a stack for another choice; FAILED_PRECONDITION when the workspace
                allows the place no more.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            await _hold_running(session, operation)
            await _check_allowed(session, account.provider, place.name)
            network = await have_network(session, operation, account, place)
            server = await have_server(session, operation, account, choice, place)
            return PlannedStacks(network=network, server=server)

    async def shape_server(
        self, stack: StackRow, network: StackRow, *, image: str, choice: Choice
    ) -> StackRow:
        """Write what the machine's program gets, now that its network is known.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the workspace allows the place no more.
        """
        outputs = {name: str(value) for name, value in network.outputs.items()}
        async with self._database.workspace(stack.workspace_id) as session:
            await _check_allowed(session, stack.provider, stack.place)
            # One after the other: they count each other.
            lock = select(StackRow.id).where(StackRow.id == network.id).with_for_update()
            await session.exec(lock)
            if await is_group_full(session, stack, outputs.get(PLACEMENT_GROUP)):
                outputs.pop(PLACEMENT_GROUP, None)
            shape = MachineShape(
                place=stack.place,
                region=stack.region,
                instance_type=choice.instance_type,
                image=image,
                network=outputs,
            )
            query = update(StackRow).where(col(StackRow.id) == stack.id)
            await session.execute(query.values(shape=asdict(shape)))
            await session.flush()
            return await session.get_one(StackRow, (stack.workspace_id, stack.id))

    async def reach_server(
        self, operation: MachineOperation, stack: StackRow, outputs: Mapping[str, Any]
    ) -> None:
        """The machine has a server in its account.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            machine = await _hold_running(session, operation)
            machine.place = stack.place
            machine.instance_type = str(stack.shape["instance_type"])
            machine.provider_id = f"compute://{stack.provider}/{outputs['server_id']}"
            machine.public_ip = str(outputs.get("public_ip") or "") or None
            machine.server_missing_since = None
            machine.version += 1
            machine.updated_at = datetime.now(UTC)

    async def stacks_of(self, operation: MachineOperation) -> list[StackRow]:
        """Return every stack that the machine ever had, the oldest first."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(StackRow).where(StackRow.machine_id == operation.owner_id)
            return list((await session.exec(query.order_by(col(StackRow.id)))).all())

    async def networks_near(self, stacks: Sequence[StackRow]) -> list[StackRow]:
        """Return the networks that machines' stacks had or have, also those that are removed."""
        if not stacks:
            return []
        near = {(row.cluster_id, row.secret_id, row.provider, row.place) for row in stacks}
        async with self._database.workspace(stacks[0].workspace_id) as session:
            query = select(StackRow).where(
                StackRow.kind == StackKind.NETWORK,
                tuple_(
                    col(StackRow.cluster_id),
                    col(StackRow.secret_id),
                    col(StackRow.provider),
                    col(StackRow.place),
                ).in_(near),
            )
            return list((await session.exec(query.order_by(col(StackRow.id)))).all())

    async def is_asleep(self, operation: MachineOperation) -> bool:
        """Tell whether the machine's disk is kept while it has no server."""
        async with self._database.workspace(operation.workspace_id) as session:
            machine = await session.get(MachineRow, (operation.workspace_id, operation.owner_id))
            return machine is not None and machine.state in SLEEPING

    async def give_up(self, network: StackRow) -> bool:
        """Decide that nobody wants a network any more. False: somebody does."""
        async with self._database.workspace(network.workspace_id) as session:
            query = select(StackRow).where(StackRow.id == network.id).with_for_update()
            row = (await session.exec(query)).one()
            if row.released_at is None and not await is_wanted(session, row):
                row.released_at = datetime.now(UTC)
                return True
            return row.released_at is not None

    async def drop_planned(self, stack: StackRow) -> bool:
        """End a stack for which nothing was ever asked of its provider. False: something was."""
        async with self._database.workspace(stack.workspace_id) as session:
            result = await session.execute(
                update(StackRow)
                .where(
                    col(StackRow.id) == stack.id,
                    col(StackRow.state) == StackState.PLANNED,
                    col(StackRow.lease_holder).is_(None),
                )
                .values(state=StackState.REMOVED, updated_at=datetime.now(UTC))
                .returning(col(StackRow.id))
            )
            return result.first() is not None

    async def note_gone(self, operation: MachineOperation) -> None:
        """The account has no server of the machine's: nothing on it ends, or answers, any more."""
        async with self._database.workspace(operation.workspace_id) as session:
            machine = await _hold_running(session, operation)
            if machine.uninstalled_at is None:
                machine.uninstalled_at = datetime.now(UTC)
                machine.version += 1


def _wanted(machine: MachineRow) -> list[Choice]:
    """Return what a machine may become: one that comes back, where its disk was kept."""
    choices = [Choice(**choice) for choice in machine.choices or ()]
    if machine.state is not MachineState.RESUMING or machine.place is None:
        return choices
    before = Choice(place=machine.place, instance_type=machine.instance_type or "")
    here = [choice for choice in choices if choice.place == machine.place and choice != before]
    return [before, *here]


async def _machine(session: AsyncSession, operation: MachineOperation) -> MachineRow:
    machine = await session.get(MachineRow, (operation.workspace_id, operation.owner_id))
    if machine is None:
        raise taken_over()
    return machine


async def _hold_running(session: AsyncSession, operation: MachineOperation) -> MachineRow:
    row, machine = await hold(session, operation)
    if (
        row.state is not OperationState.RUNNING
        or not isinstance(machine, MachineRow)
        or machine.active_operation_id != row.id
    ):
        raise taken_over()
    return machine


def account_of(config: ComputeConfigRow) -> Account:
    """Return the account that a compute config leads to."""
    return Account(
        workspace_id=config.workspace_id,
        compute_config_id=config.id,
        provider=config.provider,
        secret_id=config.secret_id,
        version=config.secret_version_id or CURRENT,
        image=str(config.provider_config.get("image") or ""),
    )


async def _check_allowed(session: AsyncSession, provider: Provider, place: str) -> None:
    # A machine may have waited for a credential for weeks.
    allowed = await allowed_places(session)
    if allowed is not None and allowed_place(provider, place) not in allowed:
        raise _not_allowed([place])


def _not_allowed(places: Iterable[str]) -> BulkheadError:
    names = ", ".join(dict.fromkeys(places))
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The workspace's compute policy allows none of the places {names}. Allow one of them, or "
        "ask for others.",
    )


def _no_config(config_id: str | None) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The compute config {config_id} of the machine is gone. Make a new machine with another.",
    )


def _stays_suspended(resumption: OperationRow | None) -> BulkheadError:
    error = None if resumption is None else resumption.error
    why = "" if error is None else f" {error['message']}"
    return BulkheadError(
        Reason.FAILED_PRECONDITION, f"The cluster is suspended, and was not resumed.{why}"
    )
