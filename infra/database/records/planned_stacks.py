"""The rows of stacks that a machine needs, made before anything of them is made in an account."""

from dataclasses import asdict

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Place
from domain.cloud_account import Account
from domain.compute import Choice
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.owned_operation import MachineOperation
from domain.stack import MachineShape, NetworkShape, StackKind, StackState
from infra.database.queries.stack import free_network, networks_of
from infra.database.tables import StackRow


async def have_network(
    session: AsyncSession, operation: MachineOperation, account: Account, place: Place
) -> StackRow:
    """Return the network of the machine's cluster at its place, locked; planned if it must be."""
    cluster_id = operation.control_plane.cluster_id
    query = networks_of(cluster_id, account.secret_id, account.provider, place.name)
    query = query.with_for_update()
    found = (await session.exec(query)).one_or_none()
    if found is None:
        row = _new_stack(operation, account, place, StackKind.NETWORK)
        shape = NetworkShape(
            place=place.name, region=place.region, cidr=await free_network(session, cluster_id)
        )
        row.shape = asdict(shape)
        await _insert(session, row)
        found = (await session.exec(query)).one()
    return found


async def have_server(
    session: AsyncSession,
    operation: MachineOperation,
    account: Account,
    choice: Choice,
    place: Place,
) -> StackRow:
    """Return the stack of the machine's server, planned if it must be.

    Raises:
        BulkheadError: CONFLICT while there is a server of another choice.
    """
    row = _new_stack(operation, account, place, StackKind.MACHINE)
    row.machine_id = operation.owner_id
    shape = MachineShape(
        place=place.name, region=place.region, instance_type=choice.instance_type, image=""
    )
    row.shape = asdict(shape)
    await _insert(session, row)
    found = (
        await session.exec(
            select(StackRow).where(
                StackRow.kind == StackKind.MACHINE,
                StackRow.machine_id == operation.owner_id,
                StackRow.state != StackState.REMOVED,
            )
        )
    ).one()
    if (found.place, found.shape["instance_type"]) != (choice.place, choice.instance_type):
        raise BulkheadError(
            Reason.CONFLICT,
            "The machine has a server of another choice, which is to be removed first.",
            retryable=True,
        )
    return found


def _new_stack(
    operation: MachineOperation, account: Account, place: Place, kind: StackKind
) -> StackRow:
    return StackRow(
        workspace_id=operation.workspace_id,
        id=new_id(Prefix.STACK),
        kind=kind,
        cluster_id=operation.control_plane.cluster_id,
        compute_config_id=account.compute_config_id,
        secret_id=account.secret_id,
        provider=account.provider,
        place=place.name,
        region=place.region,
        state=StackState.PLANNED,
        shape={},
        outputs={},
    )


async def _insert(session: AsyncSession, row: StackRow) -> None:
    """Write a planned stack, unless there is one of the kind already."""
    values = row.model_dump(exclude={"created_at", "updated_at"})
    await session.execute(insert(StackRow).values(**values).on_conflict_do_nothing())
