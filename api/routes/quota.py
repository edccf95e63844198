"""Quotas: how much of what a workspace, or one secret of it, may have, and has."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import check_id, not_found
from api.scope import RequestScope, Scope
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.quota import OF_A_SECRET, QUOTAS, QuotaMetric, QuotaType
from infra.database.queries.cluster import find_cluster
from infra.database.queries.compute import machines_left
from infra.database.queries.quota import Quota, read_quota
from infra.database.queries.secret import find_secret

router = APIRouter(prefix="/quotas", tags=["quotas"])

OneSecret = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=54,
        description="Whose versions and consumers are counted; needs `secrets:read`.",
    ),
]


class QuotaBody(TypedDict):
    """The contract's QuotaInfo; `scope` is ours: whose limit it is."""

    metric: QuotaMetric
    type: QuotaType
    scope: Literal["workspace", "cluster", "secret"]
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
    scope: Scope,
    cluster_id: Annotated[str | None, Query(min_length=1, max_length=54)] = None,
    secret_id: OneSecret = None,
) -> Response:
    """List the quotas of the workspace and, where one is named, of a cluster or a secret.

    A cluster has one, the `max_machines` of its compute settings.
    """
    quotas = [
        quota_body(await read_quota(scope.session, metric))
        for metric in QuotaMetric
        if metric not in OF_A_SECRET
    ]
    if cluster_id is not None:
        await _check_cluster(scope, cluster_id)
        used, limit = await machines_left(scope.session, cluster_id)
        machines = Quota(QuotaMetric.MACHINES, limit, used)
        quotas.append({**quota_body(machines), "scope": "cluster"})
    if secret_id is not None:
        await _check_secret(scope, secret_id)
        quotas += [
            quota_body(await read_quota(scope.session, metric, secret_id))
            for metric in QuotaMetric
            if metric in OF_A_SECRET
        ]
    return JSONResponse(QuotaList(data=quotas, has_more=False, next_cursor=None))


# `:path`, for a metric has a slash in its name, and clients send it as %2F.
@router.get("/{metric:path}", response_model=QuotaBody, responses=documented(403, 404))
async def get_quota(scope: Scope, metric: str, secret_id: OneSecret = None) -> Response:
    """Get the quota of one metric; some are counted for one secret, which is then named."""
    if metric not in QUOTAS:
        known = ", ".join(QUOTAS)
        raise BulkheadError(
            Reason.NOT_FOUND,
            f"There is no such metric; there are {known}.",
            path=("path", "metric"),
        )
    if secret_id is not None:
        await _check_secret(scope, secret_id)
    elif metric in OF_A_SECRET:
        raise BulkheadError(
            Reason.NOT_FOUND,
            f"`{metric}` is counted for each secret; name one with `secret_id`.",
            path=("query", "secret_id"),
        )
    return JSONResponse(quota_body(await read_quota(scope.session, QuotaMetric(metric), secret_id)))


def quota_body(quota: Quota) -> QuotaBody:
    """Render a quota."""
    facts = QUOTAS[quota.metric]
    return QuotaBody(
        metric=quota.metric,
        type=facts.type,
        scope="secret" if quota.metric in OF_A_SECRET else "workspace",
        display_name=facts.display_name,
        unit="count",
        limit=quota.limit,
        usage=quota.usage,
        remaining=quota.remaining,
    )


async def _check_cluster(scope: RequestScope, cluster_id: str) -> None:
    path = ("query", "cluster_id")
    if await find_cluster(scope.session, check_id(Prefix.CLUSTER, cluster_id, path)) is None:
        raise not_found(Prefix.CLUSTER, path)


async def _check_secret(scope: RequestScope, secret_id: str) -> None:
    scope.require_scope(
        SecretScope.SECRETS_READ, "quota.get", resource_type="secret", resource_id=secret_id
    )
    path = ("query", "secret_id")
    if await find_secret(scope.session, check_id(Prefix.SECRET, secret_id, path)) is None:
        raise not_found(Prefix.SECRET, path)
