"""What is stored. Every table of a workspace has `workspace_id` first in its keys."""

from infra.database.tables.access import (
    ApiTokenRow,
    UserRow,
    UserTokenRow,
    WorkspaceMemberRow,
    WorkspaceRow,
)
from infra.database.tables.audit import AuditEventRow
from infra.database.tables.cluster import ClusterRow
from infra.database.tables.idempotency import IdempotencyKeyRow
from infra.database.tables.machine import MachineRow, WorkerBootstrapRow
from infra.database.tables.operation import OperationRow, OperationStepRow
from infra.database.tables.placement import ControlPlaneHostRow, ControlPlaneSlotRow
from infra.database.tables.quota import QuotaRow
from infra.database.tables.region import RegionRow
from infra.database.tables.secret import (
    SecretOrphanRow,
    SecretReferenceRow,
    SecretRotationRow,
    SecretRow,
    SecretTombstoneRow,
    SecretVersionRow,
)
from infra.database.tables.upkeep import SecretAuditLogRow, SecretReadRow, SecretStoreStateRow

__all__ = [
    "ApiTokenRow",
    "AuditEventRow",
    "ClusterRow",
    "ControlPlaneHostRow",
    "ControlPlaneSlotRow",
    "IdempotencyKeyRow",
    "MachineRow",
    "OperationRow",
    "OperationStepRow",
    "QuotaRow",
    "RegionRow",
    "SecretAuditLogRow",
    "SecretOrphanRow",
    "SecretReadRow",
    "SecretReferenceRow",
    "SecretRotationRow",
    "SecretRow",
    "SecretStoreStateRow",
    "SecretTombstoneRow",
    "SecretVersionRow",
    "UserRow",
    "UserTokenRow",
    "WorkerBootstrapRow",
    "WorkspaceMemberRow",
    "WorkspaceRow",
]
