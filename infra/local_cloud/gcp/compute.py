"""Compute Engine's methods, of which most are the same for every kind."""

import asyncio
import ipaddress
import re
import time
from typing import Any, Final

from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.calls import LARGEST_PAGE, Call, location_of, page_of
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.filters import filter_of
from infra.local_cloud.gcp.kinds import (
    KINDS,
    LINK_BASE,
    Kind,
    Scope,
    fingerprint_of,
    path_of_link,
    singular,
)
from infra.local_cloud.gcp.quotas import Quotas
from infra.local_cloud.gcp.store import Finish, Operation, Resource, Store

# The most that `wait` waits, as the real one.
_WAIT_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.02
_LABEL: Final = re.compile(r"[a-z0-9_-]{0,63}")
_LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
OPERATIONS: Final = frozenset({"zoneOperations", "regionOperations", "globalOperations"})


class Compute:
    """Answers the methods that are not about instances and their disks."""

    def __init__(self, store: Store, quotas: Quotas) -> None:
        self.store = store
        self._quotas = quotas

    def path_of(self, call: Call, collection: str, name: str) -> str:
        """Return the path of a resource where a call acts."""
        return f"projects/{call.project}/{location_of(call)}/{collection}/{name}"

    def target(self, call: Call, collection: str) -> Resource:
        """Return the resource that a call names; raises `ApiError` 404."""
        variable = singular(collection)
        name = call.variables.get(variable) or call.variables["resource"]
        return self.store.get(self.path_of(call, collection, name))

    def changeable(self, call: Call, collection: str) -> Resource:
        """Return the resource that a call changes; raises `ApiError` 404, or 400 if it is busy."""
        return self.store.ready(self.target(call, collection).path)

    async def answer(self, collection: str, verb: str, call: Call) -> Json:
        """Answer a method."""
        if collection in OPERATIONS:
            return await self._answer_operations(verb, call)
        kind = KINDS[collection]
        match verb:
            case "get":
                return self._get(kind, call)
            case "getFromFamily":
                return self._image_of_family(call)
            case "list" | "aggregatedList":
                return self._list(kind, verb, call)
            case _:
                return self._change(kind, verb, call).body()

    def _change(self, kind: Kind, verb: str, call: Call) -> Operation:
        match verb:
            case "insert":
                return self.insert(kind, call)
            case "delete":
                return self.delete(self.changeable(call, kind.collection), call)
            case "patch" | "update":
                return self._patch(kind, call)
            case "setLabels":
                return self._set_labels(kind, call)
            case "setPrivateIpGoogleAccess":
                resource = self.changeable(call, kind.collection)
                resource.body.update(call.body)
                return self.begin(resource, verb, call)
            case _:
                raise answers.not_emulated(method=f"compute.{kind.collection}.{verb}")

    def insert(self, kind: Kind, call: Call, body: Json | None = None) -> Operation:
        """Begin to make a resource; raises `ApiError` when it cannot be."""
        body = dict(call.body if body is None else body)
        if not body.get("name"):
            raise answers.invalid_field(field="resource.name", value="", why="It is required.")
        path = self.path_of(call, kind.collection, body["name"])
        if path in self.store.resources:
            raise answers.already_exists(path)
        self._check_labels(body.get("labels", {}))
        self._quotas.check(kind, call)
        body = self.linked(kind, call, body)
        self._check_kind(kind, call, body)
        resource = self.store.add(path, kind, body)
        if kind.ready:
            resource.body["status"] = kind.ready
        return self.begin(resource, "insert", call)

    def delete(self, resource: Resource, call: Call) -> Operation:
        """Begin to delete a resource; raises `ApiError` while something uses it."""
        user = next(self.store.users_of(resource.path), None)
        if user is not None:
            raise answers.in_use(what=resource.kind.name, path=resource.path, user=user)
        resource.doomed = True
        return self.begin(resource, "delete", call, lambda _: self.store.remove(resource.path))

    def begin(
        self, resource: Resource, what: str, call: Call, finish: Finish | None = None
    ) -> Operation:
        """Begin an operation on a resource in a caller's name."""
        return self.store.begin(
            resource, what, call.caller.email, finish, request_id=call.query.get("requestId")
        )

    def linked(self, kind: Kind, call: Call, body: Json) -> Json:
        """Return a body with full links; raises `ApiError` for what is missing or not ready."""
        zone, region = call.variables.get("zone"), call.variables.get("region")
        if zone is not None:
            region = catalogue.region_of(zone)

        def full(value: Any, name: str = "") -> Any:
            if isinstance(value, dict):
                return {key: full(item, key) for key, item in value.items()}
            if isinstance(value, list):
                return [full(item, name) for item in value]
            if name in kind.needs and isinstance(value, str):
                path = path_of_link(value, call.project, region, zone)
                self.store.ready(path)
                return f"{LINK_BASE}{path}"
            return value

        linked: Json = full(body)
        return linked

    @staticmethod
    def _check_labels(labels: Json) -> None:
        for key, value in labels.items():
            if not (_LABEL_KEY.fullmatch(key) and _LABEL.fullmatch(str(value))):
                raise answers.invalid_field(
                    field="resource.labels",
                    value=f"{key}={value}",
                    why="Labels have lower-case letters, digits, '_' and '-', 63 at most.",
                )

    def _check_kind(self, kind: Kind, call: Call, body: Json) -> None:
        match kind.collection:
            case "subnetworks":
                self._check_range(call.project, body)
                body["gatewayAddress"] = str(_first_hosts(body["ipCidrRange"])[0])
                body.setdefault("privateIpGoogleAccess", False)
                body.setdefault("purpose", "PRIVATE")
                body.setdefault("stackType", "IPV4_ONLY")
            case "networks":
                if "autoCreateSubnetworks" not in body:
                    raise answers.invalid(message="Legacy networks can no longer be made.")
                body.setdefault("routingConfig", {"routingMode": "REGIONAL"})
                body.setdefault("mtu", 1460)
            case "firewalls":
                _complete_firewall(body)
            case "addresses":
                body.setdefault("addressType", "EXTERNAL")
                body.setdefault("address", f"203.0.113.{len(self.store.resources) % 250 + 1}")

    def _check_range(self, project: str, body: Json) -> None:
        try:
            wanted = ipaddress.IPv4Network(body.get("ipCidrRange", ""))
        except ValueError:
            raise answers.invalid_field(
                field="resource.ipCidrRange", value=body.get("ipCidrRange")
            ) from None
        for other in self.store.of_kind(project, "subnetworks"):
            same = other.body["network"] == body["network"]
            if same and wanted.overlaps(ipaddress.IPv4Network(other.body["ipCidrRange"])):
                raise answers.invalid(
                    message=f"Invalid IPCidrRange: {wanted} conflicts with existing subnetwork "
                    f"'{other.body['name']}' in region '{other.location.partition('/')[2]}'."
                )

    def _get(self, kind: Kind, call: Call) -> Json:
        if kind.collection == "images":
            public = catalogue.public_image(self.path_of(call, "images", call.variables["image"]))
            if public is not None:
                return public
        return self.store.rendered(self.target(call, kind.collection))

    def _image_of_family(self, call: Call) -> Json:
        path = self.path_of(call, "images/family", call.variables["family"])
        public = catalogue.public_image(path)
        if public is None:
            raise answers.not_found(path)
        return public

    def _list(self, kind: Kind, verb: str, call: Call) -> Json:
        project, wanted = call.project, filter_of(call.query.get("filter"))
        found = [
            resource
            for resource in self.store.of_kind(project, kind.collection)
            if wanted(self.store.rendered(resource))
        ]
        if verb == "aggregatedList":
            return self._aggregated(kind, project, found, call)
        place = location_of(call)
        bodies = [self.store.rendered(one) for one in found if one.location == place]
        if kind.collection == "images":
            bodies += [body for body in catalogue.image_bodies(project) if wanted(body)]
        return page_of(call, f"{kind.schema}List", bodies) | {
            "selfLink": f"{LINK_BASE}projects/{project}/{place}/{kind.collection}"
        }

    def _aggregated(self, kind: Kind, project: str, found: list[Resource], call: Call) -> Json:
        page, token = call.page(found, "maxResults", LARGEST_PAGE)
        items: dict[str, Json] = {}
        for place in _places(kind.scope):
            here = [self.store.rendered(one) for one in page if one.location == place]
            items[place] = {kind.collection: here} if here else _nothing(place)
        return {
            "kind": f"compute#{kind.name}AggregatedList",
            "id": f"projects/{project}/aggregated/{kind.collection}",
            "items": items,
            "selfLink": f"{LINK_BASE}projects/{project}/aggregated/{kind.collection}",
        } | token

    def _patch(self, kind: Kind, call: Call) -> Operation:
        resource = self.changeable(call, kind.collection)
        body = dict(call.body)
        given = body.pop("fingerprint", None)
        if kind.fingerprint and given != self.store.rendered(resource).get("fingerprint"):
            raise answers.condition_not_met(what="Resource")
        for name in ("name", "ipCidrRange"):
            if name in body and body[name] != resource.body.get(name):
                raise answers.invalid_field(
                    field=f"resource.{name}", value=body[name], why="It cannot be changed."
                )
        body.pop("network", None)
        resource.body.update(body)
        return self.begin(resource, "patch", call)

    def _set_labels(self, kind: Kind, call: Call) -> Operation:
        resource = self.changeable(call, kind.collection)
        now = fingerprint_of(resource.body.get("labels", {}))
        if call.body.get("labelFingerprint") != now:
            raise answers.condition_not_met(what="Labels")
        self._check_labels(call.body.get("labels", {}))
        resource.body["labels"] = call.body.get("labels", {})
        return self.begin(resource, "setLabels", call)

    async def _answer_operations(self, verb: str, call: Call) -> Json:
        project, place = call.project, location_of(call)
        if verb == "list":
            wanted = filter_of(call.query.get("filter"))
            bodies = [
                body
                for operation in self.store.operations.values()
                if (operation.project, operation.location) == (project, place)
                and wanted(body := operation.body())
            ]
            return page_of(call, "operationList", bodies)
        path = f"projects/{project}/{place}/operations/{call.variables['operation']}"
        operation = self.store.operations.get(path)
        if operation is None:
            raise answers.not_found(path)
        if verb == "delete":
            del self.store.operations[path]
            return {}
        until = time.monotonic() + (_WAIT_SECONDS if verb == "wait" else 0)
        while not operation.done and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            operation.settle()
        return operation.body()


def _complete_firewall(body: Json) -> None:
    body.setdefault("direction", "INGRESS")
    body.setdefault("priority", 1000)
    body.setdefault("disabled", False)
    sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    if not body.get("allowed") and not body.get("denied"):
        raise answers.invalid(message="Firewall must have at least one of 'allowed' and 'denied'.")
    if body["direction"] == "INGRESS" and not any(body.get(name) for name in sources):
        # The real API's default: everybody.
        body["sourceRanges"] = ["0.0.0.0/0"]
    accounts = body.get("sourceServiceAccounts") or body.get("targetServiceAccounts")
    if accounts and (body.get("sourceTags") or body.get("targetTags")):
        raise answers.invalid(message="Tags and service accounts cannot both be in one firewall.")


def _places(scope: Scope) -> list[str]:
    match scope:
        case Scope.ZONE:
            return [f"zones/{zone}" for zones in catalogue.ZONES.values() for zone in zones]
        case Scope.REGION:
            return [f"regions/{region}" for region in catalogue.ZONES]
        case _:
            return ["global"]


def _nothing(place: str) -> Json:
    message = f"There are no results for scope '{place}' on this page."
    return {
        "warning": {
            "code": "NO_RESULTS_ON_PAGE",
            "message": message,
            "data": [{"key": "scope", "value": place}],
        }
    }


def _first_hosts(cidr: str) -> list[ipaddress.IPv4Address]:
    network = ipaddress.IPv4Network(cidr)
    return [network.network_address + 1, network.network_address + 2]
