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
from infra.database.tables.compute import (
    CloudIntentRow,
    ClusterComputeRow,
    ComputeConfigRow,
    ComputePolicyRow,
    CredentialBudgetRow,
    DriftReportRow,
    InventoryRow,
    LeakRow,
    MachinePoolRow,
    StackRow,
    SuspensionEventRow,
)
from infra.database.tables.idempotency import IdempotencyKeyRow
from infra.database.tables.install import (
    GrantRow,
    InstallDriftRow,
    InstallRow,
    InstallSecretRow,
    RenderRow,
    RolloutPreviewRow,
)
from infra.database.tables.machine import MachineRow, WorkerBootstrapRow
from infra.database.tables.operation import OperationRow, OperationStepRow
from infra.database.tables.package import (
    PackageRow,
    PackageVersionRow,
    ProductRow,
    RegistryConnectionRow,
)
from infra.database.tables.placement import ControlPlaneHostRow, ControlPlaneSlotRow
from infra.database.tables.quota import QuotaRow
from infra.database.tables.region import RegionRow
from infra.database.tables.rollout import (
    EmergencyStopRow,
    RolloutEventRow,
    RolloutRow,
    RolloutTargetRow,
)
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
    "CloudIntentRow",
    "ClusterComputeRow",
    "ClusterRow",
    "ComputeConfigRow",
    "ComputePolicyRow",
    "ControlPlaneHostRow",
    "ControlPlaneSlotRow",
    "CredentialBudgetRow",
    "DriftReportRow",
    "EmergencyStopRow",
    "GrantRow",
    "IdempotencyKeyRow",
    "InstallDriftRow",
    "InstallRow",
    "InstallSecretRow",
    "InventoryRow",
    "LeakRow",
    "MachinePoolRow",
    "MachineRow",
    "OperationRow",
    "OperationStepRow",
    "PackageRow",
    "PackageVersionRow",
    "ProductRow",
    "QuotaRow",
    "RegionRow",
    "RegistryConnectionRow",
    "RenderRow",
    "RolloutEventRow",
    "RolloutPreviewRow",
    "RolloutRow",
    "RolloutTargetRow",
    "SecretAuditLogRow",
    "SecretOrphanRow",
    "SecretReadRow",
    "SecretReferenceRow",
    "SecretRotationRow",
    "SecretRow",
    "SecretStoreStateRow",
    "SecretTombstoneRow",
    "SecretVersionRow",
    "StackRow",
    "SuspensionEventRow",
    "UserRow",
    "UserTokenRow",
    "WorkerBootstrapRow",
    "WorkspaceMemberRow",
    "WorkspaceRow",
]
