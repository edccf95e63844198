"""One request, as the methods see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.identities import Token

# The most that one answer of Compute Engine lists.
LARGEST_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose sender is known and may make it.

    Attributes:
        variables: of the path, by their names in the description.
        query: what stands after `?`.
        body: checked against its description.
        caller: who sends it.
    """

    variables: Mapping[str, str]
    query: Mapping[str, str]
    body: Json
    caller: Token

    @property
    def project(self) -> str:
        """The id of the project that it is about."""
        return self.variables["project"]

    def page(self, items: list[Any], size_name: str, largest: int) -> tuple[list[Any], Json]:
        """Return the asked page of a list, and the token of the next one if there is one."""
        try:
            begin = int(self.query.get("pageToken", "0"))
            size = min(int(self.query.get(size_name, largest)), largest) or largest
        except ValueError:
            raise answers.invalid(message="Invalid value for field 'pageToken'.") from None
        end = begin + size
        return items[begin:end], {"nextPageToken": str(end)} if end < len(items) else {}


def location_of(call: Call) -> str:
    """Return where a call acts: `global`, or such as `zones/europe-west3-a`.

    Raises:
        ApiError: there is no such place.
    """
    zone, region = call.variables.get("zone"), call.variables.get("region")
    if zone is not None:
        if catalogue.region_of(zone) is None:
            raise answers.invalid_field(field="zone", value=zone, why="Unknown zone.")
        return f"zones/{zone}"
    if region is not None:
        if region not in catalogue.ZONES:
            raise answers.invalid_field(field="region", value=region, why="Unknown region.")
        return f"regions/{region}"
    return "global"


def page_of(call: Call, kind: str, bodies: list[Json]) -> Json:
    """Return the asked page of a list as Compute Engine answers it."""
    page, token = call.page(bodies, "maxResults", LARGEST_PAGE)
    answer: Json = {"kind": f"compute#{kind[0].lower()}{kind[1:]}", "items": page}
    return answer | {"id": f"projects/{call.project}"} | token
