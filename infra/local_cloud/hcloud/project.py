"""One project: what exists in it, who may change it, and what is going on in it."""

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from infra.local_cloud.boots import Boots
from infra.local_cloud.faults import Faults
from infra.local_cloud.hcloud.errors import ApiError, invalid

Item = dict[str, Any]

KINDS: Final = {
    "servers": "server",
    "networks": "network",
    "firewalls": "firewall",
    "placement_groups": "placement_group",
    "images": "image",
    "ssh_keys": "ssh_key",
    "volumes": "volume",
    "primary_ips": "primary_ip",
    "actions": "action",
}
DEFAULT_LIMITS: Final = {"servers": 25, "placement_groups": 50, "networks": 50, "firewalls": 50}
_REQUESTS_PER_HOUR: Final = 3600
_THREADS: Final = 32
_LABEL_BYTES: Final = 63

# Unique over all projects, as the real ones are.
_IDS: Final = itertools.count(4_000_001)


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RateBudget:
    """Requests that a project has left: so many an hour, refilled evenly."""

    limit: int = _REQUESTS_PER_HOUR
    left: float = _REQUESTS_PER_HOUR
    since: float = field(default_factory=time.monotonic)

    def take(self) -> bool:
        """Take one; False: none is left."""
        passed, self.since = time.monotonic() - self.since, time.monotonic()
        self.left = min(self.limit, self.left + passed * self.limit / 3600)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def headers(self) -> dict[str, str]:
        """Return what every answer says about it."""
        reset = time.time() + (self.limit - self.left) * 3600 / self.limit
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(int(self.left)),
            "RateLimit-Reset": str(int(reset)),
        }


class Project:
    """What a token gives access to. Everything is done under `lock`, but for what boots servers.

    Args:
        boots: see `ApiOptions`.
        faults: of the API.
        action_seconds: how long an action takes.
    """

    def __init__(self, boots: Boots, faults: Faults, action_seconds: float) -> None:
        self.boots = boots
        self.faults = faults
        self.action_seconds = action_seconds
        self.limits = dict(DEFAULT_LIMITS)
        self.budget = RateBudget()
        self.lock = threading.RLock()
        self.items: dict[str, dict[int, Item]] = {kind: {} for kind in KINDS}
        self._workers = ThreadPoolExecutor(_THREADS)

    def add(self, kind: str, item: Mapping[str, Any]) -> Item:
        """Keep something new under a new id, and return it."""
        limit = self.limits.get(kind)
        if limit is not None and len(self.items[kind]) >= limit:
            raise ApiError("resource_limit_exceeded", f"{KINDS[kind]} limit exceeded")
        number = next(_IDS)
        made = {"created": now(), **item, "id": number}
        self.items[kind][number] = made
        return made

    def get(self, kind: str, number: int) -> Item:
        """Return something; raises `not_found`."""
        try:
            return self.items[kind][number]
        except KeyError:
            name = KINDS[kind]
            message = f"{name} with ID '{number}' not found"
            raise ApiError("not_found", message) from None

    def of(self, kind: str, condition: Callable[[Item], bool]) -> list[Item]:
        """Return all of a kind that meet a condition."""
        return [item for item in self.items[kind].values() if condition(item)]

    def named(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the name and the labels of a request for something new or for its change.

        Raises:
            ApiError: `invalid_input`, or `uniqueness_error` for the name of another.
        """
        found: dict[str, Any] = {}
        name = body.get("name")
        if not isinstance(name, str) or not name:
            raise invalid("name", "is required")
        if self.of(kind, lambda item: item["name"] == name):
            message = f"{KINDS[kind]} name is already used"
            raise ApiError("uniqueness_error", message, {"fields": [{"name": "name"}]})
        found["name"] = name
        found["labels"] = labels_of(body)
        return found

    def start(
        self,
        command: str,
        resources: Sequence[tuple[str, int]],
        work: Callable[[], None] | None = None,
    ) -> Item:
        """Begin an action and return it; a server that it is about is locked until its end.

        Args:
            command: what the API calls it.
            resources: types and ids of what it is about.
            work: has its effect, at the end of its time; what it raises is the action's error.
        """
        action = self.add(
            "actions",
            {
                "command": command,
                "status": "running",
                "progress": 0,
                "started": now(),
                "finished": None,
                "resources": [{"type": kind, "id": number} for kind, number in resources],
                "error": None,
            },
        )
        servers = [number for kind, number in resources if kind == "server"]
        for number in servers:
            with suppress(ApiError):
                self.get("servers", number)["locked"] = True
        self._workers.submit(self._run, action, servers, work)
        return action

    def unlocked(self, number: int) -> Item:
        """Return a server that no action works on; raises `locked`."""
        server = self.get("servers", number)
        if server["locked"]:
            raise ApiError("locked", "server is locked")
        return server

    def _run(self, action: Item, servers: Sequence[int], work: Callable[[], None] | None) -> None:
        time.sleep(self.action_seconds)
        error = None
        try:
            if work is not None:
                work()
        except ApiError as refusal:
            error = {"code": refusal.code, "message": refusal.message}
        except Exception as failure:  # noqa: BLE001 - a server that does not boot is an answer
            error = {"code": "server_error", "message": str(failure)}
        with self.lock:
            state = "error" if error else "success"
            action.update(status=state, progress=100, finished=now(), error=error)
            for number in servers:
                with suppress(ApiError):
                    self.get("servers", number)["locked"] = self._is_busy(number)

    def _is_busy(self, server: int) -> bool:
        about = {"type": "server", "id": server}
        return any(
            action["status"] == "running" and about in action["resources"]
            for action in self.items["actions"].values()
        )


class Account:
    """All projects, and the tokens that give access to them."""

    def __init__(self, make: Callable[[], Project]) -> None:
        self._make = make
        self._projects: dict[str, Project] = {}
        self._tokens: dict[str, tuple[Project, bool]] = {}
        self.lock = threading.Lock()

    def grant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a token, and its project if that is new.

        Args:
            body: `project` (a name), `token` (else one is made up), `read_only`, `limits` (by
                kind), `requests_per_hour`; all optional.
        """
        with self.lock:
            project = self._projects.setdefault(str(body.get("project", "default")), self._make())
            token = str(body.get("token") or secrets.token_hex(32))
            self._tokens[token] = (project, bool(body.get("read_only")))
        project.limits.update(body.get("limits", {}))
        if rate := body.get("requests_per_hour"):
            project.budget = RateBudget(limit=int(rate), left=float(rate))
        return {"token": token}

    def revoke(self, token: str) -> None:
        """Delete a token, as a person does in the console."""
        with self.lock:
            self._tokens.pop(token, None)

    def project(self, token: str, method: str) -> Project:
        """Return a token's project; raises `unauthorized` or `token_readonly`."""
        with self.lock:
            project, read_only = self._tokens.get(token, (None, False))
        if project is None or project.faults.is_dead(token):
            raise ApiError("unauthorized", "unable to authenticate")
        if read_only and method != "GET":
            raise ApiError("token_readonly", "the token is only allowed to perform GET requests")
        return project


def labels_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a request; raises `invalid_input`."""
    labels = body.get("labels") or {}
    for key, value in labels.items():
        if not key or len(str(value)) > _LABEL_BYTES or len(key.split("/")[-1]) > _LABEL_BYTES:
            raise invalid("labels", f"label {key} is not valid")
    return dict(labels)
