"""What the activities of an install's operation are told, read in one transaction."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, select
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.owned_operation import InstallOperation
from infra.database.records.operation import taken_over
from infra.database.tables import ClusterRow, InstallRow, OperationRow, RenderRow


def _same(row: Any) -> ColumnElement[bool]:  # noqa: ANN401 - a table of ours, or an alias of one
    return col(row.workspace_id) == col(InstallRow.workspace_id)


_RENDER, _GOOD, _SOURCE = aliased(RenderRow), aliased(RenderRow), aliased(RenderRow)
_OF_OPERATION = col(OperationRow.request)["render_id"].astext

# One statement, built once: five times an operation, and each statement takes far longer than what
# it reads.
_SIGHT = (
    select(InstallRow, col(ClusterRow.state), col(OperationRow.request), _RENDER, _GOOD, _SOURCE)
    .join(ClusterRow, and_(_same(ClusterRow), col(ClusterRow.id) == InstallRow.cluster_id))
    .join(OperationRow, and_(_same(OperationRow), col(OperationRow.owner_id) == InstallRow.id))
    .outerjoin(_RENDER, and_(_same(_RENDER), col(_RENDER.id) == _OF_OPERATION))
    .outerjoin(_GOOD, and_(_same(_GOOD), col(_GOOD.id) == InstallRow.current_render_id))
    .outerjoin(_SOURCE, and_(_same(_SOURCE), col(_SOURCE.id) == _RENDER.restored_from_render_id))
    .where(
        col(InstallRow.workspace_id) == bindparam("workspace_id"),
        col(InstallRow.id) == bindparam("install_id"),
        col(OperationRow.id) == bindparam("operation_id"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallSight:
    """What an operation's activities need to know, at one moment.

    Attributes:
        install: the install.
        cluster_state: its cluster's.
        render: what the operation deploys; None for an operation that deploys nothing.
        good: the render that is deployed, to which everything returns; None before the first.
        source: the render whose objects are applied once more; None: the version is rendered.
        request: the operation's.
    """

    install: InstallRow
    cluster_state: ClusterState
    render: RenderRow | None
    good: RenderRow | None
    source: RenderRow | None
    request: dict[str, Any]

    @property
    def deploying(self) -> RenderRow:
        """The render of an operation that has one.

        Raises:
            BulkheadError: ABORTED when it is gone.
        """
        if self.render is None:
            raise taken_over()
        return self.render


async def sight_of(session: AsyncSession, operation: InstallOperation) -> InstallSight:
    """Look at an operation's install.

    Raises:
        BulkheadError: ABORTED when the install is gone, or the operation is not its own.
    """
    parameters = {
        "workspace_id": operation.workspace_id,
        "install_id": operation.install_id,
        "operation_id": operation.operation_id,
    }
    found = (await session.execute(_SIGHT, parameters)).one_or_none()
    if found is None:
        raise taken_over()
    install, cluster_state, request, deploying, deployed, restored = found
    return InstallSight(
        install=install,
        cluster_state=ClusterState(cluster_state),
        render=deploying,
        good=deployed,
        source=restored,
        request=dict(request),
    )
