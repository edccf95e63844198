"""What the engine tells while it works, brought down to what is kept: no value of a resource.

The differences of a drift are the exception: the engine itself shows `[secret]` for what is one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pulumi.automation.events import EngineEvent, OpType, StepEventMetadata

_DOING: Final = {
    OpType.CREATE: ("Making", "made"),
    OpType.DELETE: ("Removing", "removed"),
    OpType.UPDATE: ("Changing", "changed"),
    OpType.IMPORT: ("Taking over", "taken over"),
    OpType.REFRESH: ("Looking at", "looked at"),
}
_QUIET: Final = (OpType.SAME, OpType.READ)
# A key in brackets, an index, or a plain name.
_PART: Final = re.compile(r"""\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)""")
_NOT_RESOURCES: Final = ("pulumi:pulumi:Stack", "pulumi:providers:")


@dataclass(slots=True)
class EngineLog:
    """Follows one command of the engine; called by its events, in a thread of the SDK.

    Attributes:
        file: where a line is written for each step, of the shape of `StackProgress`.
        changes: how many resources were made, removed, ..., once the engine has summed up.
        errors: what failed, in the provider's words, with the logical name that it happened to.
        drift: by logical name, what differs.
    """

    file: Path
    changes: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[str | None, str]] = field(default_factory=list)
    drift: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _done: set[str] = field(default_factory=set)

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
        if event.summary_event is not None:
            changes = event.summary_event.resource_changes
            self.changes = {str(getattr(key, "value", key)): n for key, n in changes.items()}
        diagnostic = event.diagnostic_event
        if diagnostic is not None and diagnostic.severity == "error" and not diagnostic.ephemeral:
            name = _logical_name(diagnostic.urn) if diagnostic.urn else None
            self.errors.append((name, diagnostic.message.strip()))

    def _step(self, sequence: int, metadata: StepEventMetadata, *, done: bool) -> None:
        if metadata.type.startswith(_NOT_RESOURCES):
            return
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
            "message": f"{name}: {is_done}." if done else f"{doing} {name}.",
            "done": len(self._done),
            "total": len(self._seen),
        }
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

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
