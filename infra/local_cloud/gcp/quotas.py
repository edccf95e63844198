"""How much a project may have, and has."""

from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.calls import Call, location_of
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.identities import Identities
from infra.local_cloud.gcp.kinds import KINDS, LINK_BASE, Kind, Scope, values_of
from infra.local_cloud.gcp.store import Resource, Store


class Quotas:
    """The quotas of all projects."""

    def __init__(self, store: Store, identities: Identities) -> None:
        self._store = store
        self._identities = identities

    def check(self, kind: Kind, call: Call) -> None:
        """Raise `ApiError` 403 when there may not be one more of the kind."""
        project = self._identities.project(call.project)
        if kind.quota is None:
            return
        there = self._store.of_kind(project.id, kind.collection)
        if kind.scope is Scope.GLOBAL or kind.quota in project.quotas:
            limit, where = project.quotas[kind.quota], "globally"
        else:
            place = location_of(call).partition("/")[2]
            region = catalogue.region_of(place) or place
            there = [one for one in there if region_of_resource(one) == region]
            limit, where = project.region_quotas[kind.quota], f"in region {region}"
        if len(there) >= limit:
            raise answers.quota_exceeded(kind.quota, limit, where)

    def check_instance(self, project: str, zone: str, body: Json) -> None:
        """Raise `ApiError` 403 when a region may not have what one more instance takes."""
        region = catalogue.region_of(zone) or ""
        limits = self._identities.project(project).region_quotas
        used = self._usage(project, region)
        addresses = sum(len(nic["accessConfigs"]) for nic in body["networkInterfaces"])
        wanted = {"CPUS": _cpus_of(body["machineType"]), "IN_USE_ADDRESSES": addresses}
        for metric, more in wanted.items():
            if used[metric] + more > limits[metric]:
                raise answers.quota_exceeded(metric, limits[metric], f"in region {region}")

    def of_region(self, project: str, region: str) -> list[Json]:
        """Return a region's quotas as they are answered."""
        limits, used = self._identities.project(project).region_quotas, self._usage(project, region)
        return [
            {"metric": metric, "limit": float(limit), "usage": float(used[metric])}
            for metric, limit in limits.items()
        ]

    def project_body(self, project: str) -> Json:
        """Return a project as Compute Engine answers it."""
        found = self._identities.project(project)
        counts = {
            kind.quota: len(self._store.of_kind(project, kind.collection))
            for kind in KINDS.values()
        }
        return {
            "kind": "compute#project",
            "id": str(found.number),
            "name": project,
            "defaultServiceAccount": f"{found.number}-compute@developer.gserviceaccount.com",
            "quotas": [
                {"metric": metric, "limit": float(limit), "usage": float(counts.get(metric, 0))}
                for metric, limit in found.quotas.items()
            ],
            "selfLink": f"{LINK_BASE}projects/{project}",
        }

    def _usage(self, project: str, region: str) -> dict[str, int]:
        used = dict.fromkeys(catalogue.REGION_QUOTAS, 0)
        for one in self._store.resources.values():
            if one.project != project or region_of_resource(one) != region:
                continue
            match one.kind.collection:
                case "instances":
                    used["INSTANCES"] += 1
                    used["IN_USE_ADDRESSES"] += len(list(values_of(one.body, {"natIP"})))
                    if one.body["status"] != "TERMINATED":
                        used["CPUS"] += _cpus_of(one.body["machineType"])
                case "disks":
                    slow = one.body["type"].endswith("pd-standard")
                    used["DISKS_TOTAL_GB" if slow else "SSD_TOTAL_GB"] += int(one.body["sizeGb"])
                case "addresses":
                    used["STATIC_ADDRESSES"] += 1
        return used


def region_of_resource(resource: Resource) -> str | None:
    """Return the region in which a resource is; None: it is global."""
    place = resource.location.partition("/")[2]
    return catalogue.region_of(place) or place or None


def _cpus_of(machine_type: str) -> int:
    *_, zone, _, name = machine_type.split("/")
    sizes = catalogue.machine_type_bodies("-", zone)
    return next((int(body["guestCpus"]) for body in sizes if body["name"] == name), 0)
