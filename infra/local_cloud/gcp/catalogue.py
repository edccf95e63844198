"""What Google offers here: places, sizes, images and quotas. A part of the real catalogue."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.kinds import LINK_BASE

ZONES: Final[Mapping[str, tuple[str, ...]]] = {
    "europe-west1": ("europe-west1-b", "europe-west1-c", "europe-west1-d"),
    "europe-west3": ("europe-west3-a", "europe-west3-b", "europe-west3-c"),
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"),
}

# A part of what a new project may have in each region, and of what it may have in all.
REGION_QUOTAS: Final[Mapping[str, float]] = {
    "CPUS": 72,
    "INSTANCES": 720,
    "IN_USE_ADDRESSES": 69,
    "STATIC_ADDRESSES": 21,
    "DISKS_TOTAL_GB": 40960,
    "SSD_TOTAL_GB": 8192,
}
PROJECT_QUOTAS: Final[Mapping[str, float]] = {
    "NETWORKS": 15,
    "SUBNETWORKS": 275,
    "FIREWALLS": 200,
    "SNAPSHOTS": 5000,
    "IMAGES": 2000,
}

_GIB: Final = 1024


@dataclass(frozen=True, slots=True)
class _Size:
    cpus: int
    memory_mib: int
    architecture: str = "X86_64"
    shared: bool = False
    regions: frozenset[str] = frozenset(ZONES)


_SIZES: Final[Mapping[str, _Size]] = {
    "e2-small": _Size(2, 2 * _GIB, shared=True),
    "e2-medium": _Size(2, 4 * _GIB, shared=True),
    "e2-standard-2": _Size(2, 8 * _GIB),
    "e2-standard-4": _Size(4, 16 * _GIB),
    "n2-standard-2": _Size(2, 8 * _GIB),
    "n2-standard-4": _Size(4, 16 * _GIB),
    "c4a-standard-2": _Size(2, 8 * _GIB, "ARM64", regions=frozenset({"us-central1"})),
}

# Project, name, family and architecture.
_IMAGES: Final = (
    ("ubuntu-os-cloud", "ubuntu-2404-noble-amd64-v20261104", "ubuntu-2404-lts-amd64", "X86_64"),
    ("ubuntu-os-cloud", "ubuntu-2404-noble-arm64-v20261104", "ubuntu-2404-lts-arm64", "ARM64"),
    ("debian-cloud", "debian-13-trixie-v20261110", "debian-13", "X86_64"),
)


def region_of(zone: str) -> str | None:
    """Return the region of a zone; None: there is no such zone."""
    return next((region for region, zones in ZONES.items() if zone in zones), None)


def region_body(project: str, region: str, quotas: list[Json]) -> Json:
    """Return a region as it is answered."""
    return {
        "kind": "compute#region",
        "id": str(_number(region)),
        "name": region,
        "description": region,
        "status": "UP",
        "zones": [f"{LINK_BASE}projects/{project}/zones/{zone}" for zone in ZONES[region]],
        "quotas": quotas,
        "selfLink": f"{LINK_BASE}projects/{project}/regions/{region}",
    }


def zone_body(project: str, zone: str) -> Json:
    """Return a zone as it is answered."""
    return {
        "kind": "compute#zone",
        "id": str(_number(zone)),
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": f"{LINK_BASE}projects/{project}/regions/{region_of(zone)}",
        "selfLink": f"{LINK_BASE}projects/{project}/zones/{zone}",
    }


def machine_type_bodies(project: str, zone: str) -> Iterator[Json]:
    """Return the sizes that a zone has, as they are answered."""
    for name, size in _SIZES.items():
        if region_of(zone) in size.regions:
            yield {
                "kind": "compute#machineType",
                "id": str(_number(name)),
                "name": name,
                "description": f"{size.cpus} vCPUs, {size.memory_mib // _GIB} GB RAM",
                "guestCpus": size.cpus,
                "memoryMb": size.memory_mib,
                "isSharedCpu": size.shared,
                "architecture": size.architecture,
                "maximumPersistentDisks": 128,
                "maximumPersistentDisksSizeGb": "263168",
                "zone": zone,
                "selfLink": f"{LINK_BASE}projects/{project}/zones/{zone}/machineTypes/{name}",
            }


def image_bodies(project: str) -> Iterator[Json]:
    """Return the public images of one of Google's image projects."""
    for owner, name, family, architecture in _IMAGES:
        if owner == project:
            yield {
                "kind": "compute#image",
                "id": str(_number(name)),
                "name": name,
                "family": family,
                "architecture": architecture,
                "status": "READY",
                "diskSizeGb": "10",
                "archiveSizeBytes": "1073741824",
                "sourceType": "RAW",
                "selfLink": f"{LINK_BASE}projects/{project}/global/images/{name}",
            }


def public_image(path: str) -> Json | None:
    """Return the public image that a path means, by its name or as its family's newest."""
    pieces = path.split("/")
    *_, before, last = pieces
    field = "family" if before == "family" else "name"
    return next((body for body in image_bodies(pieces[1]) if body[field] == last), None)


def _number(name: str) -> int:
    return 1000 + sum(name.encode())
