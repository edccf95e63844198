"""Asks a worker for the chart that a request refers to: the web process opens no registry."""

import asyncio

from api.package_requests import CreatePackageVersionRequest
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.package import ChartPlace, ResolvedChart, ResolveRequest
from infra.helm.value_schemas import refused_schema
from infra.temporal.waits import resolve_chart

# What is wrong with the reference, and so with the request.
_OF_THE_REFERENCE = (Reason.NOT_FOUND, Reason.INVALID_ARGUMENT)
_UNPROCESSABLE = 422


async def look_up(
    scope: RequestScope,
    place: ChartPlace,
    version: CreatePackageVersionRequest,
    path: tuple[str, ...],
) -> ResolvedChart:
    """Return the chart of a version that shall be published; no transaction is open meanwhile.

    Args:
        scope: of the request that waits, after its transaction.
        place: of the package.
        version: what is asked for.
        path: where in the request the reference is.

    Raises:
        BulkheadError: INVALID_ARGUMENT or NOT_FOUND, as 422, for the reference, the chart or the
            schema of values; CREDENTIAL_REJECTED; DEPENDENCY_UNAVAILABLE; DEADLINE_EXCEEDED.
    """
    why = await asyncio.to_thread(refused_schema, version.input_schema)
    if why is not None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The schema of values {why}.",
            path=(*path[:-1], "input_schema"),
            status=_UNPROCESSABLE,
        )
    try:
        request = ResolveRequest(
            workspace_id=scope.caller.workspace_id,
            url=place.url,
            chart=place.chart,
            revision=place.revision_in(version.ref),
            wants_schema=not version.input_schema,
        )
        client = await scope.clients.temporal.client()
        return await resolve_chart(client, scope.caller.request_id or "", request)
    except BulkheadError as error:
        if error.reason not in _OF_THE_REFERENCE:
            raise
        raise BulkheadError(
            error.reason,
            error.message,
            path=path,
            metadata=error.metadata,
            status=_UNPROCESSABLE,
        ) from None
