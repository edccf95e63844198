"""What the engine tells while it works, brought down to what is kept: no value of a resource.

The differences of a drift are the exception: the engine itself shows `[secret]` for what is one.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pulumi.automation.events import EngineEvent, OpType, StepEventMetadata

from infra.clouds.profile import EngineCalls

_DOING: Final = {
    OpType.CREATE: ("Making", "made"),
    OpType.DELETE: ("Removing", "removed"),
    OpType.UPDATE: ("Changing", "changed"),
    OpType.IMPORT: ("Taking over", "taken over"),
    OpType.REFRESH: ("Looking at", "looked at"),
}
_QUIET: Final = (OpType.SAME, OpType.READ)
# Of these a provider program asks something; `replace`, for one, is a word for two others.
_CHANGING: Final = frozenset(
    {
        OpType.CREATE,
        OpType.CREATE_REPLACEMENT,
        OpType.UPDATE,
        OpType.DELETE,
        OpType.DELETE_REPLACED,
    }
)
_LOOKING: Final = frozenset(
    {
        OpType.READ,
        OpType.READ_REPLACEMENT,
        OpType.REFRESH,
        OpType.IMPORT,
        OpType.IMPORT_REPLACEMENT,
    }
)
# A key in brackets, an index, or a plain name.
_PART: Final = re.compile(r"""\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)""")
_NOT_RESOURCES: Final = ("pulumi:pulumi:Stack", "pulumi:providers:")


@dataclass(slots=True)
class EngineLog:
    """Follows one command of the engine; called by its events, in a thread of the SDK.

    Attributes:
        file: where a line is written for each step, of the shape of `StackProgress`.
        asks: about what the provider program asks at each step.
        only_looks: nothing is changed, whatever the engine says that it would.
        calls: about how many the provider program made so far.
        changes: how many resources were made, removed, ..., once the engine has summed up.
        errors: what failed, in the provider's words, with the logical name that it happened to.
        drift: by logical name, what differs.
    """

    file: Path
    asks: EngineCalls
    only_looks: bool = False
    calls: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[str | None, str]] = field(default_factory=list)
    drift: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _done: set[str] = field(default_factory=set)
    _began: dict[tuple[str, OpType], float] = field(default_factory=dict)

    def __call__(self, event: EngineEvent) -> None:
        """Take an event. Never raises: the SDK would print all of it."""
        try:
            self._take(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, without its values
            self.errors.append((None, f"an event could not be read: {type(error).__name__}"))

    def _take(self, event: EngineEvent) -> None:
        if event.resource_pre_event is not None:
            self._step(event.sequence, event.resource_pre_event.metadata, done=False)
        if event.res_outputs_event is not None:
            self._step(event.sequence, event.res_outputs_event.metadata, done=True)
        if event.res_op_failed_event is not None:
            self._step(event.sequence, event.res_op_failed_event.metadata, done=False, failed=True)
        if event.summary_event is not None:
            changes = event.summary_event.resource_changes
            self.changes = {str(getattr(key, "value", key)): n for key, n in changes.items()}
        diagnostic = event.diagnostic_event
        if diagnostic is not None and diagnostic.severity == "error" and not diagnostic.ephemeral:
            name = _logical_name(diagnostic.urn) if diagnostic.urn else None
            self.errors.append((name, diagnostic.message.strip()))

    def _step(
        self, sequence: int, metadata: StepEventMetadata, *, done: bool, failed: bool = False
    ) -> None:
        if metadata.type.startswith(_NOT_RESOURCES):
            return
        self._count(metadata, ended=done or failed)
        self._seen.add(metadata.urn)
        if done:
            self._done.add(metadata.urn)
        self._note_drift(metadata)
        if metadata.op in _QUIET and not done:
            return
        name = _logical_name(metadata.urn)
        doing, is_done = _DOING.get(metadata.op, ("Working on", "done"))
        line = {
            "sequence": sequence,
            "urn": metadata.urn,
            "message": _sentence(name, "failed" if failed else is_done if done else "", doing),
            "done": len(self._done),
            "total": len(self._seen),
            "calls": self.calls,
        }
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _count(self, metadata: StepEventMetadata, *, ended: bool) -> None:
        """Count what a step is about to ask, and at its end how often it will have looked."""
        if metadata.op not in _CHANGING | _LOOKING:
            return
        looks = self.only_looks or metadata.op in _LOOKING
        step, now = (metadata.urn, metadata.op), time.monotonic()
        if step not in self._began:
            self.calls += self.asks.look if looks else self.asks.change
            if not self._began:
                self.calls += self.asks.start
        began = self._began.setdefault(step, now)
        if ended and not looks:
            self.calls += self.asks.polls(now - began)

    def _note_drift(self, metadata: StepEventMetadata) -> None:
        if metadata.op in (*_QUIET, OpType.REFRESH):
            return
        old = metadata.old.inputs if metadata.old else {}
        new = metadata.new.inputs if metadata.new else {}
        self.drift[_logical_name(metadata.urn)] = {
            "action": metadata.op.value,
            "properties": {
                path: {
                    "kind": diff.diff_kind.value,
                    "before": value_at(path, old),
                    "after": value_at(path, new),
                }
                for path, diff in (metadata.detailed_diff or {}).items()
            },
        }


def _sentence(name: str, came_to: str, doing: str) -> str:
    return f"{name}: {came_to}." if came_to else f"{doing} {name}."


def value_at(path: str, properties: Mapping[str, Any] | None) -> object:
    """Return what is at a path as the engine writes it: `labels.team`, `ingress[0]["a.b"]`."""
    found: object = properties or {}
    for quoted, index, name in _PART.findall(path):
        if isinstance(found, Mapping):
            found = found.get(quoted.replace('\\"', '"') or name)
        elif isinstance(found, list) and index and int(index) < len(found):
            found = found[int(index)]
        else:
            return None
    return found


def _logical_name(urn: str) -> str:
    return urn.rsplit("::", maxsplit=1)[-1]
