"""Hetzner Cloud's API as an application: who calls, what for, and the answer's form.

Beside the real paths below `/v1` it has `/_faults` (see `infra.local_cloud.faults`) and
`/_accounts`: `POST` makes a token (see `Account.grant`), `DELETE` with `{"token"}` revokes one.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infra.local_cloud.fault_middleware import AsgiFaults
from infra.local_cloud.faults import FaultKind, Faults, RefusedCall
from infra.local_cloud.hcloud import catalogue, firewalls, lookup, networks, others, servers
from infra.local_cloud.hcloud.errors import ApiError
from infra.local_cloud.hcloud.project import KINDS, Account, Item, Project
from infra.local_cloud.serving import ApiOptions

_CATALOGUES: Final[Mapping[str, list[Item]]] = {
    "locations": catalogue.LOCATIONS,
    "datacenters": catalogue.DATACENTERS,
    "server_types": catalogue.SERVER_TYPES,
}
_SINGULAR: Final = {
    **KINDS,
    "locations": "location",
    "datacenters": "datacenter",
    "server_types": "server_type",
}
_REFUSALS: Final = {
    FaultKind.RATE_LIMIT: ApiError(
        "rate_limit_exceeded", "limit of 3600 requests per hour reached"
    ),
    FaultKind.UNAVAILABLE: ApiError("unavailable", "service is currently not available"),
}

Body = dict[str, Any]
Handler = Callable[[Project, Request, Body], Body | None]


def create_app(options: ApiOptions) -> AsgiFaults:
    """Return the API; it has no tokens yet."""
    faults = Faults()
    account = Account(lambda: Project(options.boots, faults, options.action_seconds))
    api = _Api(account)
    app = Starlette(
        routes=[
            Route("/_accounts", api.accounts, methods=["POST", "DELETE"]),
            Route("/v1/pricing", api.endpoint(lambda *_: catalogue.pricing())),
            Route("/v1/{kind}", api.endpoint(_list)),
            Route("/v1/{kind}", api.endpoint(_create, 201), methods=["POST"]),
            Route("/v1/{kind}/{id:int}", api.endpoint(_get)),
            Route("/v1/{kind}/{id:int}", api.endpoint(_change), methods=["PUT"]),
            Route("/v1/{kind}/{id:int}", api.endpoint(_remove), methods=["DELETE"]),
            Route(
                "/v1/{kind}/{id:int}/actions/{action}",
                api.endpoint(_act, 201),
                methods=["POST"],
            ),
        ]
    )
    return AsgiFaults(app, faults, _refuse)


def _refuse(kind: FaultKind, call: str) -> RefusedCall:
    refusal = _REFUSALS[kind]
    headers = {"content-type": "application/json"}
    if kind is FaultKind.RATE_LIMIT:
        headers |= {
            "ratelimit-limit": "3600",
            "ratelimit-remaining": "0",
            "ratelimit-reset": "0",
        }
    return RefusedCall(refusal.status, json.dumps(refusal.body()).encode(), headers)


class _Api:
    def __init__(self, account: Account) -> None:
        self._account = account

    async def accounts(self, request: Request) -> Response:
        """Make or revoke a token."""
        body = json.loads(await request.body() or b"{}")
        if request.method == "DELETE":
            self._account.revoke(str(body["token"]))
            return JSONResponse({})
        return JSONResponse(self._account.grant(body))

    def endpoint(self, handler: Handler, status: int = 200) -> Callable[[Request], Any]:
        """Return what answers a path by a handler."""

        async def answer(request: Request) -> Response:
            raw = await request.body()
            return await run_in_threadpool(self._answer, handler, status, request, raw)

        return answer

    def _answer(self, handler: Handler, status: int, request: Request, raw: bytes) -> Response:
        headers = {"X-Correlation-Id": secrets.token_hex(8)}
        try:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise ApiError("unauthorized", "unable to authenticate")
            project = self._account.project(token, request.method)
            with project.lock:
                allowed = project.budget.take()
                headers |= project.budget.headers()
                if not allowed:
                    raise _REFUSALS[FaultKind.RATE_LIMIT]
                answer = handler(project, request, _parsed(raw))
                if answer is None:
                    return Response(status_code=204, headers=headers)
                return JSONResponse(_public(answer), status, headers)
        except ApiError as refusal:
            return JSONResponse(refusal.body(), refusal.status, headers)


def _parsed(raw: bytes) -> Body:
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        raise ApiError("json_error", "invalid JSON") from None
    if not isinstance(body, dict):
        raise ApiError("json_error", "the body must be an object")
    return body


def _public(value: Any) -> Any:
    """Return a value without what stays inside."""
    if isinstance(value, dict):
        return {k: _public(member) for k, member in value.items() if not k.startswith("_")}
    return [_public(item) for item in value] if isinstance(value, list) else value


def _kind(request: Request) -> str:
    kind = str(request.path_params["kind"])
    if kind not in _SINGULAR:
        raise ApiError("not_found", "no such endpoint")
    return kind


def _items(project: Project, kind: str) -> list[Item]:
    if kind in _CATALOGUES:
        return _CATALOGUES[kind]
    items = list(project.items[kind].values())
    if kind == "images":
        items = [*catalogue.SYSTEM_IMAGES, *items]
    return [_seen(project, kind, item) for item in items]


def _seen(project: Project, kind: str, item: Item) -> Item:
    match kind:
        case "servers":
            return servers.seen(project, item)
        case "placement_groups":
            return servers.group_seen(project, item)
        case _:
            return item


def _list(project: Project, request: Request, body: Body) -> Body:
    kind, query = _kind(request), request.query_params
    asked = {name: query.getlist(name) for name in query}
    return lookup.listing(kind, _items(project, kind), asked)


def _get(project: Project, request: Request, body: Body) -> Body:
    kind, number = _kind(request), request.path_params["id"]
    for item in _items(project, kind):
        if item["id"] == number:
            return {_SINGULAR[kind]: item}
    raise ApiError("not_found", f"{_SINGULAR[kind]} with ID '{number}' not found")


def _create(project: Project, request: Request, body: Body) -> Body:
    kind = _kind(request)
    match kind:
        case "servers":
            return servers.create(project, body)
        case "networks":
            return networks.create(project, body)
        case "firewalls":
            return firewalls.create(project, body)
        case _:
            return others.create(project, kind, body)


def _change(project: Project, request: Request, body: Body) -> Body:
    kind, number = _kind(request), request.path_params["id"]
    match kind:
        case "servers":
            return servers.change(project, number, body)
        case "networks":
            return networks.change(project, number, body)
        case "firewalls":
            return firewalls.change(project, number, body)
        case _:
            return others.change(project, kind, number, body)


def _remove(project: Project, request: Request, body: Body) -> Body | None:
    kind, number = _kind(request), request.path_params["id"]
    match kind:
        case "servers":
            return servers.remove(project, number)
        case "networks":
            networks.remove(project, number)
        case "firewalls":
            firewalls.remove(project, number)
        case _:
            others.remove(project, kind, number)
    return None


def _act(project: Project, request: Request, body: Body) -> Body:
    kind, number = _kind(request), request.path_params["id"]
    action = str(request.path_params["action"])
    match kind:
        case "servers":
            return servers.act(project, number, action, body)
        case "networks":
            return networks.act(project, number, action, body)
        case "firewalls":
            return firewalls.act(project, number, action, body)
        case _:
            return others.act(project, kind, number, action, body)
