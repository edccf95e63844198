"""A vendor whose charts are in the stack's own registry, and who offers one product."""

from collections.abc import Mapping

from tests.charts import Registry, archive
from tests.end_to_end.stack import COMPLETES_WITHIN_SECONDS, Body, Bulkhead

_NAME = "web"


class Vendor:
    """Publishes versions of one chart; the first one is what the product gives.

    Args:
        bulkhead: whose registry and API are used.
        charts: the packed chart of each version, the first version first.
    """

    def __init__(self, bulkhead: Bulkhead, charts: Mapping[str, bytes]) -> None:
        self._bulkhead = bulkhead
        registry = Registry(bulkhead.stack.charts.host_and_port)
        for content in charts.values():
            registry.push(content)
        first = next(iter(charts))
        source = {
            "kind": "helm",
            "repo_url": registry.url_of(_NAME),
            "target_revision": first,
        }
        operation = bulkhead.persist("POST", "/packages", json={"name": _NAME, "sources": [source]})
        self.package_id = str(self.succeeded(operation)["owner_id"])
        self.versions = {version: self._version(version) for version in charts}
        offer = {
            "name": _NAME,
            "package_id": self.package_id,
            "package_version_pin": {"kind": "pinned", "version": first},
        }
        self.product_id = str(bulkhead.persist("POST", "/products", json=offer)["id"])

    def install(self, region_id: str, cluster_id: str) -> Body:
        """Ask for an install of the product on a cluster, and return the operation."""
        body = {"product_id": self.product_id, "region_id": region_id, "cluster_id": cluster_id}
        return self._bulkhead.persist("POST", "/installs", json=body)

    def succeeded(self, operation: Body, within_seconds: float = COMPLETES_WITHIN_SECONDS) -> Body:
        """Return an operation that has done what was asked for.

        Raises:
            AssertionError: it failed.
        """
        found = self._bulkhead.end_of(operation, within_seconds)
        assert found["state"] == "SUCCEEDED", found["error"]
        return found

    def _version(self, version: str) -> str:
        path = f"/packages/{self.package_id}/versions"
        for found in self._bulkhead.get(path)["data"]:
            if found["semver"] == version:
                return str(found["id"])
        body = {"semver": version, "ref": version, "input_schema": {}}
        return str(self._bulkhead.persist("POST", path, json=body)["id"])


def web(version: str, greeting: str) -> bytes:
    """Return the chart of the web server, packed."""
    return archive(_NAME, version, values={"greeting": greeting})
