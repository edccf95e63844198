"""What exists in the emulated projects, and the operations that work on it.

Everything is in memory and touched by one event loop alone. An operation's effect happens when it
is looked at after its end: nothing runs in the background but the servers' own booting.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from infra.local_cloud.gcp import answers
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.kinds import (
    LINK_BASE,
    Kind,
    fingerprint_of,
    path_of_link,
    values_of,
    without,
)

# A third of an operation's time it waits, the rest it runs.
_PENDING_SHARE: Final = 3
_ERROR_STATUS: Final = 503
_ERROR_TEXT: Final = "SERVICE UNAVAILABLE"


def now() -> str:
    """Return the time as Compute Engine writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class Resource:
    """Something that exists.

    Attributes:
        path: `projects/...`, as in its link.
        body: as it is answered, without what is computed from other resources.
        operation: the last one that worked on it.
        doomed: it is being deleted.
        boot: the key of its server, or of its disk's copy.
    """

    path: str
    kind: Kind
    body: Json
    operation: "Operation | None" = None
    doomed: bool = False
    boot: str | None = None

    @property
    def project(self) -> str:
        """The id of its project."""
        return self.path.split("/")[1]

    @property
    def location(self) -> str:
        """`global`, or such as `zones/europe-west3-a`."""
        pieces = self.path.split("/")
        return "global" if pieces[2] == "global" else "/".join(pieces[2:4])

    @property
    def busy(self) -> bool:
        """An operation works on it."""
        return self.operation is not None and not self.operation.done


@dataclass(slots=True)
class Operation:
    """A change under way.

    Attributes:
        finish: its effect at the end.
        work: what must be over before, such as a server's boot.
        errors: code and message of what went wrong; known at the start or after `work`.
    """

    name: str
    number: int
    project: str
    location: str
    what: str
    target: str
    user: str
    seconds: float
    finish: "Finish | None"
    work: asyncio.Task[None] | None = None
    errors: list[tuple[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    inserted_at: str = field(default_factory=now)
    ended_at: str | None = None

    @property
    def done(self) -> bool:
        """It is over, with its effect."""
        return self.ended_at is not None

    def settle(self) -> None:
        """Let it end when its time has come."""
        waiting = self.work is not None and not self.work.done()
        if self.done or waiting or time.monotonic() - self.started < self.seconds:
            return
        self.ended_at = now()
        if self.finish is not None:
            self.finish(self)

    @property
    def path(self) -> str:
        """Where it is itself found."""
        return f"projects/{self.project}/{self.location}/operations/{self.name}"

    def body(self) -> Json:
        """Return it as it is answered."""
        elapsed = time.monotonic() - self.started
        status = "DONE" if self.done else "RUNNING"
        if not self.done and elapsed < self.seconds / _PENDING_SHARE:
            status = "PENDING"
        body: Json = {
            "kind": "compute#operation",
            "id": str(self.number),
            "name": self.name,
            "operationType": self.what,
            "targetLink": f"{LINK_BASE}{self.target}",
            "targetId": str(self.number + 1),
            "status": status,
            "user": self.user,
            "progress": 100 if self.done else 0,
            "insertTime": self.inserted_at,
            "startTime": self.inserted_at,
            "selfLink": f"{LINK_BASE}{self.path}",
        }
        scope, _, place = self.location.partition("/")
        if place:
            body[scope.rstrip("s")] = f"{LINK_BASE}projects/{self.project}/{self.location}"
        if self.done:
            body["endTime"] = self.ended_at
        if self.done and self.errors:
            body["error"] = {"errors": [{"code": c, "message": m} for c, m in self.errors]}
            body |= {"httpErrorStatusCode": _ERROR_STATUS, "httpErrorMessage": _ERROR_TEXT}
        return body


Finish = Callable[[Operation], None]


class Store:
    """All projects' resources and operations.

    Args:
        operation_seconds: how long an operation takes.
    """

    def __init__(self, operation_seconds: float) -> None:
        self.operation_seconds = operation_seconds
        self.resources: dict[str, Resource] = {}
        self.operations: dict[str, Operation] = {}
        self._requests: dict[tuple[str, str], Operation] = {}

    def settle(self) -> None:
        """Let every operation end whose time has come."""
        for operation in self.operations.values():
            operation.settle()

    def of_kind(self, project: str, collection: str) -> list[Resource]:
        """Return a project's resources of one kind."""
        return [
            resource
            for resource in self.resources.values()
            if resource.project == project and resource.kind.collection == collection
        ]

    def get(self, path: str) -> Resource:
        """Return a resource; raises `ApiError` 404."""
        found = self.resources.get(path)
        if found is None:
            raise answers.not_found(path)
        return found

    def ready(self, path: str) -> Resource:
        """Return a resource on which nothing works; raises `ApiError` 404 or 400."""
        found = self.get(path)
        if found.busy:
            raise answers.not_ready(path)
        return found

    def add(self, path: str, kind: Kind, body: Json) -> Resource:
        """Make a resource; raises `ApiError` 409 when there is one of the name."""
        if path in self.resources:
            raise answers.already_exists(path)
        _, _, scope, place = path.split("/")[:4]
        body = body | {
            "kind": f"compute#{kind.name}",
            "id": str(new_number()),
            "creationTimestamp": now(),
            "selfLink": f"{LINK_BASE}{path}",
        }
        if scope != "global":
            project = path.split("/")[1]
            body[scope.rstrip("s")] = f"{LINK_BASE}projects/{project}/{scope}/{place}"
        self.resources[path] = Resource(path, kind, body)
        return self.resources[path]

    def remove(self, path: str) -> None:
        """Let a resource be gone."""
        self.resources.pop(path, None)

    def repeated(self, project: str, request_id: str | None) -> Operation | None:
        """Return the operation that a request of this id already began."""
        return None if request_id is None else self._requests.get((project, request_id))

    def begin(
        self,
        resource: Resource,
        what: str,
        user: str,
        finish: Finish | None = None,
        *,
        request_id: str | None = None,
    ) -> Operation:
        """Begin an operation on a resource."""
        number = new_number()
        operation = Operation(
            name=f"operation-{int(time.time() * 1000)}-{secrets.token_hex(6)}",
            number=number,
            project=resource.project,
            location=resource.location,
            what=what,
            target=resource.path,
            user=user,
            seconds=self.operation_seconds,
            finish=finish,
        )
        resource.operation = operation
        self.operations[operation.path] = operation
        if request_id is not None:
            self._requests[resource.project, request_id] = operation
        return operation

    def users_of(self, path: str) -> Iterator[str]:
        """Return the paths of what keeps a resource from being deleted."""
        for other in self.resources.values():
            links = values_of(other.body, other.kind.holds)
            if other.path != path and any(self.path_in(other, link) == path for link in links):
                yield other.path

    @staticmethod
    def path_in(resource: Resource, link: str) -> str:
        """Return the path that a link in a resource's body means."""
        return path_of_link(link, resource.project, None, None)

    def rendered(self, resource: Resource) -> Json:
        """Return a resource as it is answered."""
        body = dict(resource.body)
        match resource.kind.collection:
            case "networks":
                body["subnetworks"] = [
                    f"{LINK_BASE}{path}"
                    for path in self.users_of(resource.path)
                    if "/subnetworks/" in path
                ]
            case "disks":
                body["users"] = [f"{LINK_BASE}{path}" for path in self.users_of(resource.path)]
            case "instances":
                for name in ("tags", "metadata"):
                    body[name] = body[name] | {
                        "fingerprint": fingerprint_of(without(body[name], "fingerprint"))
                    }
        if resource.kind.labelled:
            body["labelFingerprint"] = fingerprint_of(body.get("labels", {}))
        if resource.kind.collection in {"networks", "subnetworks", "instances"}:
            body.pop("fingerprint", None)
            if resource.kind.collection != "networks":
                body["fingerprint"] = fingerprint_of(without(body, "status"))
        return {name: value for name, value in body.items() if value not in ({}, [], None)}


def new_number() -> int:
    """Return a number such as those that identify resources."""
    return secrets.randbelow(9 * 10**18) + 10**18
