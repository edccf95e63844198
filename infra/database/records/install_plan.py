"""Plans that an install is moved: its render, its operation and what it now wants.

Requests, rollouts and schedules plan through this one function, each in a transaction of its own.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from domain.install import InstallState, RenderState
from domain.operation import OperationType
from infra.database.records.new_rows import Adds
from infra.database.records.operation import plan_operation
from infra.database.tables import ClusterRow, InstallRow, OperationRow, RenderRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What an install shall become.

    Attributes:
        version_id: of the package.
        values: the customer's, with references where they are secret.
        restored_from: the render whose objects are applied once more, instead of a new rendering.
        skip_unchanged: a render that comes to the same as the current one is not applied.
        message: why, as a person or a schedule says it.
    """

    version_id: str
    values: dict[str, Any]
    restored_from: str | None = None
    skip_unchanged: bool = True
    message: str | None = None


_RENDERING: Final = InstallState.RENDERING


def plan_deployment(
    rows: Adds,
    install: InstallRow,
    cluster: ClusterRow,
    caller: Caller,
    operation_type: OperationType,
    deployment: Deployment,
    *,
    request: dict[str, Any] | None = None,
) -> tuple[OperationRow, RenderRow]:
    """Add a render and the operation that deploys it, and give it the install's lock.

    The caller of this function holds the install's row lock (or adds its row in the same
    transaction), and has checked that no operation holds it.
    """
    render_id = new_id(Prefix.RENDER)
    operation = plan_operation(
        rows,
        operation_type,
        install,
        caller,
        request={
            "type": operation_type,
            "install_id": install.id,
            "render_id": render_id,
            "skip_unchanged": deployment.skip_unchanged,
            **(request or {}),
        },
        cluster=cluster,
    )
    render = RenderRow(
        workspace_id=install.workspace_id,
        id=render_id,
        install_id=install.id,
        operation_id=operation.id,
        package_version_id=deployment.version_id,
        restored_from_render_id=deployment.restored_from,
        state=RenderState.RUNNING,
        message=deployment.message,
        values=deployment.values,
    )
    rows.add(render)
    install.desired_version_id = deployment.version_id
    if operation_type is not OperationType.INSTALL_CREATE:
        install.state = _RENDERING
        install.version += 1
        install.updated_at = datetime.now(UTC)
    return operation, render
