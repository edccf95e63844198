"""Finding what a request names, and choosing among a list as its query says."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from infra.local_cloud.hcloud import catalogue
from infra.local_cloud.hcloud.errors import invalid
from infra.local_cloud.hcloud.project import Item, Project

_LARGEST_PAGE: Final = 50
_PAGE: Final = 25
_SETS: Final = re.compile(r"(?P<key>[^\s!=]+)\s+(?P<verb>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUALS: Final = re.compile(r"(?P<key>[^\s!=]+?)\s*(?P<verb>==|!=|=)\s*(?P<value>\S*)")


def selected(selector: str) -> Callable[[Item], bool]:
    """Return whether an item's labels are what a label selector asks for."""
    conditions = [
        _condition(part.strip()) for part in re.split(r",(?![^(]*\))", selector) if part.strip()
    ]
    return lambda item: all(condition(item.get("labels", {})) for condition in conditions)


def _condition(part: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SETS.fullmatch(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["verb"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUALS.fullmatch(part):
        key, value = match["key"], match["value"]
        if match["verb"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    if re.fullmatch(r"[^\s!=()]+", part):
        return lambda labels: part in labels
    raise invalid("label_selector", "is not a valid label selector")


def listing(key: str, items: Sequence[Item], query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return one page of a list, as its query asks."""
    chosen = [item for item in items if _wanted(item, query)]
    if selector := query.get("label_selector"):
        chosen = [item for item in chosen if selected(selector[0])(item)]
    page = int(query.get("page", ["1"])[0])
    size = int(query.get("per_page", [str(_PAGE)])[0])
    if page < 1 or not 1 <= size <= _LARGEST_PAGE:
        raise invalid("per_page", f"must be between 1 and {_LARGEST_PAGE}")
    last = max(1, -(-len(chosen) // size))
    pagination = {
        "page": page,
        "per_page": size,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last else None,
        "last_page": last,
        "total_entries": len(chosen),
    }
    part = chosen[(page - 1) * size : page * size]
    return {key: part, "meta": {"pagination": pagination}}


def _wanted(item: Item, query: Mapping[str, Sequence[str]]) -> bool:
    return all(
        str(item.get(name)) in query[name]
        for name in ("id", "name", "type", "status", "architecture", "ip")
        if name in query
    )


def place_of(body: Mapping[str, Any]) -> Item:
    """Return the location that a request asks for; any if it asks for none."""
    if datacenter := body.get("datacenter"):
        for found in catalogue.DATACENTERS:
            if datacenter in {found["name"], found["id"], str(found["id"])}:
                return dict(found["location"])
        raise invalid("datacenter", "datacenter not found")
    location = body.get("location") or catalogue.LOCATIONS[0]["name"]
    for place in catalogue.LOCATIONS:
        if location in {place["name"], place["id"], str(place["id"])}:
            return place
    raise invalid("location", "location not found")


def server_type_of(body: Mapping[str, Any]) -> Item:
    """Return the size that a request asks for."""
    asked = body.get("server_type")
    for kind in catalogue.SERVER_TYPES:
        if asked in {kind["name"], kind["id"], str(kind["id"])}:
            return kind
    raise invalid("server_type", f"server type {asked} not found")


def image_of(project: Project, body: Mapping[str, Any], architecture: str) -> Item:
    """Return the image or snapshot that a request asks for."""
    asked = body.get("image")
    images = [*catalogue.SYSTEM_IMAGES, *project.items["images"].values()]
    for image in images:
        if image["architecture"] != architecture:
            continue
        if asked in {image["name"], image["id"], str(image["id"])} and asked is not None:
            if image["status"] != "available":
                raise invalid("image", "image is not available")
            return image
    raise invalid("image", f"image {asked} not found")
