"""The transactions about all installs of one cluster, which goes."""

from collections.abc import Sequence

from sqlalchemy import func, update
from sqlmodel import col, select

from domain.owned_operation import ClusterOperation
from infra.database.engine import Database
from infra.database.records.install_rows import remove_references
from infra.database.tables import InstallRow, OperationRow


class ClusterInstallRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def installs_on(self, operation: ClusterOperation) -> tuple[list[str], list[str]]:
        """Return the installs of a cluster, and the operations that run on them."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(InstallRow.id, InstallRow.active_operation_id).where(
                InstallRow.cluster_id == operation.owner_id
            )
            found = (await session.exec(query)).all()
            return [one for one, _ in found], [busy for _, busy in found if busy is not None]

    async def request_cancel(self, operation: ClusterOperation, operation_id: str) -> None:
        """Ask an operation of an install, whose cluster goes, to stop."""
        async with self._database.workspace(operation.workspace_id) as session:
            await session.execute(
                update(OperationRow)
                .where(
                    col(OperationRow.id) == operation_id,
                    col(OperationRow.cancellable).is_(True),
                    col(OperationRow.cancel_requested_at).is_(None),
                )
                .values(cancel_requested_at=func.now(), cancel_requested_by=operation.caller.kind)
            )

    async def remove_references_of(
        self, operation: ClusterOperation, install_ids: Sequence[str]
    ) -> None:
        """No secret has one of these installs of a cluster for a consumer any more."""
        async with self._database.workspace(operation.workspace_id) as session:
            await remove_references(session, install_ids)
