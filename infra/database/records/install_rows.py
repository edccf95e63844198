"""What is done to the rows of an install, inside the transaction of whoever does it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.install import INSTALL_CONSUMER, Health, InstallState, RenderState
from domain.operation import OperationType
from infra.database.tables import InstallRow, OperationRow, RenderRow, SecretReferenceRow


async def return_to_before(session: AsyncSession, row: OperationRow, install: InstallRow) -> None:
    """Give the install the state that it had before an operation that is undone; unlock it."""
    if row.type is OperationType.INSTALL_CREATE:
        await forget_install(session, install)
        return
    render = await render_of(session, install, row.request.get("render_id"))
    if render is not None and render.state is RenderState.RUNNING:
        render.state = RenderState.FAILED
        render.updated_at = datetime.now(UTC)
    install.desired_version_id = install.current_version_id or install.desired_version_id
    install.state = state_by_health(install)
    install.active_operation_id = None
    note_change(install)


async def forget_install(session: AsyncSession, install: InstallRow) -> None:
    """Remove the row of an install of which nothing is left, and what refers to it."""
    await remove_references(session, [install.id])
    await session.delete(install)


def state_by_health(install: InstallRow) -> InstallState:
    """Return the state of an install on which no operation runs."""
    if install.current_render_id is None:
        return InstallState.FAILED
    is_ill = install.health in {Health.DEGRADED, Health.MISSING}
    return InstallState.DEGRADED if is_ill else InstallState.HEALTHY


async def remove_references(session: AsyncSession, install_ids: Sequence[str]) -> None:
    """No secret has one of the installs for a consumer any more."""
    await session.execute(
        delete(SecretReferenceRow).where(
            col(SecretReferenceRow.consumer_type) == INSTALL_CONSUMER,
            col(SecretReferenceRow.consumer_id).in_(install_ids),
        )
    )


async def render_of(
    session: AsyncSession, install: InstallRow, render_id: str | None
) -> RenderRow | None:
    """Return a render of the install; None when it has no id or is gone."""
    if render_id is None:
        return None
    return await session.get(RenderRow, (install.workspace_id, render_id))


def note_change(install: InstallRow) -> None:
    """Give the install another etag."""
    install.version += 1
    install.updated_at = datetime.now(UTC)
