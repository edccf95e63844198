"""The kinds of Compute Engine's resources that can be made here, and what holds what."""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infra.local_cloud.gcp.discovery import Json

# What links begin with, wherever the API is reached.
LINK_BASE: Final = "https://www.googleapis.com/compute/v1/"


class Scope(StrEnum):
    """Where a kind lives."""

    GLOBAL = "global"
    REGION = "regions"
    ZONE = "zones"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One collection.

    Attributes:
        collection: its name in paths.
        name: `kind` of its resources, after `compute#`; also what refusals call it.
        schema: of its resources.
        scope: where it lives.
        holds: fields, at any depth, that keep what they name from being deleted.
        needs: fields, at any depth, whose value must exist and be ready.
        fingerprint: `patch` asks for the fingerprint.
        quota: the project's or region's quota that each counts against.
        labelled: it can have labels.
        ready: its `status` when it is usable; empty: it has none.
    """

    collection: str
    name: str
    schema: str
    scope: Scope
    holds: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    fingerprint: bool = False
    quota: str | None = None
    labelled: bool = False
    ready: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    kind.collection: kind
    for kind in (
        Kind(
            collection="networks",
            name="network",
            schema="Network",
            scope=Scope.GLOBAL,
            quota="NETWORKS",
        ),
        Kind(
            collection="subnetworks",
            name="subnetwork",
            schema="Subnetwork",
            scope=Scope.REGION,
            holds=frozenset({"network"}),
            needs=frozenset({"network"}),
            fingerprint=True,
            quota="SUBNETWORKS",
        ),
        Kind(
            collection="firewalls",
            name="firewall",
            schema="Firewall",
            scope=Scope.GLOBAL,
            holds=frozenset({"network"}),
            needs=frozenset({"network"}),
            quota="FIREWALLS",
        ),
        Kind(
            collection="addresses",
            name="address",
            schema="Address",
            scope=Scope.REGION,
            holds=frozenset({"network", "subnetwork"}),
            needs=frozenset({"network", "subnetwork"}),
            quota="STATIC_ADDRESSES",
            labelled=True,
            ready="RESERVED",
        ),
        Kind(
            collection="instances",
            name="instance",
            schema="Instance",
            scope=Scope.ZONE,
            holds=frozenset({"network", "subnetwork", "source"}),
            needs=frozenset({"network", "subnetwork", "source"}),
            quota="INSTANCES",
            labelled=True,
        ),
        Kind(
            collection="disks",
            name="disk",
            schema="Disk",
            scope=Scope.ZONE,
            needs=frozenset({"sourceSnapshot"}),
            labelled=True,
            ready="READY",
        ),
        Kind(
            collection="snapshots",
            name="snapshot",
            schema="Snapshot",
            scope=Scope.GLOBAL,
            needs=frozenset({"sourceDisk"}),
            quota="SNAPSHOTS",
            labelled=True,
            ready="READY",
        ),
        Kind(
            collection="images",
            name="image",
            schema="Image",
            scope=Scope.GLOBAL,
            needs=frozenset({"sourceDisk"}),
            quota="IMAGES",
            labelled=True,
            ready="READY",
        ),
    )
}


def path_of_link(link: str, project: str, region: str | None, zone: str | None) -> str:
    """Return `projects/...` of a full or partial link.

    A bare name is left as it is.
    """
    _, found, rest = link.partition("/projects/")
    if found:
        return f"projects/{rest}"
    if link.startswith(("global/", "regions/", "zones/")):
        return f"projects/{project}/{link}"
    collection = link.partition("/")[0]
    if collection in {"machineTypes", "diskTypes"} and zone is not None:
        return f"projects/{project}/zones/{zone}/{link}"
    if collection == "subnetworks" and region is not None:
        return f"projects/{project}/regions/{region}/{link}"
    return link


def values_of(body: object, names: Collection[str]) -> Iterator[str]:
    """Return the texts that stand in fields of these names, at any depth."""
    if isinstance(body, list):
        for item in body:
            yield from values_of(item, names)
    if isinstance(body, dict):
        for name, value in body.items():
            if name in names and isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                yield from values_of(value, names)


def fingerprint_of(value: object) -> str:
    """Return the fingerprint of a state: equal for equal ones."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def without(body: Json, *names: str) -> Json:
    """Return a body without some of its fields."""
    return {name: value for name, value in body.items() if name not in names}


def singular(collection: str) -> str:
    """Return the word for one of a collection."""
    return "address" if collection == "addresses" else collection.rstrip("s")
