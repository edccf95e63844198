"""Which secrets an install uses, which versions its cluster has, and what its consumers took over.

Rows name secrets and versions; a value is never among them. The install's row lock is taken first,
then those of secrets in the order of their ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.install import INSTALL_CONSUMER
from domain.operation import OperationState, OperationType
from domain.owned_operation import InstallOperation, TypedOperation
from domain.secret import CURRENT, SecretState
from domain.secret_use import SecretUse
from infra.database.engine import Database
from infra.database.queries.secret import find_secret
from infra.database.records.operation import (
    end_operation,
    hold,
    secret_operation_of,
    taken_over,
)
from infra.database.records.reference import (
    Reference,
    acknowledge,
    register_reference,
    remove_reference,
)
from infra.database.tables import (
    InstallRow,
    InstallSecretRow,
    OperationRow,
    RenderRow,
    SecretVersionRow,
)


@dataclass(frozen=True, slots=True)
class Synced:
    """A Kubernetes Secret that has the value of a version."""

    use: SecretUse
    version_id: str
    number: int


class InstallSecretRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def values_of(self, operation: InstallOperation) -> dict[str, Any]:
        """Return the values that are deployed, with references in them.

        Raises:
            BulkheadError: ABORTED when the install is gone.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(RenderRow.values).where(
                InstallRow.id == operation.install_id,
                RenderRow.workspace_id == InstallRow.workspace_id,
                RenderRow.id == InstallRow.current_render_id,
            )
            found = (await session.exec(query)).one_or_none()
            if found is None:
                raise taken_over()
            return dict(found)

    async def objects_of(self, operation: InstallOperation) -> list[InstallSecretRow]:
        """Return what was written into the install's namespace."""
        async with self._database.workspace(operation.workspace_id) as session:
            return await _objects(session, operation.install_id)

    async def expect(self, operation: InstallOperation, uses: Sequence[SecretUse]) -> None:
        """The install is about to get these secrets, and a consumer of each from now on.

        Raises:
            BulkheadError: NOT_FOUND for a secret that is gone; ABORTED when another operation took
                the install's lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            install = await _hold(session, operation)
            for secret_id in sorted({use.secret_id for use in uses}):
                await _register(session, install, secret_id, uses)
            for use in uses:
                await session.execute(
                    insert(InstallSecretRow)
                    .values(
                        workspace_id=install.workspace_id,
                        install_id=install.id,
                        object_name=use.object_name,
                        secret_id=use.secret_id,
                        alias=use.alias,
                        key=use.key,
                    )
                    .on_conflict_do_nothing()
                )

    async def record_synced(self, operation: InstallOperation, synced: Sequence[Synced]) -> None:
        """The cluster has these versions.

        What is new there has no consumer that works with an older value, and is acknowledged.

        Raises:
            BulkheadError: ABORTED when another operation took the install's lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            install = await _hold(session, operation)
            rows = {row.object_name: row for row in await _objects(session, install.id)}
            new: dict[str, int] = {}
            changed: set[str] = set()
            for one in synced:
                row = rows.get(one.use.object_name)
                if row is None:
                    raise taken_over()
                if row.synced_version_id is None and one.use.alias == CURRENT:
                    new[one.use.secret_id] = one.number
                elif row.synced_version_id != one.version_id:
                    changed.add(one.use.secret_id)
                if row.synced_version_id != one.version_id:
                    is_new = row.synced_version_id is None
                    row.consumed_version_id = one.version_id if is_new else None
                    row.synced_version_id = one.version_id
                    row.synced_at = (await session.exec(select(func.clock_timestamp()))).one()
            for secret_id in sorted(new.keys() - changed):
                await _acknowledge(session, install.id, secret_id, new[secret_id])

    async def forget_others(self, operation: InstallOperation, uses: Sequence[SecretUse]) -> None:
        """The cluster has no others than these any more.

        Raises:
            BulkheadError: ABORTED when another operation took the install's lock over.
        """
        names = [use.object_name for use in uses]
        kept = {use.secret_id for use in uses}
        async with self._database.workspace(operation.workspace_id) as session:
            install = await _hold(session, operation)
            removed = await session.execute(
                delete(InstallSecretRow)
                .where(
                    col(InstallSecretRow.install_id) == install.id,
                    col(InstallSecretRow.object_name).not_in(names),
                )
                .returning(col(InstallSecretRow.secret_id))
            )
            gone = set(removed.scalars())
            for secret_id in sorted(gone - kept):
                await remove_reference(session, secret_id, INSTALL_CONSUMER, install.id)
            for secret_id in sorted(gone & kept):
                await _register(session, install, secret_id, uses)

    async def reach_consumed(self, operation: InstallOperation) -> list[TypedOperation]:
        """Everything in the install works with what the cluster has; end the operation.

        Returns:
            The rotations that may wait for this.

        Raises:
            BulkheadError: ABORTED when another operation took the install's lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return []
            install = await _hold(session, operation)
            waiting: dict[str, TypedOperation] = {}
            for one in await _objects(session, install.id):
                one.consumed_version_id = one.synced_version_id
                number = await _number_of(session, one.synced_version_id)
                if one.alias != CURRENT or number is None:
                    continue
                await _acknowledge(session, install.id, one.secret_id, number)
                rotation = await _rotation_of(session, one.secret_id)
                if rotation is not None:
                    waiting[one.secret_id] = rotation
            row.response = {"type": row.type, "install_id": install.id}
            install.active_operation_id = None
            install.version += 1
            await end_operation(session, operation, row, OperationState.SUCCEEDED)
            return list(waiting.values())


async def _hold(session: AsyncSession, operation: InstallOperation) -> InstallRow:
    row, install = await hold(session, operation)
    if not isinstance(install, InstallRow) or install.active_operation_id != row.id:
        raise taken_over()
    return install


async def _objects(session: AsyncSession, install_id: str) -> list[InstallSecretRow]:
    query = (
        select(InstallSecretRow)
        .where(InstallSecretRow.install_id == install_id)
        .order_by(col(InstallSecretRow.secret_id), col(InstallSecretRow.object_name))
    )
    return list(await session.exec(query))


async def _register(
    session: AsyncSession, install: InstallRow, secret_id: str, uses: Sequence[SecretUse]
) -> None:
    """Register the install; rotations wait for it when it follows the version that is current."""
    secret = await find_secret(session, secret_id, lock=True)
    if secret is None or secret.state is not SecretState.ACTIVE:
        raise BulkheadError(
            Reason.NOT_FOUND,
            f"The values refer to the secret {secret_id}, which is not there any more. Restore it, "
            "or change the values.",
            metadata={"secret_id": secret_id},
        )
    follows = any(use.secret_id == secret_id and use.alias == CURRENT for use in uses)
    # What is deployed may follow it while what shall be deployed does not.
    known = select(InstallSecretRow.alias).where(
        InstallSecretRow.install_id == install.id,
        InstallSecretRow.secret_id == secret_id,
        InstallSecretRow.alias == CURRENT,
    )
    follows = follows or (await session.exec(known)).first() is not None
    reference = Reference(
        workspace_id=install.workspace_id,
        secret_id=secret_id,
        consumer_type=INSTALL_CONSUMER,
        consumer_id=install.id,
        acknowledges=follows,
    )
    await register_reference(session, reference)


async def _acknowledge(session: AsyncSession, install_id: str, secret_id: str, number: int) -> None:
    # One that was destroyed meanwhile is waited for by nobody.
    try:
        await acknowledge(session, secret_id, INSTALL_CONSUMER, install_id, number)
    except BulkheadError as error:
        if error.reason not in {Reason.FAILED_PRECONDITION, Reason.INVALID_ARGUMENT}:
            raise


async def _number_of(session: AsyncSession, version_id: str | None) -> int | None:
    if version_id is None:
        return None
    query = select(SecretVersionRow.number).where(SecretVersionRow.id == version_id)
    return (await session.exec(query)).one_or_none()


async def _rotation_of(session: AsyncSession, secret_id: str) -> TypedOperation | None:
    query = select(OperationRow).where(
        OperationRow.owner_id == secret_id,
        OperationRow.type == OperationType.SECRET_ROTATE,
        OperationRow.state == OperationState.RUNNING,
    )
    row = (await session.exec(query)).first()
    if row is None:
        return None
    return TypedOperation(type=row.type, operation=secret_operation_of(row))
