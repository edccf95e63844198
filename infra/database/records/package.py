"""The transactions with which workers publish packages and find the logins of their registries."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.operation import OperationState
from domain.owned_operation import PackageOperation
from domain.package import PinKind, ResolvedChart, channel_of, is_semver
from domain.registry import connection_for
from domain.semver import Version
from infra.database.engine import Database
from infra.database.queries.package import find_pinned_version
from infra.database.records.new_rows import Adds
from infra.database.records.operation import end_operation, hold, taken_over
from infra.database.tables import PackageRow, PackageVersionRow, RegistryConnectionRow


class PackageRecords:
    """The transactions of one worker."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wanted(self, operation: PackageOperation) -> tuple[PackageRow, dict[str, Any]] | None:
        """Return the package to be created, and the request; None: its version is written by now.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the package's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, package = await hold(session, operation)
            if not isinstance(package, PackageRow) or package.active_operation_id != row.id:
                raise taken_over()
            if await _first_version(session, package) is not None:
                return None
            return package, row.request

    async def add_first_version(self, operation: PackageOperation, chart: ResolvedChart) -> None:
        """Write the version of a package that is being created; nobody sees it yet.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the package's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, package = await hold(session, operation)
            if not isinstance(package, PackageRow) or package.active_operation_id != row.id:
                raise taken_over()
            if await _first_version(session, package) is None:
                package.description = chart.description
                values = row.request.get("values") or {}
                add_version(session, package, chart, default_values=values)

    async def reach_created(self, operation: PackageOperation) -> None:
        """The package is there, with its first version.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the package's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, package = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if not isinstance(package, PackageRow) or package.active_operation_id != row.id:
                raise taken_over()
            version = await _first_version(session, package)
            assert version is not None  # noqa: S101 - the step before wrote it
            package.active_operation_id = None
            touch(package, version.id)
            row.response = {
                "type": row.type,
                "package_id": package.id,
                "package_version_id": version.id,
                # Charts are in registries, and a package is all that there is of a repository.
                "repository_id": package.id,
            }
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def find_connection_for(
        self, workspace_id: str, url: str
    ) -> RegistryConnectionRow | None:
        """Return the registry connection of a workspace that is for an address."""
        async with self._database.workspace(workspace_id) as session:
            rows = await session.exec(
                select(RegistryConnectionRow).where(col(RegistryConnectionRow.is_active).is_(True))
            )
            return connection_for(url, rows.all())

    async def note_use(self, connection: RegistryConnectionRow) -> None:
        """Say that a connection's login was used just now."""
        async with self._database.workspace(connection.workspace_id) as session:
            await session.execute(
                update(RegistryConnectionRow)
                .where(col(RegistryConnectionRow.id) == connection.id)
                .values(last_used_at=func.now())
            )


def add_version(
    rows: Adds,
    package: PackageRow,
    chart: ResolvedChart,
    *,
    input_schema: dict[str, Any] | None = None,
    default_values: dict[str, Any] | None = None,
    compatibility: dict[str, Any] | None = None,
) -> PackageVersionRow:
    """Add a version; without an `input_schema` the values' schema is the chart's own.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a chart whose version is no semantic one.
    """
    if not is_semver(chart.semver):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "The chart's version is no semantic version such as 1.4.2; publish the chart under "
            "one.",
        )
    parsed = Version.parse(chart.semver)
    version = PackageVersionRow(
        workspace_id=package.workspace_id,
        id=new_id(Prefix.PACKAGE_VERSION),
        package_id=package.id,
        semver=chart.semver,
        sort_key=parsed.sort_key,
        channel=channel_of(parsed),
        ref=chart.ref,
        chart_digest=chart.digest,
        input_schema=input_schema or chart.schema,
        default_values=default_values or {},
        compatibility=compatibility or {},
    )
    rows.add(version)
    return version


def touch(package: PackageRow, latest_version_id: str | None) -> None:
    """Give a package a new etag, and say which of its versions is the latest."""
    package.latest_version_id = latest_version_id
    package.version += 1
    package.updated_at = datetime.now(UTC)


async def _first_version(session: AsyncSession, package: PackageRow) -> PackageVersionRow | None:
    return await find_pinned_version(session, package.id, {"kind": PinKind.LATEST})
