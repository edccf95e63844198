"""How a rollout spreads, over which installs, and how it looks at what it moved."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from string import Template
from typing import Any, Final, Self
from urllib.parse import unquote

from domain.package import Channel
from domain.rollout import CheckKind, Gate

_DAY_SECONDS: Final = 86_400

# How often Services are asked while their installs bake: often enough to stop soon. Each time is a
# workflow of its own, which Temporal starts some forty of in a second.
_SERVICE_CHECKS_OF_A_BAKE: Final = 5
_SHORTEST_BETWEEN: Final = timedelta(seconds=10)
_LONGEST_BETWEEN: Final = timedelta(minutes=5)
_SERVICE_CHECKS_A_SECOND: Final = 10

# Between the segments of a path, also for those who take `\` for `/`.
_SEPARATORS: Final = re.compile(r"[/\\?#]")


def leads_elsewhere(path: str) -> bool:
    """Tell whether a path has `.` or `..` as a segment, plainly or encoded however often.

    What is asked then is at another place than where the path begins.
    """
    while (decoded := unquote(path)) != path:
        path = decoded
    return not {".", ".."}.isdisjoint(_SEPARATORS.split(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """So many, or so many of a hundred; exactly one of both is set."""

    count: int | None = None
    percent: int | None = None

    def up_to(self, whole: int) -> int:
        """Return how many of `whole` this is, rounded up: how large a wave is."""
        if self.count is not None:
            return min(self.count, whole)
        return -(-whole * (self.percent or 0) // 100)

    def within(self, whole: int) -> int:
        """Return how many of `whole` this is, rounded down: how many may fail."""
        if self.count is not None:
            return self.count
        return whole * (self.percent or 0) // 100

    def to_json(self) -> dict[str, int]:
        """Return it as a request has it."""
        if self.count is not None:
            return {"count": self.count}
        return {"percent": self.percent or 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a place in a check's text stands for."""

    install_id: str
    cluster_id: str
    region_id: str

    def fill(self, text: str) -> str:
        """Return the text with `$install_id`, `$cluster_id` and `$region_id` filled in."""
        return Template(text).safe_substitute(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One look at a target that has the new version.

    Attributes:
        kind: what is looked at.
        url: for HTTP the address, for a metric the base of a Prometheus API, asked from outside
            the cluster; None: the Service is asked, through the cluster's API.
        service: a Service in the install's namespace.
        port: its port, by number or name.
        path: of the Service, within it.
        status: that a GET must answer.
        query: in PromQL; its first sample is compared.
        comparison: one of `<`, `<=`, `>`, `>=`, `==`.
        threshold: with which the sample is compared.
        image: of a Job's container.
        command: of a Job's container; empty: the image's own.
        timeout_seconds: within which a Job must have succeeded.
    """

    kind: CheckKind
    url: str | None = None
    service: str | None = None
    port: int | str | None = None
    path: str = "/"
    status: int = 200
    query: str = ""
    comparison: str = "<"
    threshold: float = 0.0
    image: str = ""
    command: tuple[str, ...] = ()
    timeout_seconds: int = 300

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a check as a strategy has it."""
        known = {each.name for each in dataclasses.fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        values["kind"] = CheckKind(values["kind"])
        values["command"] = tuple(values.get("command", ()))
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON."""
        return {**dataclasses.asdict(self), "command": list(self.command)}

    @property
    def in_cluster(self) -> bool:
        """Whether it is made from the host of the cluster's control plane."""
        return self.kind is CheckKind.JOB or self.asks_service

    @property
    def asks_service(self) -> bool:
        """Whether it asks a Service of the install.

        That is done again until the bake ends. A Job runs once: it tries the version, and may leave
        something behind each time.
        """
        return self.kind in {CheckKind.HTTP, CheckKind.METRIC} and self.url is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Selector:
    """Which of a product's installs; what is empty bounds nothing."""

    regions: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    channel: Channel | None = None
    install_ids: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a selector as a row has it."""
        channel = stored.get("channel")
        return cls(
            regions=tuple(stored.get("regions") or ()),
            labels=dict(stored.get("labels") or {}),
            channel=None if channel is None else Channel(channel),
            install_ids=tuple(stored.get("install_ids") or ()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the selector as a row has it."""
        return {
            "regions": list(self.regions),
            "labels": dict(self.labels),
            "channel": self.channel,
            "install_ids": list(self.install_ids),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """How a version spreads.

    Attributes:
        canary: how many installs make the first wave; 0: there is no canary.
        waves: the sizes of those that follow, in parts of what is no canary; what they leave over
            is one more wave.
        concurrency: how many installs move at the same time, over all.
        bake_seconds: how long a wave is looked at before the next one.
        error_budget: how many of a wave may fail.
        checks: the looks.
        gate: where somebody else must approve.
        automatic_rollback: a wave that spent its budget is taken back.
        deadline_seconds: how long those that cannot be moved are tried again.
    """

    canary: int = 1
    waves: tuple[Share, ...] = (Share(percent=100),)
    concurrency: int = 5
    bake_seconds: int = 60
    error_budget: Share = Share(count=0)
    checks: tuple[Check, ...] = (Check(kind=CheckKind.WORKLOAD),)
    gate: Gate = Gate.NONE
    automatic_rollback: bool = True
    deadline_seconds: int = _DAY_SECONDS

    @property
    def asks_services(self) -> bool:
        """Whether targets that bake are looked at from their clusters' hosts."""
        return any(check.asks_service for check in self.checks)

    def between_service_checks(self, targets: int) -> timedelta:
        """Return how long a target that bakes, one of so many, is not looked at from its host."""
        share = timedelta(seconds=self.bake_seconds) / _SERVICE_CHECKS_OF_A_BAKE
        bounded = min(max(share, _SHORTEST_BETWEEN), _LONGEST_BETWEEN)
        return max(bounded, timedelta(seconds=targets / _SERVICE_CHECKS_A_SECOND))

    def wave_in_words(self, number: int) -> str:
        """Return how people call a wave: `the canary`, and `wave 1` for the first one after it."""
        if not self.canary:
            return f"wave {number + 1}"
        return f"wave {number}" if number else "the canary"

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a strategy as a row has it; what is absent has its default."""
        plain = (
            "canary",
            "concurrency",
            "bake_seconds",
            "automatic_rollback",
            "deadline_seconds",
        )
        values: dict[str, Any] = {name: stored[name] for name in plain if name in stored}
        if "waves" in stored:
            values["waves"] = tuple(_share(each) for each in stored["waves"])
        if "error_budget" in stored:
            values["error_budget"] = _share(stored["error_budget"])
        if "checks" in stored:
            values["checks"] = tuple(Check.from_json(each) for each in stored["checks"])
        if "gate" in stored:
            values["gate"] = Gate(stored["gate"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the strategy as a row has it."""
        return {
            "canary": self.canary,
            "waves": [each.to_json() for each in self.waves],
            "concurrency": self.concurrency,
            "bake_seconds": self.bake_seconds,
            "error_budget": self.error_budget.to_json(),
            "checks": [each.to_json() for each in self.checks],
            "gate": self.gate,
            "automatic_rollback": self.automatic_rollback,
            "deadline_seconds": self.deadline_seconds,
        }


def _share(stored: Mapping[str, int]) -> Share:
    return Share(count=stored.get("count"), percent=stored.get("percent"))
