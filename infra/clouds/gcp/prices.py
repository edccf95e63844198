"""What machine types cost, by Google's public price list, which is the same for every project.

The list knows no machine types: a type costs what its processors and its memory cost in its family
and region, as https://cloud.google.com/compute/vm-instance-pricing has it. Types that come with an
accelerator or local disks cost more than the two, and have no price here.
"""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from infra.clouds.gcp.account import GcpAccount, Json
from infra.clouds.gcp.errors import typed_errors

CURRENCY: Final = "USD"

# Compute Engine among the services that Google bills.
_SERVICE: Final = "services/6F81-5844-456A"
# Of each entry, a twentieth is needed.
_FIELDS: Final = (
    "nextPageToken,skus(description,category(resourceFamily,usageType),serviceRegions,"
    "pricingInfo(pricingExpression(usageUnit,tieredRates(unitPrice))))"
)

# The list has tens of thousands of entries, in about ten pages, and cannot be filtered. A request
# waits for so long; the next one reads on.
_READ_SECONDS: Final = 6.0
_KEPT_SECONDS: Final = 24 * 3600.0

# `N2D AMD Instance Core running in Frankfurt`, and of the oldest family of its kind
# `Compute optimized Ram running in Americas`. Custom and sole-tenant machines have other words.
_PART: Final = re.compile(
    r"(?:(?P<family>[A-Z][0-9]+[A-Z]?)(?: AMD| Arm)?(?: Predefined)? Instance"
    r"|Compute optimized(?: Instance)?) (?P<of>Core|Ram) running in [^(]+"
)
_COMPUTE_OPTIMIZED: Final = "c2"
_UNITS: Final = {"Core": "h", "Ram": "GiBy.h"}

_TYPE: Final = re.compile(r"([a-z][0-9]+[a-z]?)-(?:standard|highmem|highcpu)-[0-9]+")
# Of those that share their processors, the part of them that is billed.
_SHARED: Final = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}
_MIB_OF_A_GIB: Final = 1024

_OFF: Final = (
    "The project's Cloud Billing API (cloudbilling.googleapis.com), which tells prices, is off or"
    " refuses the service account."
)
_UNREAD: Final = "Google's price list is long, and not yet read to its end. Ask again."
_UNLISTED: Final = "Google's price list has no such type by its processors and memory alone."

# By region, family and `Core` or `Ram`: dollars for an hour of one, or of a GiB.
_Parts = Mapping[tuple[str, str, str], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """How far the list was read.

    Attributes:
        parts: that were found.
        page: the token of the next page; empty: the first; None: all are read.
        until: of the process's clock; then it is read anew.
    """

    parts: _Parts = field(default_factory=dict)
    page: str | None = ""
    until: float = 0.0


_lists: dict[str, _Read] = {}
_lock: Final = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Of one region's machine types, as far as they are known.

    Attributes:
        region: which.
        problem: why the list could not be read to its end; empty: it was.
    """

    region: str
    parts: _Parts
    problem: str = ""

    def of(self, machine_type: Json) -> tuple[float | None, str | None]:
        """Return dollars for an hour of a type, without disk, address and traffic; or why not."""
        name = str(machine_type["name"])
        family = self._family(machine_type)
        core, ram = (self.parts.get((self.region, family, part)) for part in _UNITS)
        if core is None or ram is None:
            return None, self.problem or _UNLISTED
        cpus = _SHARED.get(name, float(machine_type["guestCpus"]))
        return cpus * core + machine_type["memoryMb"] / _MIB_OF_A_GIB * ram, None

    @staticmethod
    def _family(machine_type: Json) -> str:
        """Return by which family's parts a type is billed; empty: by more than these."""
        if machine_type.get("accelerators") or machine_type.get("bundledLocalSsds"):
            return ""
        name = str(machine_type["name"])
        found = _TYPE.fullmatch(name)
        if found is None:
            return "e2" if name in _SHARED else ""
        return found[1]


def prices_in(account: GcpAccount, region: str) -> Prices:
    """Return what a region's machine types cost; a list that cannot be read is no failure."""
    where = account.billing_url
    read, problem = _kept(where), ""
    # What is kept is the same for every project: another's may have read it.
    end = time.monotonic() + _READ_SECONDS
    try:
        while read.page is not None and time.monotonic() < end:
            read = _read_on(account, read)
            _keep(where, read)
    except BulkheadError as error:
        problem = _OFF if error.reason is Reason.CREDENTIAL_REJECTED else error.message
        if error.reason is Reason.INVALID_ARGUMENT:
            # A page's token is good for a while.
            _keep(where, _Read())
    if read.page is not None:
        problem = problem or _UNREAD
    return Prices(region=region, parts=read.parts, problem=problem)


def _kept(where: str) -> _Read:
    with _lock:
        kept = _lists.get(where, _Read())
    now = time.monotonic()
    return kept if now < kept.until else _Read(until=now + _KEPT_SECONDS)


def _keep(where: str, read: _Read) -> None:
    with _lock:
        _lists[where] = read


def _read_on(account: GcpAccount, read: _Read) -> _Read:
    """Read one more page."""
    asked: dict[str, Any] = {"parent": _SERVICE, "currencyCode": CURRENCY, "fields": _FIELDS}
    if read.page:
        asked["pageToken"] = read.page
    with typed_errors():
        answer = account.call(account.billing.services().skus().list(**asked))
    parts = dict(read.parts)
    for sku in answer.get("skus", []):
        for key, dollars in _parts_of(sku):
            parts[key] = max(dollars, parts.get(key, 0.0))
    return _Read(parts=parts, page=answer.get("nextPageToken") or None, until=read.until)


def _parts_of(sku: Json) -> list[tuple[tuple[str, str, str], float]]:
    category, found = sku.get("category", {}), _PART.fullmatch(sku.get("description", ""))
    on_demand = category.get("usageType") == "OnDemand"
    if found is None or not on_demand or category.get("resourceFamily") != "Compute":
        return []
    # What is announced has no price yet.
    newest = sku.get("pricingInfo", [])[-1:]
    price: Json = newest[0]["pricingExpression"] if newest else {}
    dollars = max((_dollars(rate["unitPrice"]) for rate in price.get("tieredRates", [])), default=0)
    if price.get("usageUnit") != _UNITS[found["of"]] or not dollars:
        return []
    family = (found["family"] or _COMPUTE_OPTIMIZED).lower()
    return [((region, family, found["of"]), dollars) for region in sku.get("serviceRegions", [])]


def _dollars(money: Json) -> float:
    return int(money.get("units", 0)) + int(money.get("nanos", 0)) / 1e9
