"""How a package is asked for, and what must be true afterwards."""

from collections.abc import Sequence

from sqlmodel import select

from domain.caller import Caller
from domain.identifiers import Prefix, new_id
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.owned_operation import PackageOperation
from domain.package import SourceKind
from infra.database.records.operation import package_operation_of, plan_operation
from infra.database.tables import PackageRow, PackageVersionRow
from infra.temporal.start import start_operation
from tests.charts import Repository
from tests.platform import Platform


class Publishing:
    """A package of the chart `web` in a repository, of the newest version that there is."""

    operation_type = OperationType.PACKAGE_CREATE
    forward_only = False
    steps: Sequence[str] = (Step.RESOLVE_CHART,)

    def __init__(self, platform: Platform, repository: Repository) -> None:
        self.platform = platform
        self.repository = repository
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.requested: PackageOperation | None = None
        self._caller: Caller | None = None

    @property
    def asked(self) -> PackageOperation:
        assert self.requested is not None
        return self.requested

    @property
    def owner_id(self) -> str:
        return self.asked.package_id

    async def request(self) -> str:
        """Ask for the package as the API does, and return the operation's id."""
        planned = await self.plan()
        await start_operation(self.platform.client, self.operation_type, planned)
        return planned.operation_id

    async def plan(self) -> PackageOperation:
        """Write the rows of the package and its operation, and start nothing."""
        self._caller = self._caller or await self.platform.new_workspace()
        async with self.platform.api.workspace(self._caller.workspace_id) as session:
            package = PackageRow(
                workspace_id=self._caller.workspace_id,
                id=new_id(Prefix.PACKAGE),
                name="web",
                source_kind=SourceKind.REPOSITORY,
                source_url=self.repository.url,
                chart="web",
            )
            session.add(package)
            operation = plan_operation(
                session,
                self.operation_type,
                package,
                self._caller,
                request={
                    "name": package.name,
                    "idempotency_key": "",
                    "revision": "latest",
                    "values": {"replicas": 2},
                },
            )
            await session.flush()
            self.requested = package_operation_of(operation)
        return self.requested

    async def cancel(self, operation_id: str) -> None:
        assert operation_id == self.asked.operation_id
        await self.platform.cancel(self.asked)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert operation_id == self.asked.operation_id
        return await self.platform.end_of(self.asked, within_seconds)

    async def verify_done(self) -> None:
        """The package has one version, that of the chart, and nobody holds its lock."""
        packages, versions = await self._rows()
        operation = await self.platform.operation(self.asked)
        assert [version.semver for version in versions] == ["1.0.0"]
        assert [package.latest_version_id for package in packages] == [versions[0].id]
        assert packages[0].active_operation_id is None
        assert versions[0].default_values == {"replicas": 2}
        assert operation.response is not None
        assert operation.response["package_version_id"] == versions[0].id

    async def verify_undone(self) -> None:
        """There is no package, and no version of one."""
        assert await self._rows() == ([], [])

    async def clean_up(self) -> None:
        """Make the name free for the next one."""
        async with self.platform.api.workspace(self.asked.workspace_id) as session:
            for package in await session.exec(select(PackageRow)):
                await session.delete(package)

    async def _rows(self) -> tuple[list[PackageRow], list[PackageVersionRow]]:
        async with self.platform.api.workspace(self.asked.workspace_id) as session:
            packages = list(await session.exec(select(PackageRow)))
            return packages, list(await session.exec(select(PackageVersionRow)))
