"""Google Cloud's APIs on one address of loopback.

Paths, verbs and bodies are those of the API descriptions: Compute Engine at `/compute/v1/`; IAM,
Resource Manager and the price list at `/v1/`; the token endpoint at `/token`. Beside them
`/_accounts` makes projects and keys, and `/_faults` makes things go wrong.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra.local_cloud.fault_middleware import AsgiFaults
from infra.local_cloud.faults import FaultKind, Faults, RefusedCall
from infra.local_cloud.gcp import answers, disks, offers
from infra.local_cloud.gcp.calls import Call
from infra.local_cloud.gcp.compute import OPERATIONS, Compute
from infra.local_cloud.gcp.discovery import Api, InvalidBodyError, Json, Method, load_api
from infra.local_cloud.gcp.field_masks import masked
from infra.local_cloud.gcp.identities import (
    Identities,
    Project,
    TokenRefusedError,
    new_key_file,
    new_private_key,
)
from infra.local_cloud.gcp.instances import Instances
from infra.local_cloud.gcp.kinds import KINDS
from infra.local_cloud.gcp.prices import Prices
from infra.local_cloud.gcp.quotas import Quotas
from infra.local_cloud.gcp.service_accounts import PERMISSIONS, ServiceAccounts
from infra.local_cloud.gcp.store import Store, new_number
from infra.local_cloud.serving import ApiOptions

_APIS: Final = (
    ("compute", "v1"),
    ("iam", "v1"),
    ("cloudresourcemanager", "v1"),
    ("cloudbilling", "v1"),
)
_VERBS: Final = ["GET", "POST", "PATCH", "PUT", "DELETE"]

_TOKEN_REFUSALS: Final = {
    FaultKind.RATE_LIMIT: ("rate_limit_exceeded", 429),
    FaultKind.UNAVAILABLE: ("internal_failure", 503),
}

_COMPUTE_COLLECTIONS: Final = frozenset(KINDS) | offers.COLLECTIONS | OPERATIONS
# Where a permission is not called as the method is.
_COMPUTE_PERMISSIONS: Final = {
    "insert": "create",
    "aggregatedList": "list",
    "patch": "update",
    "wait": "get",
    "getFromFamily": "getFromFamily",
}
# What a method asks for beside the permission of its own name.
_MORE_PERMISSIONS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("instances", "insert"): (
        "compute.disks.create",
        "compute.subnetworks.use",
        "compute.instances.setMetadata",
    ),
    ("images", "insert"): ("compute.disks.useReadOnly",),
    ("subnetworks", "insert"): ("compute.networks.updatePolicy",),
    ("firewalls", "insert"): ("compute.networks.updatePolicy",),
    ("firewalls", "delete"): ("compute.networks.updatePolicy",),
}


def create_app(options: ApiOptions) -> AsgiFaults:
    """Return the APIs as an ASGI application; it keeps its state in memory."""
    faults = Faults()
    server = _Server(options, faults)
    app = Starlette(
        routes=[
            Route("/token", server.token, methods=["POST"]),
            Route("/_accounts", server.add_account, methods=["POST"]),
            Route("/_accounts", server.remove_key, methods=["DELETE"]),
            Route("/{path:path}", server.api, methods=_VERBS),
        ]
    )
    return AsgiFaults(app, faults, _refuse)


class _Server:
    def __init__(self, options: ApiOptions, faults: Faults) -> None:
        self._faults = faults
        self._token_url = f"{options.url}/token"
        self._identities = Identities()
        self._store = Store(options.action_seconds)
        quotas = Quotas(self._store, self._identities)
        self._compute = Compute(self._store, quotas)
        self._offers = offers.Offers(quotas)
        self._disks = disks.Disks(self._compute, options.boots)
        self._instances = Instances(
            self._compute, self._disks, quotas, self._identities, options.boots, faults
        )
        self._accounts = ServiceAccounts(self._identities, self._token_url)
        self._prices = Prices()
        self._apis = [load_api(*name) for name in _APIS]

    async def token(self, request: Request) -> JSONResponse:
        """Exchange a signed assertion for an access token."""
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        try:
            granted = await asyncio.to_thread(self._identities.new_token, form, self._token_url)
            email = self._identities.bearer(granted["access_token"]).email
            if self._faults.is_dead(email):
                message = "Invalid JWT Signature."
                raise TokenRefusedError(message)
        except TokenRefusedError as error:
            refusal = {"error": "invalid_grant", "error_description": str(error)}
            return JSONResponse(refusal, 400)
        return JSONResponse(granted)

    async def add_account(self, request: Request) -> JSONResponse:
        """Make a project, if there is none of the id, and another key for an account of it.

        The body has `project`, and may have `account` (an id), `permissions` (what the account may
        do; without them everything), `quotas`, `region_quotas` and `apis_off` (hosts of APIs that
        are not switched on). Answered is the key file.
        """
        given = await request.json()
        project = self._identities.projects.setdefault(
            given["project"], Project(given["project"], new_number() % 10**12)
        )
        project.quotas |= given.get("quotas", {})
        project.region_quotas |= given.get("region_quotas", {})
        project.apis_off |= set(given.get("apis_off", ()))
        account_id = given.get("account", "bulkhead-owner")
        email = f"{account_id}@{project.id}.iam.gserviceaccount.com"
        account = self._identities.accounts.get(email) or self._identities.add_account(
            project.id, {"accountId": account_id}
        )
        granted = given.get("permissions")
        project.permissions[email] = None if granted is None else frozenset(granted)
        private = await asyncio.to_thread(new_private_key)
        _, key_file = new_key_file(self._identities, account, self._token_url, private)
        return JSONResponse(key_file)

    async def remove_key(self, request: Request) -> JSONResponse:
        """Forget the key of a key file; tokens that were got with it stay in force."""
        given = await request.json()
        account = self._identities.account(given["client_email"])
        account.keys.pop(given["private_key_id"], None)
        return JSONResponse({})

    async def api(self, request: Request) -> JSONResponse:
        """Answer a method of one of the APIs."""
        try:
            api, method, variables = self._method(request.method, request.url.path)
            caller = self._identities.bearer(request.headers.get("authorization", ""))
            if self._faults.is_dead(caller.email):
                raise answers.unauthenticated()
            call = Call(
                variables,
                _query(method, request.query_params),
                _body(api, method, await request.body()),
                caller,
            )
            self._store.settle()
            answer = await self._answer(method, call)
            if method.response is not None:
                api.verify(method.response, answer)
            if "fields" in call.query:
                answer = masked(answer, call.query["fields"])
        except answers.ApiError as error:
            return JSONResponse(error.body(), error.status)
        return JSONResponse(answer)

    def _method(self, verb: str, path: str) -> tuple[Api, Method, Mapping[str, str]]:
        for api in self._apis:
            for method in api.methods:
                if method.verb == verb and (found := method.path.fullmatch(path)):
                    variables = dict(zip(method.variables, found.groups(), strict=True))
                    return api, method, variables
        raise answers.ApiError(404, "notFound", f"The requested URL {path} was not found.")

    async def _answer(self, method: Method, call: Call) -> Json:
        api, _, what = method.id.partition(".")
        host, project = f"{api}.googleapis.com", call.caller.project
        if host in self._identities.project(project).apis_off:
            raise answers.api_off(host, project)
        if api == "compute":
            collection, _, verb = what.partition(".")
            return await self._answer_compute(collection, verb, call)
        what = what.removeprefix("projects.")
        if api == "iam" and what in PERMISSIONS:
            self._allow(call, PERMISSIONS[what])
            return await self._accounts.answer(what, call)
        if api == "cloudresourcemanager" and what == "testIamPermissions":
            return self._test_permissions(call)
        if (api, what) == ("cloudbilling", "services.skus.list"):
            return self._prices.answer(call)
        raise answers.not_emulated(method=method.id)

    async def _answer_compute(self, collection: str, verb: str, call: Call) -> Json:
        if collection not in _COMPUTE_COLLECTIONS:
            raise answers.not_emulated(method=f"compute.{collection}.{verb}")
        self._allow(call, *_compute_permissions(collection, verb, call))
        again = self._store.repeated(call.project, call.query.get("requestId"))
        if again is not None:
            return again.body()
        if collection == "instances":
            return await self._instances.answer(collection, verb, call)
        if collection in disks.COLLECTIONS:
            return await self._disks.answer(collection, verb, call)
        if collection in offers.COLLECTIONS:
            return self._offers.answer(collection, verb, call)
        return await self._compute.answer(collection, verb, call)

    def _test_permissions(self, call: Call) -> Json:
        project, wanted = call.variables["resource"], call.body.get("permissions", [])
        if project != call.caller.project:
            raise answers.forbidden(
                permission="resourcemanager.projects.get", path=f"projects/{project}"
            )
        held = [one for one in wanted if self._identities.may(call.caller, one)]
        return {"permissions": held} if held else {}

    def _allow(self, call: Call, *permissions: str) -> None:
        project = call.variables.get("project") or call.variables.get("projectsId", "")
        foreign = project != call.caller.project
        public = foreign and permissions[0].startswith("compute.images.get")
        for permission in permissions:
            if public:
                continue
            if (foreign and project != "-") or not self._identities.may(call.caller, permission):
                raise answers.forbidden(permission, f"projects/{project}")


def _compute_permissions(collection: str, verb: str, call: Call) -> list[str]:
    permission = f"compute.{collection}.{_COMPUTE_PERMISSIONS.get(verb, verb)}"
    more = list(_MORE_PERMISSIONS.get((collection, verb), ()))
    if verb == "insert" and call.body.get("labels"):
        more.append(f"compute.{collection}.setLabels")
    if (collection, verb) != ("instances", "insert"):
        return [permission, *more]
    if call.body.get("tags", {}).get("items"):
        more.append("compute.instances.setTags")
    if call.body.get("serviceAccounts"):
        more += ["compute.instances.setServiceAccount", "iam.serviceAccounts.actAs"]
    if any(nic.get("accessConfigs") for nic in call.body.get("networkInterfaces", [])):
        more.append("compute.subnetworks.useExternalIp")
    return [permission, *more]


def _query(method: Method, given: Mapping[str, str]) -> dict[str, str]:
    unknown = next((name for name in given if name not in method.parameters), None)
    if unknown is not None:
        raise answers.invalid(message=f'Unknown name "{unknown}": Cannot bind query parameter.')
    return dict(given)


def _body(api: Api, method: Method, data: bytes) -> Json:
    if method.request is None or not data:
        return {}
    try:
        body: Any = json.loads(data)
        return dict(api.check(method.request, body, "resource"))
    except InvalidBodyError as error:
        raise answers.invalid(message=str(error)) from None
    except ValueError:
        raise answers.ApiError(400, "parseError", "Parse Error") from None


def _refuse(kind: FaultKind, call: str) -> RefusedCall:
    headers = {"content-type": "application/json"}
    if call.endswith("/token"):
        word, status = _TOKEN_REFUSALS[kind]
        return RefusedCall(status, json.dumps({"error": word}).encode(), headers)
    if kind is FaultKind.RATE_LIMIT:
        error = answers.rate_limited()
        # Only Compute Engine says it with a 403.
        status = error.status if "/compute/" in call else 429
        return RefusedCall(status, json.dumps(error.body()).encode(), headers)
    unavailable = answers.ApiError(503, "backendError", "The service is currently unavailable.")
    return RefusedCall(503, json.dumps(unavailable.body()).encode(), headers)
