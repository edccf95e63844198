"""What the activities of an install's operation are told, read in one transaction."""

from dataclasses import dataclass
from typing import Any

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.owned_operation import InstallOperation
from infra.database.records.install_rows import render_of
from infra.database.records.operation import taken_over
from infra.database.tables import ClusterRow, InstallRow, OperationRow, RenderRow


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
    query = select(InstallRow, ClusterRow.state, OperationRow.request).where(
        InstallRow.id == operation.install_id,
        ClusterRow.id == InstallRow.cluster_id,
        OperationRow.id == operation.operation_id,
        OperationRow.owner_id == InstallRow.id,
    )
    found = (await session.exec(query)).one_or_none()
    if found is None:
        raise taken_over()
    install, cluster_state, request = found
    render = await render_of(session, install, request.get("render_id"))
    source = render.restored_from_render_id if render is not None else None
    return InstallSight(
        install=install,
        cluster_state=ClusterState(cluster_state),
        render=render,
        good=await render_of(session, install, install.current_render_id),
        source=await render_of(session, install, source),
        request=dict(request),
    )
