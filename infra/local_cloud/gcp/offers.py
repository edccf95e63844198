"""Compute Engine's methods that only tell what there is: places, sizes, the project."""

from collections.abc import Iterable
from typing import Final

from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.calls import Call, location_of, page_of
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.filters import filter_of
from infra.local_cloud.gcp.kinds import singular
from infra.local_cloud.gcp.quotas import Quotas

COLLECTIONS: Final = frozenset({"machineTypes", "zones", "regions", "projects"})


class Offers:
    """Answers the methods of `COLLECTIONS`."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def answer(self, collection: str, verb: str, call: Call) -> Json:
        """Answer a method."""
        if verb == "list":
            wanted = filter_of(call.query.get("filter"))
            bodies = [body for body in self._bodies(collection, call) if wanted(body)]
            return page_of(call, f"{singular(collection)}List", bodies)
        if verb != "get":
            raise answers.not_emulated(method=f"compute.{collection}.{verb}")
        if collection == "projects":
            return self._quotas.project_body(call.project)
        name = call.variables[singular(collection)]
        for body in self._bodies(collection, call):
            if body["name"] == name:
                return body
        path = f"projects/{call.project}/{collection}/{name}"
        raise answers.not_found(path)

    def _bodies(self, collection: str, call: Call) -> Iterable[Json]:
        match collection:
            case "machineTypes":
                zone = location_of(call).partition("/")[2]
                return catalogue.machine_type_bodies(call.project, zone)
            case "zones":
                zones = (zone for zones in catalogue.ZONES.values() for zone in zones)
                return (catalogue.zone_body(call.project, zone) for zone in zones)
            case "regions":
                return (self._region(call.project, region) for region in catalogue.ZONES)
            case _:
                raise answers.not_emulated(method="compute.projects.list")

    def _region(self, project: str, region: str) -> Json:
        return catalogue.region_body(project, region, self._quotas.of_region(project, region))
