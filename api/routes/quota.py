"""Quotas: how much of what a workspace may have, and has."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import not_found
from api.scope import Scope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.quota import QUOTAS, QuotaMetric
from infra.database.queries.cluster import find_cluster
from infra.database.queries.compute import machines_left
from infra.database.queries.quota import Quota, read_quota

router = APIRouter(prefix="/quotas", tags=["quotas"])


class QuotaBody(TypedDict):
    """The contract's QuotaInfo; `scope` is ours: whose limit it is."""

    metric: QuotaMetric
    type: str
    scope: Literal["workspace", "cluster"]
    display_name: str
    unit: str
    limit: int
    usage: int
    remaining: int


class QuotaList(TypedDict):
    """All of them: they are few, and there is never a second page."""

    data: list[QuotaBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=QuotaList, responses=documented(403, 404))
async def list_quotas(
    scope: Scope, cluster_id: Annotated[str | None, Query(min_length=1, max_length=54)] = None
) -> Response:
    """List the quotas of the workspace and, where one is named, of a cluster.

    A cluster has one, the `max_machines` of its compute settings.
    """
    quotas = [quota_body(await read_quota(scope.session, metric)) for metric in QuotaMetric]
    if cluster_id is not None:
        await _check_cluster(scope, cluster_id)
        used, limit = await machines_left(scope.session, cluster_id)
        machines = Quota(QuotaMetric.MACHINES, limit, used)
        quotas.append({**quota_body(machines), "scope": "cluster"})
    return JSONResponse(QuotaList(data=quotas, has_more=False, next_cursor=None))


# `:path`, for a metric has a slash in its name, and clients send it as %2F.
@router.get("/{metric:path}", response_model=QuotaBody, responses=documented(404))
async def get_quota(scope: Scope, metric: str) -> Response:
    """Get the quota of one metric."""
    if metric not in QUOTAS:
        known = ", ".join(QUOTAS)
        raise BulkheadError(
            Reason.NOT_FOUND,
            f"There is no such metric; there are {known}.",
            path=("path", "metric"),
        )
    return JSONResponse(quota_body(await read_quota(scope.session, QuotaMetric(metric))))


def quota_body(quota: Quota) -> QuotaBody:
    """Render a quota."""
    return QuotaBody(
        metric=quota.metric,
        type="allocation",
        scope="workspace",
        display_name=QUOTAS[quota.metric].display_name,
        unit="count",
        limit=quota.limit,
        usage=quota.usage,
        remaining=quota.remaining,
    )


async def _check_cluster(scope: Scope, cluster_id: str) -> None:
    if not is_id(Prefix.CLUSTER, cluster_id) or (
        await find_cluster(scope.session, cluster_id) is None
    ):
        raise not_found(Prefix.CLUSTER)
