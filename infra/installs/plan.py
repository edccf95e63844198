"""What becomes of an install's objects when a render is applied, as people approve it."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from domain.install import Change, ObjectScope
from infra.helm.manifest import key_of
from infra.kubernetes.client import Object


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedChange:
    """What becomes of one object.

    Attributes:
        key: `<group>/<kind>/<namespace>/<name>`.
        reference: its `api_version`, `kind`, `namespace` and `name`.
        scope: by which identity it is applied.
        change: what is done.
        diff: each `{path, before, after}`.
        uid: of the live object; empty when there is none.
        note: what else there is to know, for people; mostly empty.
    """

    key: str
    reference: dict[str, str]
    scope: ObjectScope
    change: Change
    diff: tuple[dict[str, Any], ...] = ()
    uid: str = ""
    note: str = ""

    @classmethod
    def of(
        cls,
        manifest: Object,
        scope: ObjectScope,
        change: Change,
        diff: Iterable[dict[str, Any]] = (),
        live: Object | None = None,
        note: str = "",
    ) -> "PlannedChange":
        """Return what becomes of a rendered object."""
        return cls(
            key=key_of(manifest),
            reference=reference_of(manifest),
            scope=scope,
            change=change,
            diff=tuple(diff),
            uid="" if live is None else str(live["metadata"]["uid"]),
            note=note,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as people see it."""
        return {
            "key": self.key,
            **self.reference,
            "scope": self.scope,
            "change": self.change,
            "diff": list(self.diff),
            "uid": self.uid,
            **({"note": self.note} if self.note else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What applying a render would do.

    Attributes:
        changes: of objects, sorted by key.
        unchanged: how many objects stay as they are.
        hooks: what helm runs besides: `{key, hooks}`.
        needs: what it needs: `{what, why}` and a `name` where there is one.
        cluster_objects: references to everything of cluster scope in the render.
        release_bytes: about how large helm's record of the release gets.
    """

    changes: tuple[PlannedChange, ...]
    unchanged: int
    hooks: tuple[dict[str, Any], ...]
    needs: tuple[dict[str, str], ...]
    cluster_objects: tuple[dict[str, str], ...]
    release_bytes: int

    @property
    def needs_approval(self) -> bool:
        """Whether somebody has to look at it before it is applied."""
        return any(need["what"] == "approval" for need in self.needs)

    def as_json(self) -> dict[str, Any]:
        """Return it as the row has it."""
        counts = {str(change): 0 for change in Change}
        for found in self.changes:
            counts[found.change] += 1
        return {
            "changes": [found.as_json() for found in self.changes],
            "hooks": list(self.hooks),
            "needs": list(self.needs),
            "counts": {**counts, "unchanged": self.unchanged},
            "cluster_objects": list(self.cluster_objects),
            "release_bytes": self.release_bytes,
        }

    def digest(self, key: str, render_hash: str, version_id: str, values: dict[str, Any]) -> str:
        """Return what an approval is bound to: the plan, its inputs, and what was seen live.

        Args:
            key: the install's own. A vendor sees the digest and knows everything but the values,
                and shall not try guesses of them.
            render_hash: of what was rendered.
            version_id: of the package.
            values: the customer's.
        """
        facts = {
            "changes": [found.as_json() for found in self.changes],
            "hooks": list(self.hooks),
            "render_hash": render_hash,
            "version_id": version_id,
            "values": values,
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hmac.digest(key.encode(), text.encode(), hashlib.sha256).hex()}"


def uids_in(plan: Mapping[str, Any] | None, change: Change, scope: ObjectScope) -> dict[str, str]:
    """Return the objects of which a stored plan makes this: the uid that was live, by key."""
    return {
        found["key"]: found.get("uid", "")
        for found in (plan or {}).get("changes", [])
        if (found["change"], found["scope"]) == (change, scope)
    }


def reference_of(manifest: Object) -> dict[str, str]:
    """Return what names an object."""
    metadata = manifest["metadata"]
    return {
        "api_version": manifest["apiVersion"],
        "kind": manifest["kind"],
        "namespace": metadata.get("namespace") or "",
        "name": metadata["name"],
    }


def identity_of(reference: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Return which object a reference names, in whatever version: its group counts, as in keys."""
    group = reference["api_version"].rpartition("/")[0]
    return group, reference["kind"], reference["namespace"], reference["name"]
