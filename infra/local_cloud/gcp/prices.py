"""A part of Google's public price list: dollars, roughly, for processors and memory by the hour.

Each entry has neighbours that the real list has as well and that nobody here shall take for it:
spot, commitments, custom and sole-tenant machines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from infra.local_cloud.gcp import answers
from infra.local_cloud.gcp.calls import Call
from infra.local_cloud.gcp.discovery import Json

# Compute Engine; other services are not emulated.
_SERVICE: Final = "6F81-5844-456A"

# The real list has 5,000 on each of about ten pages.
_LARGEST_PAGE: Final = 20

_REGIONS: Final = {"europe-west1": "Belgium", "europe-west3": "Frankfurt", "us-central1": "Iowa"}


@dataclass(frozen=True, slots=True)
class _Family:
    core: float
    ram: float
    regions: tuple[str, ...] = tuple(_REGIONS)


_FAMILIES: Final = {
    "E2 Instance": _Family(0.02812, 0.00377),
    "N2 Instance": _Family(0.04073, 0.00546),
    "C4A Arm Instance": _Family(0.0306, 0.00347, ("us-central1",)),
}

_UNKNOWN: Final = _Family(0.0, 0.0)

# What is said around a family's name, how it is used, and for which part of the price.
_NEIGHBOURS: Final = (
    ("{} {} running in {}", "OnDemand", 1.0),
    ("Spot Preemptible {} {} running in {}", "Preemptible", 0.3),
    ("Commitment v1: {} {} in {} for 1 Year", "Commit1Yr", 0.63),
)
_ODD_ONES: Final = {"Custom Instance": 1.05, "Sole Tenancy Instance": 1.1}


class Prices:
    """Answers the one method of the Cloud Billing API that is emulated."""

    def __init__(self) -> None:
        self._skus = list(_skus())

    def answer(self, call: Call) -> Json:
        """Return a page of the list."""
        service = call.variables["servicesId"]
        if service != _SERVICE:
            raise answers.not_found(path=f"services/{service}")
        page, token = call.page(self._skus, "pageSize", _LARGEST_PAGE)
        # The last page has an empty token, and not none.
        return {"skus": page, "nextPageToken": ""} | token


def _skus() -> Iterator[Json]:
    announced, _ = _pair(_NEIGHBOURS[0][0], "E9 Instance", "us-central1", "OnDemand", _UNKNOWN, 1.0)
    yield announced | {"pricingInfo": []}
    for name, family in _FAMILIES.items():
        for region in family.regions:
            for form, usage, share in _NEIGHBOURS:
                yield from _pair(form, name, region, usage, family, share)
            for odd, share in _ODD_ONES.items():
                other = name.replace("Instance", odd)
                yield from _pair(_NEIGHBOURS[0][0], other, region, "OnDemand", family, share)


def _pair(
    form: str, name: str, region: str, usage: str, family: _Family, share: float
) -> Iterator[Json]:
    for part, group, unit, dollars in (
        ("Core", "CPU", "h", family.core),
        ("Ram", "RAM", "GiBy.h", family.ram),
    ):
        description = form.format(name, part, _REGIONS[region])
        digits = sha256(description.encode()).hexdigest().upper()
        sku_id = f"{digits[:4]}-{digits[4:8]}-{digits[8:12]}"
        yield {
            "name": f"services/{_SERVICE}/skus/{sku_id}",
            "skuId": sku_id,
            "description": description,
            "category": {
                "serviceDisplayName": "Compute Engine",
                "resourceFamily": "Compute",
                "resourceGroup": group,
                "usageType": usage,
            },
            "serviceRegions": [region],
            "pricingInfo": [_pricing(unit, round(dollars * share * 1e9))],
            "serviceProviderName": "Google",
            "geoTaxonomy": {"type": "REGIONAL", "regions": [region]},
        }


def _pricing(unit: str, nanos: int) -> Json:
    price = {"currencyCode": "USD", "units": "0", "nanos": nanos}
    return {
        "effectiveTime": "2026-11-27T00:00:00Z",
        "summary": "",
        "pricingExpression": {
            "usageUnit": unit,
            "displayQuantity": 1,
            "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}],
        },
        "currencyConversionRate": 1,
    }
