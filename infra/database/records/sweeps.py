"""What schedules find across workspaces, and write in each one's own transaction."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import col, select

from domain.caller import system_caller
from domain.cluster import ClusterState
from domain.operation import OperationType, TypedOperation
from domain.rotation import Turn, take_turn
from domain.secret import SecretState
from infra.database.engine import Database
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
        """Take the turns of active, unlocked secrets whose rotation is due."""
        async with self._sweeper.transaction() as session:
            due = await session.execute(
                select(SecretRotationRow.workspace_id, SecretRotationRow.secret_id)
                .join(
                    SecretRow,
                    (col(SecretRow.workspace_id) == col(SecretRotationRow.workspace_id))
                    & (col(SecretRow.id) == col(SecretRotationRow.secret_id)),
                )
                .where(*_can_rotate())
                .order_by(col(SecretRotationRow.next_rotation_at))
                .limit(_ROTATIONS_A_PASS)
            )
            found = due.all()
        planned = [await self._take_turn(workspace, secret) for workspace, secret in found]
        return [operation for operation in planned if operation is not None]

    async def _take_turn(self, workspace_id: str, secret_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            query = select(SecretRow, SecretRotationRow).join(
                SecretRotationRow, col(SecretRotationRow.secret_id) == col(SecretRow.id)
            )
            # Both rows, so that a change of the policy comes before this turn or after it.
            found = (
                await session.exec(
                    query.where(SecretRow.id == secret_id, *_can_rotate()).with_for_update()
                )
            ).one_or_none()
            if found is None:
                return None
            secret, rotation = found
            turn, rotation.next_rotation_at = take_turn(
                schedule_of(rotation), secret_id, rotation.next_rotation_at, datetime.now(UTC)
            )
            if turn is not Turn.TAKEN:
                return None
            caller = system_caller(workspace_id, _ROTATIONS)
            operation = plan_rotation(session, secret, rotation, caller)
            add_audit_event(
                session,
                caller,
                operation.type,
                "secret",
                secret_id,
                details={"operation_id": operation.id},
            )
            await session.flush()
            return TypedOperation(type=operation.type, operation=secret_operation_of(operation))


def _can_rotate() -> tuple[ColumnElement[bool], ...]:
    return (
        col(SecretRotationRow.enabled).is_(True),
        col(SecretRotationRow.next_rotation_at) <= func.now(),
        col(SecretRow.state) == SecretState.ACTIVE,
        col(SecretRow.active_operation_id).is_(None),
    )
