"""Opens registries with the logins that workspaces have for them."""

from typing import TYPE_CHECKING, Final

from domain.caller import Caller, system_caller
from domain.errors import BulkheadError, Reason
from domain.package import REGISTRY_CONNECTION_CONSUMER, ResolveRequest
from infra.helm.charts import Charts, parse_source
from infra.helm.logins import RegistryLogin, login_of_secret
from infra.secret_store.reader import Consumer, SecretReader

if TYPE_CHECKING:
    from infra.database.records.package import PackageRecords
    from infra.database.tables import RegistryConnectionRow
    from infra.helm.archive import Chart

_CALLER: Final = "fetch-chart"


class ChartAccess:
    """Finds and fetches charts for activities; a login is nowhere but in the call that uses it."""

    def __init__(self, charts: Charts, records: "PackageRecords", reader: SecretReader) -> None:
        self._charts = charts
        self._records = records
        self._reader = reader

    async def resolve(
        self, request: ResolveRequest, caller: Caller, *, operation_id: str
    ) -> "Chart":
        """Return the chart that an address and a revision lead to now.

        Raises:
            BulkheadError: NOT_FOUND for the chart; INVALID_ARGUMENT for what is wrong with it;
                CREDENTIAL_REJECTED; DEPENDENCY_UNAVAILABLE when the registry does not answer.
        """
        source = parse_source(request.url, request.chart)
        login = await self._login_for(request.url, caller, operation_id)
        return await self._charts.resolve(source, request.revision, login)

    async def chart_of(
        self, workspace_id: str, ref: str, digest: str, *, operation_id: str
    ) -> "Chart":
        """Return the chart of a published version; its registry is asked once on this host.

        Args:
            workspace_id: the package's.
            ref: the version's.
            digest: the version's.
            operation_id: what the chart is needed for.

        Raises:
            BulkheadError: as `resolve`; CONFLICT when the registry gives another archive.
        """
        login = None
        if not self._charts.is_cached(digest):
            address = ref.partition("@")[0]
            login = await self._login_for(
                address, system_caller(workspace_id, _CALLER), operation_id
            )
        return await self._charts.fetch(ref, digest, login)

    async def _login_for(self, url: str, caller: Caller, operation_id: str) -> RegistryLogin | None:
        connection = await self._records.find_connection_for(caller.workspace_id, url)
        if connection is None:
            return None
        login = await self._read(connection, caller, operation_id)
        await self._records.note_use(connection)
        return login

    async def _read(
        self, connection: "RegistryConnectionRow", caller: Caller, operation_id: str
    ) -> RegistryLogin:
        try:
            read = await self._reader.read(
                caller,
                connection.secret_id,
                operation_id=operation_id,
                consumer=Consumer(type=REGISTRY_CONNECTION_CONSUMER, id=connection.id),
            )
        except BulkheadError as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.FAILED_PRECONDITION}:
                raise
            raise BulkheadError(
                Reason.CREDENTIAL_REJECTED,
                f"The secret of the registry connection {connection.id} cannot be read: it was "
                "deleted, or its version is disabled. Restore it, or replace the connection.",
                metadata={
                    "registry_connection_id": connection.id,
                    "secret_id": connection.secret_id,
                },
            ) from None
        return login_of_secret(connection.type, read.value.text())
