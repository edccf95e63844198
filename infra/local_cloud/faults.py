"""Faults on request, for the APIs of the local clouds.

A `Faults` is consulted by an API and controlled over HTTP at `/_faults` of the API itself:
`POST` one (a `Fault` as JSON), `GET` them with how often each struck, `DELETE` all. The path takes
no credential: the local clouds listen on loopback alone.
"""

import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Protocol

CONTROL_PATH: Final = "/_faults"


class FaultKind(StrEnum):
    """What can go wrong.

    Attributes:
        RATE_LIMIT: calls are refused as too many; nothing happens.
        UNAVAILABLE: calls are refused by something in front of the API; nothing happens.
        SLOW: calls take `delay_seconds` longer.
        LOST_RESPONSE: a call has its effect, and then the connection is cut.
        CAPACITY: no servers of `instance_type` in `place` (either may be empty: any).
        CREDENTIAL: `credential` (empty: any) is refused, as one that was deleted.
        LATE: AWS's `DescribeTags` tells nothing, as it does of what was made just now.
    """

    RATE_LIMIT = "rate_limit"
    UNAVAILABLE = "unavailable"
    SLOW = "slow"
    LOST_RESPONSE = "lost_response"
    CAPACITY = "capacity"
    CREDENTIAL = "credential"
    LATE = "late"


@dataclass(kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: which.
        call: a regular expression that is searched in the call's name: `POST /v1/servers` for
            most APIs; for EC2's, whose calls have one path, `POST / RunInstances`.
        count: it strikes so many calls and is over; None: until it is cleared or its time is up.
        seconds: it is over after so long; None: no bound.
        struck: how many calls it struck.
    """

    kind: FaultKind
    call: str = ""
    count: int | None = None
    seconds: float | None = None
    delay_seconds: float = 0.0
    place: str = ""
    instance_type: str = ""
    credential: str = ""
    struck: int = 0
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        re.compile(self.call)

    @property
    def is_over(self) -> bool:
        """Whether it strikes no more."""
        spent = self.count is not None and self.struck >= self.count
        return spent or (self.seconds is not None and time.monotonic() > self.since + self.seconds)


_OPTIONS: Final = tuple(
    each.name for each in fields(Fault) if each.name not in {"kind", "struck", "since"}
)
_NEEDED: Final = (
    f"Needed is a JSON object with `kind`, one of {', '.join(FaultKind)}; it may have"
    f" {', '.join(_OPTIONS)}."
)


def _fault_of(given: object) -> Fault:
    """Return the fault that a request asks for.

    Raises:
        ValueError: it names no kind, or something that faults do not have.
        TypeError: a value is of another type than its field.
        re.error: `call` is no regular expression.
    """
    if not isinstance(given, dict):
        message = "it is no object"
        raise ValueError(message)  # noqa: TRY004 - of JSON, not of the program
    if "kind" not in given:
        message = "it has no `kind`"
        raise ValueError(message)
    unknown = sorted(given.keys() - {"kind", *_OPTIONS})
    if unknown:
        message = f"there is no {', '.join(unknown)}"
        raise ValueError(message)
    return Fault(**given)


class Faults:
    """The faults of one API; for several threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let a fault strike from now on."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Return all faults, also those that are over."""
        with self._lock:
            return [{**asdict(fault), "over": fault.is_over} for fault in self._faults]

    def strikes(self, kind: FaultKind, call: str) -> Fault | None:
        """Return the fault of a kind that strikes a call, which counts as struck then."""
        return self._take(kind, lambda fault: re.search(fault.call, call) is not None)

    def lacks_capacity(self, place: str, instance_type: str) -> bool:
        """Tell whether there is no capacity for one more server."""
        return (
            self._take(
                FaultKind.CAPACITY,
                lambda fault: (
                    fault.place in {"", place} and fault.instance_type in {"", instance_type}
                ),
            )
            is not None
        )

    def is_dead(self, credential: str) -> bool:
        """Tell whether a credential is refused though the account has it."""
        return (
            self._take(FaultKind.CREDENTIAL, lambda fault: fault.credential in {"", credential})
            is not None
        )

    def control(self, method: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request to the control path: a status, and JSON."""
        if method == "POST":
            try:
                self.add(_fault_of(json.loads(body)))
            except (TypeError, ValueError, re.error) as error:
                refusal = {"error": f"This is no fault: {error}. {_NEEDED}"}
                return 400, json.dumps(refusal).encode()
        elif method == "DELETE":
            self.clear()
        return 200, json.dumps(self.listing()).encode()

    def _take(self, kind: FaultKind, strikes: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.kind is kind and not fault.is_over and strikes(fault):
                    fault.struck += 1
                    return fault
        return None


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """How a provider words a refusal."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Refuse(Protocol):
    """Words a refusal as the provider does."""

    def __call__(self, kind: FaultKind, call: str) -> RefusedCall:
        """Return the answer to a call that RATE_LIMIT or UNAVAILABLE strikes."""


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
