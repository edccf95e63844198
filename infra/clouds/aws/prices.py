"""What instances cost, by AWS's price list, which is the same for every account."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from domain.errors import Reason
from infra.clouds.aws.clients import Clients
from infra.clouds.aws.errors import code_of, reason_of

CURRENCY: Final = "USD"

# The list is asked in this region for all others.
_LIST_REGION: Final = "us-east-1"
_SERVICE: Final = "AmazonEC2"
_ON_DEMAND_LINUX: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}

# A region's list has about 15 pages, and changes a few times a year.
_KEPT_SECONDS: Final = 24 * 3600.0

_lists: dict[tuple[str, str], tuple[float, Mapping[str, float]]] = {}
_lock: Final = threading.Lock()


def prices_in(clients: Clients, region: str) -> Mapping[str, float] | None:
    """Return dollars per hour by instance type, without disk, address and traffic.

    None: the key may not read the price list.
    """
    pricing = clients("pricing", _LIST_REGION)
    where = (str(pricing.meta.endpoint_url), region)
    with _lock:
        until, kept = _lists.get(where, (0.0, {}))
    if time.monotonic() < until:
        return kept
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in {**_ON_DEMAND_LINUX, "regionCode": region}.items()
    ]
    try:
        pages = pricing.get_paginator("get_products").paginate(
            ServiceCode=_SERVICE, Filters=filters
        )
        found = dict(_price(json.loads(text)) for page in pages for text in page["PriceList"])
    except ClientError as error:
        if reason_of(code_of(error)) is Reason.CREDENTIAL_REJECTED:
            return None
        raise
    with _lock:
        _lists[where] = (time.monotonic() + _KEPT_SECONDS, found)
    return found


def _price(product: Mapping[str, Any]) -> tuple[str, float]:
    """Return a product's instance type and its price."""
    dimensions = [
        dimension
        for term in product["terms"]["OnDemand"].values()
        for dimension in term["priceDimensions"].values()
    ]
    price = max(float(dimension["pricePerUnit"].get(CURRENCY, 0)) for dimension in dimensions)
    return str(product["product"]["attributes"]["instanceType"]), price
