"""What schedules find across workspaces, and write in each one's own transaction."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.cluster import ClusterState
from domain.operation import OperationState, OperationType
from domain.owned_operation import TypedOperation
from domain.quota import QuotaMetric
from domain.rotation import Turn, pause_before_retry, take_turn
from domain.secret import SecretState
from infra.database.engine import Database
from infra.database.queries.quota import read_quota
from infra.database.records.audit import add_audit_event
from infra.database.records.operation import (
    cluster_operation_of,
    plan_operation,
    secret_operation_of,
)
from infra.database.records.rotation_plan import plan_rotation, schedule_of
from infra.database.tables import (
    ClusterRow,
    IdempotencyKeyRow,
    OperationRow,
    SecretRotationRow,
    SecretRow,
    WorkerBootstrapRow,
)

# The contract keeps a key for a day; two cover every clock and time zone that reads it loosely.
_KEYS_ARE_KEPT = timedelta(days=2)

# Long enough to find out how a server came in; who made it is in the audit log for ever. The
# sweeper's right to delete says the same.
_BOOTSTRAPS_ARE_KEPT = timedelta(days=30)

# Renewals of one pass: each restarts two controllers, so they are spread over the hours that
# remain before anything expires.
_RENEWALS_A_PASS = 20

# Rotations of one pass; each is a handful of calls.
_ROTATIONS_A_PASS = 50

_SCHEDULE = "renew-cluster-certificates"
_ROTATIONS = "rotate-secrets"

# Of which turn a rotation is, in its operation's placement; one that a person asked for has none.
_TURN = "turn"


class Sweeps:
    """The passes of the platform's schedules."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def forget_idempotency_keys(self) -> int:
        """Remove old idempotency keys and return how many."""
        async with self._sweeper.transaction() as session:
            result = await session.execute(
                delete(IdempotencyKeyRow)
                .where(col(IdempotencyKeyRow.created_at) < func.now() - _KEYS_ARE_KEPT)
                .returning(col(IdempotencyKeyRow.key))
            )
            return len(result.all())

    async def forget_worker_bootstraps(self) -> int:
        """Remove worker bootstraps that ended long ago and return how many."""
        row = WorkerBootstrapRow
        async with self._sweeper.transaction() as session:
            result = await session.execute(
                delete(row)
                .where(
                    col(row.expires_at) < func.now() - _BOOTSTRAPS_ARE_KEPT,
                    col(row.active_operation_id).is_(None),
                )
                .returning(col(row.id))
            )
            return len(result.all())

    async def plan_due_renewals(self) -> list[TypedOperation]:
        """Plan a renewal for active, unlocked clusters whose certificates are due."""
        async with self._sweeper.transaction() as session:
            due = await session.execute(
                select(ClusterRow.workspace_id, ClusterRow.id)
                .where(
                    ClusterRow.state == ClusterState.ACTIVE,
                    col(ClusterRow.active_operation_id).is_(None),
                    col(ClusterRow.certificates_renew_after) < func.now(),
                )
                .order_by(col(ClusterRow.certificates_expire_at))
                .limit(_RENEWALS_A_PASS)
            )
            found = due.all()
        planned = [await self._plan_renewal(workspace, cluster) for workspace, cluster in found]
        return [operation for operation in planned if operation is not None]

    async def _plan_renewal(self, workspace_id: str, cluster_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            cluster = (
                await session.exec(
                    select(ClusterRow)
                    .where(
                        ClusterRow.id == cluster_id,
                        ClusterRow.state == ClusterState.ACTIVE,
                        col(ClusterRow.active_operation_id).is_(None),
                    )
                    .with_for_update()
                )
            ).one_or_none()
            if cluster is None:
                return None
            caller = system_caller(workspace_id, _SCHEDULE)
            kind = OperationType.CLUSTER_RENEW_CERTIFICATES
            operation = plan_operation(
                session, kind, cluster, caller, request={"type": kind, "cluster_id": cluster_id}
            )
            add_audit_event(
                session,
                caller,
                kind,
                "cluster",
                cluster_id,
                details={"operation_id": operation.id},
            )
            await session.flush()
            return TypedOperation(type=kind, operation=cluster_operation_of(operation))

    async def plan_due_rotations(self) -> list[TypedOperation]:
        """Take the turns of active, unlocked secrets that are due, and those again that failed.

        A workspace that has as many rotations under way as its quota allows has its others wait.
        """
        key = (col(SecretRotationRow.workspace_id), col(SecretRotationRow.secret_id))
        async with self._sweeper.transaction() as session:
            # Workspaces take turns, so that those which wait are not in the way of others.
            place = func.row_number().over(
                partition_by=col(SecretRotationRow.workspace_id),
                order_by=col(SecretRotationRow.next_rotation_at),
            )
            due = await session.execute(
                select(*key)
                .join(SecretRow, _OF_SECRET)
                .where(*_IS_DUE)
                .order_by(place, col(SecretRotationRow.next_rotation_at))
                .limit(_ROTATIONS_A_PASS)
            )
            failed = await session.execute(
                select(*key)
                .join(SecretRow, _OF_SECRET)
                .join(OperationRow, _LAST_OPERATION)
                .where(*_IS_TRIED_AGAIN)
                # One whose window is closed must not be in another one's way.
                .order_by(func.random())
                .limit(_ROTATIONS_A_PASS)
            )
            turns, retries = due.all(), failed.all()
        planned = [
            *[await self._take_turn(workspace, secret) for workspace, secret in turns],
            *[await self._try_again(workspace, secret) for workspace, secret in retries],
        ]
        return [operation for operation in planned if operation is not None]

    async def _take_turn(self, workspace_id: str, secret_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            # Both rows, so that a change of the policy comes before this turn or after it.
            found = (
                await session.exec(
                    select(SecretRow, SecretRotationRow)
                    .join(SecretRotationRow, _OF_SECRET)
                    .where(SecretRow.id == secret_id, *_IS_DUE)
                    .with_for_update()
                )
            ).one_or_none()
            if found is None or not await _may_rotate(session):
                return None
            secret, rotation = found
            due = rotation.next_rotation_at
            turn, rotation.next_rotation_at = take_turn(
                schedule_of(rotation), secret_id, due, datetime.now(UTC)
            )
            if turn is not Turn.TAKEN:
                return None
            return await _plan_turn(session, secret, rotation, due, failures=0)

    async def _try_again(self, workspace_id: str, secret_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            found = (
                await session.exec(
                    select(SecretRow, SecretRotationRow, OperationRow)
                    .join(SecretRotationRow, _OF_SECRET)
                    .join(OperationRow, _LAST_OPERATION)
                    .where(SecretRow.id == secret_id, *_IS_TRIED_AGAIN)
                    .with_for_update(of=[SecretRow, SecretRotationRow])
                )
            ).one_or_none()
            if found is None or not schedule_of(found[1]).allows(datetime.now(UTC)):
                return None
            if not await _may_rotate(session):
                return None
            secret, rotation, failed = found
            turn = failed.placement[_TURN]
            due = datetime.fromtimestamp(turn["due_at"], UTC)
            return await _plan_turn(session, secret, rotation, due, failures=turn["failures"] + 1)


async def _may_rotate(session: AsyncSession) -> bool:
    return (await read_quota(session, QuotaMetric.SECRET_ROTATIONS)).remaining > 0


async def _plan_turn(
    session: AsyncSession,
    secret: SecretRow,
    rotation: SecretRotationRow,
    due: datetime,
    *,
    failures: int,
) -> TypedOperation:
    caller = system_caller(secret.workspace_id, _ROTATIONS)
    operation = plan_rotation(session, secret, rotation, caller)
    operation.placement = {
        **operation.placement,
        _TURN: {
            "due_at": due.timestamp(),
            "failures": failures,
            # For the sweep, should this one fail as well.
            "pause_seconds": pause_before_retry(failures + 1).total_seconds(),
            "last_chance_at": schedule_of(rotation).last_chance(due).timestamp(),
        },
    }
    add_audit_event(
        session,
        caller,
        operation.type,
        "secret",
        secret.id,
        details={"operation_id": operation.id},
    )
    await session.flush()
    return TypedOperation(type=operation.type, operation=secret_operation_of(operation))


def _of_turn(name: str) -> ColumnElement[float]:
    number: ColumnElement[float] = col(OperationRow.placement)[_TURN][name].as_float()
    return number


_OF_SECRET = (col(SecretRow.workspace_id) == col(SecretRotationRow.workspace_id)) & (
    col(SecretRow.id) == col(SecretRotationRow.secret_id)
)
_LAST_OPERATION = (col(OperationRow.workspace_id) == col(SecretRotationRow.workspace_id)) & (
    col(OperationRow.id) == col(SecretRotationRow.last_operation_id)
)

_CAN_ROTATE = (
    col(SecretRotationRow.enabled).is_(True),
    col(SecretRow.state) == SecretState.ACTIVE,
    col(SecretRow.active_operation_id).is_(None),
)
_IS_DUE = (*_CAN_ROTATE, col(SecretRotationRow.next_rotation_at) <= func.now())

_NOW = func.extract("epoch", func.now())
_IS_TRIED_AGAIN = (
    *_CAN_ROTATE,
    # Its next turn, once that is due, is taken instead.
    col(SecretRotationRow.next_rotation_at) > func.now(),
    col(OperationRow.state) == OperationState.FAILED,
    func.extract("epoch", col(OperationRow.completed_at)) + _of_turn("pause_seconds") <= _NOW,
    _of_turn("last_chance_at") >= _NOW,
)
