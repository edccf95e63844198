"""Fields of live Kubernetes objects, and what is said of an object that was looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.install import Health

# A live object as JSON.
Live = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """How one object is.

    Attributes:
        health: in a word.
        reason: in a sentence for a person, without the object's name.
    """

    health: Health
    reason: str


def group_of(live: Live) -> str:
    """Return the API group, which is empty for the oldest kinds."""
    version = str(live.get("apiVersion", ""))
    return version.rpartition("/")[0]


def conditions_of(live: Live) -> dict[str, Mapping[str, Any]]:
    """Return the conditions of an object by their types."""
    found = part(live, "status").get("conditions")
    # Other people's kinds may have anything under that name.
    listed = found if isinstance(found, list) else []
    return {one["type"]: one for one in listed if isinstance(one, Mapping) and "type" in one}


def holds(conditions: Mapping[str, Mapping[str, Any]], kind: str, status: str) -> bool:
    """Return whether there is a condition of this type with this status."""
    return conditions.get(kind, {}).get("status") == status


def said_by(condition: Mapping[str, Any]) -> str:
    """Return what a condition says in words."""
    return str(condition.get("message") or condition.get("reason") or "without a reason")


def because(said: object) -> str:
    """Return how a reason is added to a sentence, where there is one."""
    return f": {str(said).rstrip('.')}" if said else ""


def part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a field that is a mapping, an empty one where there is none."""
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def healthy(reason: str) -> ObjectStatus:
    """Say that an object is Healthy."""
    return ObjectStatus(Health.HEALTHY, reason)


def progressing(reason: str) -> ObjectStatus:
    """Say that an object is Progressing."""
    return ObjectStatus(Health.PROGRESSING, reason)


def degraded(reason: str) -> ObjectStatus:
    """Say that an object is Degraded."""
    return ObjectStatus(Health.DEGRADED, reason)
