"""What accounts had when they were asked: the proof that nothing is left, or what is left."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import CloudResource
from domain.cloud_account import Account, OpenedAs
from domain.identifiers import Prefix, new_id
from domain.owned_operation import MachineOperation
from infra.database.engine import Database
from infra.database.tables import InventoryRow, LeakRow


class InventoryRecords:
    """The transactions of one worker."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        operation: MachineOperation,
        account: Account,
        *,
        found: Sequence[CloudResource],
        left: Sequence[CloudResource],
    ) -> None:
        """Keep what an account has of a machine; an operation has one such row, the newest.

        Args:
            operation: for which the account was asked.
            account: which.
            found: all that it has of the machine and its network.
            left: what of that nobody wants and cannot be removed yet.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(InventoryRow).where(
                InventoryRow.operation_id == operation.operation_id,
                InventoryRow.machine_id == operation.owner_id,
                InventoryRow.provider == account.provider,
            )
            row = (await session.exec(query.with_for_update())).first()
            if row is None:
                row = InventoryRow(
                    workspace_id=operation.workspace_id,
                    id=new_id(Prefix.INVENTORY),
                    operation_id=operation.operation_id,
                    machine_id=operation.owner_id,
                    provider=account.provider,
                    left=0,
                    resources=[],
                )
                session.add(row)
            kept = {(thing.kind, thing.id) for thing in left}
            row.left = len(left)
            row.resources = [
                {**thing.as_json(), "wanted": (thing.kind, thing.id) not in kept} for thing in found
            ]
            row.taken_at = datetime.now(UTC)

    async def record_leaks(
        self,
        account: Account,
        opened: OpenedAs,
        left: Sequence[CloudResource],
        errors: Mapping[str, str],
    ) -> None:
        """Keep what nobody wants as open findings, which the sweep tries to remove.

        Args:
            account: in which they are.
            opened: as what it was opened.
            left: what was found and could not be removed.
            errors: by the ids of resources, why not.
        """
        async with self._database.workspace(account.workspace_id) as session:
            for thing in left:
                await _add_leak(session, account, opened, thing, errors.get(thing.id))

    async def resolve_leaks(
        self, workspace_id: str, stack_ids: Sequence[str], opened: OpenedAs
    ) -> None:
        """Nothing of these stacks is left in an account: open findings in it are closed."""
        async with self._database.workspace(workspace_id) as session:
            await session.execute(
                update(LeakRow)
                .where(
                    col(LeakRow.stack_id).in_(list(stack_ids)),
                    col(LeakRow.resolved_at).is_(None),
                    or_(
                        col(LeakRow.secret_version_id).is_(None),
                        col(LeakRow.secret_version_id) == opened.version_id,
                        col(LeakRow.account_id) == opened.account_id,
                    ),
                )
                .values(resolved_at=func.clock_timestamp(), last_seen_at=func.clock_timestamp())
            )


async def _add_leak(
    session: AsyncSession,
    account: Account,
    opened: OpenedAs,
    thing: CloudResource,
    error: str | None,
) -> None:
    statement = insert(LeakRow).values(
        workspace_id=account.workspace_id,
        id=new_id(Prefix.LEAK),
        compute_config_id=account.compute_config_id,
        provider=account.provider,
        kind=thing.kind,
        cloud_id=thing.id,
        name=thing.name,
        place=thing.place,
        stack_id=thing.stack_id,
        account_id=opened.account_id,
        secret_version_id=opened.version_id,
        # Whose removal was tried, and failed.
        attempts=int(error is not None),
        last_error=error,
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["workspace_id", "provider", "kind", "cloud_id"],
            index_where=col(LeakRow.resolved_at).is_(None),
            set_={
                "attempts": col(LeakRow.attempts) + statement.excluded.attempts,
                "last_error": func.coalesce(statement.excluded.last_error, col(LeakRow.last_error)),
                "last_seen_at": func.clock_timestamp(),
                "account_id": statement.excluded.account_id,
                "secret_version_id": statement.excluded.secret_version_id,
            },
        )
    )
