"""Charts become versions of packages: looked up in their registry, read and checked."""

import dataclasses
import json
from typing import TYPE_CHECKING, Final

from temporalio import activity

from domain.caller import Caller, system_caller
from domain.errors import BulkheadError, Reason
from domain.owned_operation import PackageOperation
from domain.package import ResolvedChart, ResolveRequest

if TYPE_CHECKING:
    from infra.database.records.package import PackageRecords
    from infra.helm.chart_access import ChartAccess

_CALLER: Final = "resolve-chart"

# Temporal takes results of at most 2 MB.
_LARGEST_SCHEMA_BYTES: Final = 1024 * 1024


class PackageActivities:
    """Each may be repeated; nothing is changed in a registry."""

    def __init__(self, records: "PackageRecords", charts: "ChartAccess | None") -> None:
        self._records = records
        self._charts = charts

    @activity.defn
    async def resolve_chart(self, operation: PackageOperation) -> None:
        """Find the chart of a package that is being created, and write its first version.

        Raises:
            BulkheadError: NOT_FOUND for the chart; INVALID_ARGUMENT for what is wrong with it;
                CREDENTIAL_REJECTED; DEPENDENCY_UNAVAILABLE.
        """
        wanted = await self._records.wanted(operation)
        if wanted is None:
            return
        package, request = wanted
        asked = ResolveRequest(
            workspace_id=package.workspace_id,
            url=package.source_url,
            chart=package.chart,
            revision=request["revision"],
            wants_schema=True,
        )
        chart = await self._look_up(asked, operation.caller, operation.operation_id)
        await self._records.add_first_version(operation, chart)

    @activity.defn
    async def look_up_chart(self, request: ResolveRequest) -> ResolvedChart:
        """Return the chart that an address and a revision lead to now.

        Raises:
            BulkheadError: as `resolve_chart`.
        """
        caller = system_caller(request.workspace_id, _CALLER)
        chart = await self._look_up(request, caller, _CALLER)
        if not request.wants_schema:
            return dataclasses.replace(chart, schema={})
        if len(json.dumps(chart.schema)) > _LARGEST_SCHEMA_BYTES:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "The chart's values.schema.json has more than a mebibyte; send a smaller "
                "`input_schema` for this version.",
            )
        return chart

    @activity.defn
    async def record_package_created(self, operation: PackageOperation) -> None:
        """The package can be seen and installed."""
        await self._records.reach_created(operation)

    async def _look_up(
        self, request: ResolveRequest, caller: Caller, operation_id: str
    ) -> ResolvedChart:
        if self._charts is None:
            # Another worker of the queue may have what it needs.
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "This worker reads no charts: HELM__PROGRAM and HELM__CACHE_DIR are not set.",
            )
        chart = await self._charts.resolve(request, caller, operation_id=operation_id)
        return ResolvedChart(
            name=chart.name,
            semver=chart.semver,
            ref=chart.ref,
            digest=chart.digest,
            description=chart.description or None,
            schema=chart.schema,
        )
