"""What a runner of a stack is asked for, and what it answers. No part of either is a secret."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.cloud import Provider
from domain.stack import MachineShape, NetworkShape, StackAction, StackKind, StackProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class StackRequest:
    """One run.

    Attributes:
        fence: of the lease under which it runs.
        encryption_salt: of the stack's passphrase; None before the first `up`.
        deadline_seconds: after which the run is cancelled.
        is_new: Pulumi knows nothing of the stack yet.
        after_crash: an earlier run did not come to its end. Its lock and its unanswered calls are
            forgotten first, so whatever these made must be known by then: adopted or removed. And
            what is in the state is looked up at the provider before anything is changed.
        refresh: what is in the state is looked up in any case: somebody else may have removed it.
    """

    action: StackAction
    program: StackProgram
    operation_id: str
    fence: int
    encryption_salt: str | None = None
    deadline_seconds: int = 1800
    is_new: bool = False
    after_crash: bool = False
    refresh: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what `request_of` reads."""
        return dataclasses.asdict(self)


def request_of(document: Mapping[str, Any]) -> StackRequest:
    """Return a request from its JSON."""
    program = dict(document["program"])
    kind = StackKind(program["kind"])
    shape = NetworkShape if kind is StackKind.NETWORK else MachineShape
    program |= {
        "kind": kind,
        "provider": Provider(program["provider"]),
        "shape": shape(**program["shape"]),
    }
    return StackRequest(
        **{
            **document,
            "action": StackAction(document["action"]),
            "program": StackProgram(**program),
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StackSecrets:
    """What a run needs beside its request; by environment and files of mode 0600 alone.

    Attributes:
        passphrase: of the stack.
        credential: the environment in which the provider program finds the credential.
        user_data: for the server's cloud-init; empty: none, or not to be changed.
    """

    passphrase: str = field(repr=False)
    credential: Mapping[str, str] = field(repr=False)
    user_data: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class StackResult:
    """What a run came to.

    Attributes:
        outputs: the program's, without secrets.
        changes: how many resources were `create`d, `update`d, `delete`d, stayed the `same`, ...
        drift: for `refresh` and `preview`: by logical name, what differs.
        resources: what the state knows now: provider ids by logical name.
    """

    outputs: Mapping[str, Any]
    changes: Mapping[str, int]
    resources: Mapping[str, str]
    encryption_salt: str | None = None
    drift: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StackProgress:
    """Where a run is: what a person sees while it works.

    Attributes:
        sequence: of the engine's last event.
        urn: of the last resource that something happened to.
        message: a sentence about it.
        done: resources that are finished.
        total: resources that are known of.
        calls: about how many the provider program made until then.
    """

    sequence: int
    urn: str | None
    message: str
    done: int
    total: int
    calls: int = 0
