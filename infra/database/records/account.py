"""Customers' accounts as the clock visits them: which there are, and what rows say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.cloud import Provider
from domain.cloud_account import Account, OpenedAs
from domain.errors import BulkheadError, Reason
from domain.inventory import KnownStack
from domain.machine import MachineKind, MachineState
from domain.operation import OperationState
from domain.secret import CURRENT
from domain.stack import StackKind, StackState
from infra.database.engine import Database
from infra.database.queries.compute import find_config
from infra.database.queries.emergency_stop import stop_of_account
from infra.database.queries.stack import visible_stacks
from infra.database.records.audit import add_audit_event
from infra.database.records.compute import account_of
from infra.database.records.stack import known_stack
from infra.database.records.suspension import WANTS_SNAPSHOT
from infra.database.tables import (
    CloudIntentRow,
    ClusterRow,
    ComputeConfigRow,
    LeakRow,
    MachineRow,
    OperationRow,
    StackRow,
    SuspensionEventRow,
)

# One account for each secret, version and provider, by its oldest config or by what is left of one:
# versions that configs name may be of different accounts. In no order, so that accounts that cannot
# be visited now do not keep the others waiting.
_ACCOUNTS: Final = text("""
WITH seen AS (
    SELECT workspace_id, secret_id, provider, id AS config_id, secret_version_id, true AS is_there
        FROM compute_configs
    UNION
    SELECT s.workspace_id, s.secret_id, s.provider, s.compute_config_id, NULL, false FROM stacks s
        WHERE s.state <> 'removed' AND NOT EXISTS (
            SELECT FROM compute_configs c WHERE c.workspace_id = s.workspace_id
                AND c.id = s.compute_config_id AND c.secret_id = s.secret_id)
)
SELECT workspace_id, secret_id, provider,
       coalesce(min(config_id) FILTER (WHERE is_there), min(config_id)) AS config_id,
       secret_version_id AS version, array_agg(DISTINCT config_id) AS config_ids
FROM seen GROUP BY workspace_id, secret_id, provider, secret_version_id ORDER BY random()
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class VisitedAccount:
    """An account, and all compute configs that lead to it."""

    account: Account
    config_ids: Sequence[str]

    @property
    def workspace_id(self) -> str:
        """Whose account it is."""
        return self.account.workspace_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedMachine:
    """A machine that should have a server.

    Attributes:
        missing_since: since when the account has no such server, as far as is known.
    """

    machine_id: str
    stack_id: str
    server_id: str
    missing_since: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """An open finding, and as what the account was opened in which it was seen last."""

    id: str
    kind: str
    cloud_id: str
    account_id: str | None
    version_id: str | None

    @property
    def key(self) -> tuple[str, str]:
        """By which it is found in an account."""
        return self.kind, self.cloud_id


class AccountRecords:
    """Finds accounts with the sweeper's role, and writes in the workspace of each."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def accounts(self) -> list[VisitedAccount]:
        """Return every account of every workspace."""
        async with self._sweeper.transaction() as session:
            rows = (await session.execute(_ACCOUNTS)).all()
        return [_visited(row) for row in rows]

    async def account_of_config(self, workspace_id: str, config_id: str) -> Account:
        """Return the account of a compute config.

        Raises:
            BulkheadError: NOT_FOUND.
        """
        async with self._database.workspace(workspace_id) as session:
            config = await find_config(session, config_id)
        if config is None:
            raise BulkheadError(Reason.NOT_FOUND, "The compute config is gone.")
        return account_of(config)

    async def note_look(self, visited: VisitedAccount, problem: str | None) -> None:
        """Say when the account was looked at last, and why that failed, if it did."""
        async with self._database.workspace(visited.workspace_id) as session:
            await session.execute(
                update(ComputeConfigRow)
                .where(col(ComputeConfigRow.id).in_(visited.config_ids))
                .values(looked_at=func.now(), problem=problem)
            )

    async def stacks(self, workspace_id: str, stack_ids: Sequence[str]) -> dict[str, KnownStack]:
        """Return what the rows say of stacks; one without a row is left out."""
        async with self._database.workspace(workspace_id) as session:
            query = select(StackRow).where(col(StackRow.id).in_(stack_ids))
            rows = (await session.exec(query)).all()
            owned = await _owned(session, rows)
            kept = select(SuspensionEventRow.stack_id).where(
                col(SuspensionEventRow.stack_id).in_(stack_ids),
                col(SuspensionEventRow.state).in_(WANTS_SNAPSHOT),
            )
            snapshots = set((await session.exec(kept)).all())
            intents = await _intents(session, stack_ids)
        return {
            row.id: known_stack(
                row,
                intents.get(row.id, ()),
                has_owner=row.id in owned,
                has_snapshot=row.id in snapshots,
            )
            for row in rows
        }

    async def is_elsewhere(self, visited: VisitedAccount, opened: OpenedAs) -> bool:
        """Tell whether what has the same credential is known to be in another account."""
        account = visited.account
        if account.version != CURRENT or opened.account_id is None:
            return False
        query = select(StackRow.id).join(
            ComputeConfigRow, col(ComputeConfigRow.id) == col(StackRow.compute_config_id)
        )
        query = query.where(
            StackRow.secret_id == account.secret_id,
            StackRow.provider == account.provider,
            StackRow.state != StackState.REMOVED,
            col(StackRow.account_id) != opened.account_id,
            col(ComputeConfigRow.secret_version_id).is_(None),
        )
        async with self._database.workspace(visited.workspace_id) as session:
            return (await session.exec(query.limit(1))).first() is not None

    async def unseen_with(
        self, visited: VisitedAccount, opened: OpenedAs
    ) -> Mapping[str, set[str]]:
        """Return stacks that were last seen with other versions of the secret, by version.

        Something of each group must be in the account, else it is not theirs; unless a person has
        named the version, or the provider tells that it is the same account.
        """
        account = visited.account
        if account.version != CURRENT:
            return {}
        async with self._database.workspace(visited.workspace_id) as session:
            query = (
                select(StackRow)
                .join(ComputeConfigRow, col(ComputeConfigRow.id) == col(StackRow.compute_config_id))
                .where(
                    StackRow.secret_id == account.secret_id,
                    StackRow.provider == account.provider,
                    StackRow.state != StackState.REMOVED,
                    col(StackRow.secret_version_id) != opened.version_id,
                    col(ComputeConfigRow.secret_version_id).is_(None),
                )
            )
            if opened.account_id is not None:
                query = query.where(col(StackRow.account_id).is_(None))
            other = {str(row.secret_version_id): row for row in await session.exec(query)}
            groups = {version: await visible_stacks(session, row) for version, row in other.items()}
        return {version: group for version, group in groups.items() if group}

    async def open_leaks(self, visited: VisitedAccount) -> list[Leak]:
        """Return the open findings in an account, by whichever of its configs they were seen."""
        async with self._database.workspace(visited.workspace_id) as session:
            query = select(LeakRow).where(
                LeakRow.provider == visited.account.provider,
                col(LeakRow.compute_config_id).in_(visited.config_ids),
                col(LeakRow.resolved_at).is_(None),
            )
            rows = (await session.exec(query.order_by(col(LeakRow.id)))).all()
        return [
            Leak(
                id=row.id,
                kind=row.kind,
                cloud_id=row.cloud_id,
                account_id=row.account_id,
                version_id=row.secret_version_id,
            )
            for row in rows
        ]

    async def resolve_leaks(self, workspace_id: str, leak_ids: Sequence[str]) -> None:
        """The account has these no more, or somebody wants them after all."""
        async with self._database.workspace(workspace_id) as session:
            await session.execute(
                update(LeakRow)
                .where(col(LeakRow.id).in_(leak_ids), col(LeakRow.resolved_at).is_(None))
                .values(resolved_at=func.now())
            )

    async def blame(
        self, visited: VisitedAccount, error: str, leak_ids: Sequence[str] | None = None
    ) -> None:
        """Say of an account's open findings, all or some, why they cannot be looked after now."""
        those = [] if leak_ids is None else [col(LeakRow.id).in_(leak_ids)]
        async with self._database.workspace(visited.workspace_id) as session:
            await session.execute(
                update(LeakRow)
                .where(
                    col(LeakRow.compute_config_id).in_(visited.config_ids),
                    col(LeakRow.provider) == visited.account.provider,
                    col(LeakRow.resolved_at).is_(None),
                    *those,
                )
                .values(last_error=error)
            )

    async def is_stopped(self, visited: VisitedAccount) -> bool:
        """Tell whether an emergency stop forbids to change anything in an account."""
        async with self._database.workspace(visited.workspace_id) as session:
            provider = visited.account.provider
            return await stop_of_account(session, visited.workspace_id, provider) is not None

    async def served_machines(self, visited: VisitedAccount) -> list[ServedMachine]:
        """Return the account's machines that are active, and that no operation works on."""
        async with self._database.workspace(visited.workspace_id) as session:
            query = (
                select(MachineRow, StackRow)
                .join(
                    StackRow,
                    (col(StackRow.workspace_id) == col(MachineRow.workspace_id))
                    & (col(StackRow.machine_id) == col(MachineRow.id)),
                )
                .where(
                    MachineRow.kind == MachineKind.CLOUD,
                    MachineRow.state == MachineState.ACTIVE,
                    col(MachineRow.active_operation_id).is_(None),
                    StackRow.state == StackState.PRESENT,
                    StackRow.secret_id == visited.account.secret_id,
                    StackRow.provider == visited.account.provider,
                    col(StackRow.compute_config_id).in_(visited.config_ids),
                )
            )
            rows = (await session.exec(query)).all()
        return [
            ServedMachine(
                machine_id=machine.id,
                stack_id=stack.id,
                server_id=str(stack.outputs["server_id"]),
                missing_since=machine.server_missing_since,
            )
            for machine, stack in rows
            if stack.outputs.get("server_id")
        ]

    async def note_server(
        self, visited: VisitedAccount, machine: ServedMachine, *, schedule: str, missing: bool
    ) -> bool:
        """Say whether a machine's server is in its account; False: that is not news any more."""
        async with self._database.workspace(visited.workspace_id) as session:
            # An operation that began meanwhile knows better.
            query = select(MachineRow).where(
                MachineRow.id == machine.machine_id,
                MachineRow.state == MachineState.ACTIVE,
                col(MachineRow.active_operation_id).is_(None),
            )
            row = (await session.exec(query.with_for_update())).one_or_none()
            if row is None or (row.server_missing_since is not None) is missing:
                return False
            row.server_missing_since = await _now(session) if missing else None
            row.version += 1
            add_audit_event(
                session,
                system_caller(visited.workspace_id, schedule),
                f"machine.server.{'missing' if missing else 'found'}",
                "machine",
                row.id,
                details={"stack_id": machine.stack_id, "server_id": machine.server_id},
            )
            return True


async def _owned(session: AsyncSession, rows: Sequence[StackRow]) -> set[str]:
    """Return the stacks whose machine or cluster exists, or on which somebody works."""
    machines = {row.machine_id for row in rows if row.machine_id is not None}
    clusters = {row.cluster_id for row in rows}
    there = set(
        (await session.exec(select(MachineRow.id).where(col(MachineRow.id).in_(machines)))).all()
    )
    there |= set(
        (await session.exec(select(ClusterRow.id).where(col(ClusterRow.id).in_(clusters)))).all()
    )
    working = select(OperationRow.owner_id).where(
        col(OperationRow.owner_id).in_(machines | clusters),
        OperationRow.state == OperationState.RUNNING,
    )
    there |= set((await session.exec(working)).all())
    now = await _now(session)
    return {
        row.id
        for row in rows
        if (row.machine_id if row.kind is StackKind.MACHINE else row.cluster_id) in there
        or (row.lease_expires_at is not None and row.lease_expires_at > now)
    }


async def _intents(
    session: AsyncSession, stack_ids: Sequence[str]
) -> Mapping[str, Sequence[CloudIntentRow]]:
    query = select(CloudIntentRow).where(col(CloudIntentRow.stack_id).in_(stack_ids))
    found: dict[str, list[CloudIntentRow]] = {}
    for row in await session.exec(query):
        found.setdefault(row.stack_id, []).append(row)
    return found


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    return now


def _visited(row: Row[Any]) -> VisitedAccount:
    return VisitedAccount(
        account=Account(
            workspace_id=row.workspace_id,
            compute_config_id=row.config_id,
            provider=Provider(row.provider),
            secret_id=row.secret_id,
            version=row.version or CURRENT,
        ),
        config_ids=row.config_ids,
    )
