"""What every project can choose from: places, sizes, images and what they cost.

The names are real ones; the prices only have the real API's form and rough size.
"""

from typing import Any, Final

_ZONES: Final = {"eu-central": ("fsn1", "nbg1", "hel1"), "us-east": ("ash",), "us-west": ("hil",)}
_CITIES: Final = {
    "fsn1": ("Falkenstein", "DE"),
    "nbg1": ("Nuremberg", "DE"),
    "hel1": ("Helsinki", "FI"),
    "ash": ("Ashburn, VA", "US"),
    "hil": ("Hillsboro, OR", "US"),
}

# Name, CPUs, GB of memory, GB of disk, architecture, EUR per hour; dedicated CPUs or not.
_SIZES: Final = (
    ("cx23", 2, 4.0, 40, "x86", 0.0056, "shared"),
    ("cx33", 4, 8.0, 80, "x86", 0.0088, "shared"),
    ("cpx22", 2, 4.0, 80, "x86", 0.0104, "shared"),
    ("cpx32", 4, 8.0, 160, "x86", 0.0176, "shared"),
    ("cax11", 2, 4.0, 40, "arm", 0.0064, "shared"),
    ("cax21", 4, 8.0, 80, "arm", 0.0104, "shared"),
    ("ccx13", 2, 8.0, 80, "x86", 0.0200, "dedicated"),
)
_HOURS_PER_MONTH: Final = 624
_EUROPE_ONLY: Final = frozenset({"cx23", "cx33", "cax11", "cax21"})
_CREATED: Final = "2024-04-25T13:26:27+00:00"

IMAGE_PRICE_PER_GB_MONTH: Final = "0.0110000000"


def _locations() -> list[dict[str, Any]]:
    names = [(zone, name) for zone, members in _ZONES.items() for name in members]
    return [
        {
            "id": number,
            "name": name,
            "description": f"{_CITIES[name][0]} DC Park 1",
            "country": _CITIES[name][1],
            "city": _CITIES[name][0],
            "latitude": 50.0,
            "longitude": 12.0,
            "network_zone": zone,
        }
        for number, (zone, name) in enumerate(names, 1)
    ]


def _price(net: float) -> dict[str, str]:
    return {"net": f"{net:.10f}", "gross": f"{net * 1.19:.10f}"}


def _places_of(size: str) -> list[dict[str, Any]]:
    return [
        place
        for place in LOCATIONS
        if size not in _EUROPE_ONLY or place["network_zone"] == "eu-central"
    ]


def _server_type(number: int, size: tuple[str, int, float, int, str, float, str]) -> dict[str, Any]:
    name, cores, memory, disk, architecture, hourly, kind = size
    return {
        "id": number,
        "name": name,
        "description": name.upper(),
        "category": "cost_optimized",
        "cores": cores,
        "memory": memory,
        "disk": disk,
        "cpu_type": kind,
        "architecture": architecture,
        "storage_type": "local",
        "deprecated": False,
        "deprecation": None,
        "locations": [
            {
                "id": place["id"],
                "name": place["name"],
                "deprecation": None,
                "available": True,
                "recommended": True,
            }
            for place in _places_of(name)
        ],
        "prices": [
            {
                "location": place["name"],
                "price_hourly": _price(hourly),
                "price_monthly": _price(hourly * _HOURS_PER_MONTH),
                "included_traffic": 21990232555520,
                "price_per_tb_traffic": _price(1.0),
            }
            for place in _places_of(name)
        ],
    }


def _image(number: int, flavor: str, version: str, architecture: str) -> dict[str, Any]:
    return {
        "id": number,
        "type": "system",
        "status": "available",
        "name": f"{flavor}-{version}",
        "description": f"{flavor.title()} {version}",
        "image_size": None,
        "disk_size": 10,
        "created": _CREATED,
        "created_from": None,
        "bound_to": None,
        "os_flavor": flavor,
        "os_version": version,
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecated": None,
        "deprecation": None,
        "deleted": None,
        "labels": {},
        "architecture": architecture,
    }


LOCATIONS: Final = _locations()
SERVER_TYPES: Final = [_server_type(number, size) for number, size in enumerate(_SIZES, 101)]
SYSTEM_IMAGES: Final = [
    _image(number, flavor, version, architecture)
    for number, (flavor, version, architecture) in enumerate(
        (
            (flavor, version, architecture)
            for flavor, version in (("debian", "12"), ("debian", "13"), ("ubuntu", "24.04"))
            for architecture in ("x86", "arm")
        ),
        1001,
    )
]
DATACENTERS: Final = [
    {
        "id": place["id"] + 10,
        "name": f"{place['name']}-dc1",
        "description": f"{place['city']} virtual DC 1",
        "location": place,
        "server_types": {
            key: [kind["id"] for kind in SERVER_TYPES if place in _places_of(kind["name"])]
            for key in ("supported", "available", "available_for_migration")
        },
    }
    for place in LOCATIONS
]


def pricing() -> dict[str, Any]:
    """Return what `GET /pricing` answers."""
    image = float(IMAGE_PRICE_PER_GB_MONTH)
    return {
        "pricing": {
            "currency": "EUR",
            "vat_rate": "19.000000",
            "image": {"price_per_gb_month": _price(image)},
            "volume": {"price_per_gb_month": _price(0.044)},
            "server_backup": {"percentage": "20.000000"},
            "server_types": [
                {"id": kind["id"], "name": kind["name"], "prices": kind["prices"]}
                for kind in SERVER_TYPES
            ],
            "primary_ips": [
                {
                    "type": "ipv4",
                    "prices": [
                        {
                            "location": place["name"],
                            "price_hourly": _price(0.0008),
                            "price_monthly": _price(0.5),
                        }
                        for place in LOCATIONS
                    ],
                }
            ],
        }
    }
