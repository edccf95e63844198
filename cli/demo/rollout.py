"""A product on three clusters: a bad version stops at its canary, a good one reaches them all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from cli.client import ApiClient, JsonObject, segment
from cli.demo import charts
from cli.demo.cluster import DemoCluster
from cli.demo.kubernetes import Kubectl, find_kubectl
from cli.demo.local_cloud import LocalCloud
from cli.demo.simulated import SimulatedNodes
from cli.demo.stack import Stack
from cli.demo.story import Story
from cli.errors import CliError, ExitCode
from cli.output import Column
from cli.private_files import write_private
from cli.rollout_follow import follow
from cli.rollout_progress import RolloutProgress, timeline
from cli.text import clean, name_in

_PRODUCT: Final = charts.NAME
# Nobody else calls clusters so: they are deleted in the end, whoever made them.
_MORE_CLUSTERS: Final = ("demo-rollout-2", "demo-rollout-3")
_NODES: Final = 2
_PORTS_FILE: Final = "ports.json"

# Pods of the bad version ask for what no node has, and so are never placed.
_BAD: Final[Mapping[str, Any]] = {"node": "none", "greeting": "goodbye"}
_GOOD: Final[Mapping[str, Any]] = {"greeting": "good day"}

_STRATEGY: Final[JsonObject] = {
    "canary": 1,
    "waves": [{"count": 1}, {"percent": 100}],
    "bake_seconds": 5,
}
_COLUMNS: Final = (
    Column("INSTALL", "name"),
    Column("CLUSTER", "cluster"),
    Column("VERSION", "version"),
    Column("HEALTH", "health"),
)


class ProductRollout:
    """The last chapters of the demo.

    Args:
        story: what is told.
        client: the API, in the demo's workspace.
        stack: the embedded one, with its registry of charts.
    """

    def __init__(self, story: Story, client: ApiClient, stack: Stack) -> None:
        self._story = story
        self._client = client
        self._stack = stack
        self._registry = _registry_of(stack.home)
        self._versions: dict[str, str] = {}

    def run(self, region: JsonObject, first: JsonObject) -> None:
        """Go through all of it, and take away what was made for it.

        Raises:
            CliError: something did not go as it should.
        """
        self._story.chapter("A product on three clusters")
        self._story.careful(
            "Their nodes are simulated by kwok, so that pods run in name only. The registry, Helm, "
            "the API servers and what a rollout does are real."
        )
        clusters = [first, *self._more_clusters(region)]
        with ExitStack() as nodes:
            for cluster in clusters:
                nodes.enter_context(self._nodes(cluster))
            base, bad, good = self._next_versions()
            product = self._product(base)
            self._install(product, region, clusters)
            self._show_installs(clusters)
            self._stop_at_the_canary(product, bad, clusters, base)
            self._reach_all(product, good, clusters)
            self._story.heading("What was made for this goes")
            self._uninstall()
        self._remove_more_clusters()
        self._story.done(
            f"Package and product {_PRODUCT} stay, as their rollouts do; the next run publishes "
            "newer versions of them. Its pods run on simulated nodes alone, so that it is of no "
            "use on other clusters"
        )

    def _stop_at_the_canary(
        self, product: JsonObject, version: str, clusters: Sequence[JsonObject], base: str
    ) -> None:
        self._story.chapter("A bad version stops at the canary")
        self._publish(product, version, _BAD)
        seen = self._roll_out(product, version)
        if seen.rollout["state"] not in {"failed", "rolled_back"}:
            message = f"The bad version was not stopped: the rollout is {seen.rollout['state']}."
            raise CliError(message, ExitCode.FAILED)
        self._show_installs(clusters)
        self._check_versions(base)
        self._story.done("It stopped by itself, and took the canary back; no other got it")

    def _reach_all(self, product: JsonObject, version: str, clusters: Sequence[JsonObject]) -> None:
        self._story.chapter("A good version reaches every cluster")
        self._publish(product, version, _GOOD)
        seen = self._roll_out(product, version)
        if seen.rollout["state"] != "succeeded":
            message = f"The good version did not reach all: it is {seen.rollout['state']}."
            raise CliError(message, ExitCode.FAILED)
        self._show_installs(clusters)
        self._check_versions(version)
        self._story.done("Every cluster has it, wave by wave")

    def _more_clusters(self, region: JsonObject) -> list[JsonObject]:
        # They have no servers, so that no local cloud is needed to be rid of them.
        cloud = LocalCloud(self._stack.directory / "servers")
        return [
            DemoCluster(self._story, self._client, cloud, name).active(region, fresh=False)
            for name in _MORE_CLUSTERS
        ]

    @contextmanager
    def _nodes(self, cluster: JsonObject) -> Iterator[None]:
        """Have simulated nodes in a cluster."""
        directory = self._stack.directory / "rollout" / clean(cluster["name"])
        directory.mkdir(parents=True, exist_ok=True)
        answer = self._client.get(f"/clusters/{segment(cluster['id'])}/kubeconfig")
        kubeconfig = directory / "kubeconfig"
        write_private(kubeconfig, answer["kubeconfig"])
        kubectl = Kubectl(find_kubectl(self._stack.home), kubeconfig, self._story.output)
        programs = self._stack.directory / "programs"
        nodes = SimulatedNodes(self._story, kubectl, directory, programs=programs)
        with nodes.running(_NODES, quietly=True):
            yield

    def _next_versions(self) -> tuple[str, str, str]:
        """Return versions that no earlier run has published."""
        package = self._found("/packages")
        newest = -1
        if package is not None:
            for one in self._client.pages(f"/packages/{segment(package['id'])}/versions"):
                self._versions[one["id"]] = one["semver"]
                newest = max(newest, int(one["semver"].split(".")[1]))
        return f"1.{newest + 1}.0", f"1.{newest + 2}.0", f"1.{newest + 3}.0"

    def _product(self, version: str) -> JsonObject:
        """Have a product of which new installs get this version."""
        source = charts.push(self._registry, version, charts.package(version, {}))
        package = self._found("/packages")
        if package is None:
            place = {"kind": "helm", "repo_url": source, "target_revision": version}
            body: JsonObject = {"name": _PRODUCT, "sources": [place]}
            self._story.see_through(self._client, self._client.create("/packages", body), _PRODUCT)
            package = self._found("/packages")
            assert package is not None  # noqa: S101 - it was just made
            self._versions[package["latest_version_id"]] = version
        else:
            self._publish_version(package, version)
        pin = {"kind": "pinned", "version": version}
        product = self._found("/products")
        if product is None:
            body = {"name": _PRODUCT, "package_id": package["id"], "package_version_pin": pin}
            product = self._client.create("/products", body)
        else:
            path = f"/products/{segment(product['id'])}"
            if product["state"] == "archived":
                product = self._client.change(
                    "POST", f"{path}:unarchive", etag=product["etag"], body={}
                )
            body = {"package_version_pin": pin}
            product = self._client.change("PATCH", path, etag=product["etag"], body=body)
        self._story.found("Product", product, f"offers version {version}")
        return product

    def _publish(self, product: JsonObject, version: str, values: Mapping[str, Any]) -> None:
        with self._story.timed(f"version {version} is published"):
            charts.push(self._registry, version, charts.package(version, values))
            package = self._client.get(f"/packages/{segment(product['package']['id'])}")
            made = self._publish_version(package, version)
        self._story.done(f"Version {version} is published as {clean(made['ref'])}")

    def _publish_version(self, package: JsonObject, version: str) -> JsonObject:
        body: JsonObject = {"semver": version, "ref": version, "input_schema": {}}
        made = self._client.create(f"/packages/{segment(package['id'])}/versions", body)
        self._versions[made["id"]] = version
        return made

    def _install(
        self, product: JsonObject, region: JsonObject, clusters: Sequence[JsonObject]
    ) -> None:
        self._uninstall()
        for cluster in clusters:
            name = f"{_PRODUCT} on {clean(cluster['name'])}"
            body: JsonObject = {
                "product_id": product["id"],
                "region_id": region["id"],
                "cluster_id": cluster["id"],
                "labels": {"name": f"{_PRODUCT}-{clean(cluster['name'])}"},
            }
            self._story.see_through(self._client, self._client.create("/installs", body), name)

    def _roll_out(self, product: JsonObject, version: str) -> RolloutProgress:
        version_id = next(key for key, semver in self._versions.items() if semver == version)
        body: JsonObject = {
            "product_id": product["id"],
            "package_version_id": version_id,
            "strategy": _STRATEGY,
        }
        rollout = self._client.create("/rollouts", body)
        output = self._story.output
        with self._story.timed(f"rollout of {version}"):
            seen = follow(self._client, output, rollout, f"Rolling out {_PRODUCT} {version}")
        if output.shows_live_progress:
            output.note(("Timeline", "bold"))
            for line in timeline(seen, seen.events):
                output.note(f"  {line}", copied=True)
        return seen

    def _installs(self) -> list[JsonObject]:
        product = self._found("/products")
        if product is None:
            return []
        return self._client.read_list("/installs", product_id=product["id"])

    def _show_installs(self, clusters: Sequence[JsonObject]) -> None:
        names = {cluster["id"]: name_in(cluster) for cluster in clusters}
        rows = [
            {
                "name": entry["labels"].get("name"),
                "cluster": names.get(entry["cluster_id"]),
                "version": self._versions.get(entry["package_version_id"]),
                "health": entry["health"],
            }
            for entry in self._installs()
        ]
        self._story.output.note()
        rows.sort(key=lambda row: str(row["cluster"]))
        self._story.output.listing(rows, _COLUMNS, ())

    def _check_versions(self, wanted: str) -> None:
        found = {self._versions.get(entry["package_version_id"]) for entry in self._installs()}
        if found != {wanted}:
            message = f"Installs have other versions than {wanted}: {', '.join(map(clean, found))}."
            raise CliError(message, ExitCode.FAILED)

    def _uninstall(self) -> None:
        for entry in self._installs():
            name = clean(entry["labels"].get("name") or entry["id"])
            path = f"/installs/{segment(entry['id'])}"
            newest = self._client.get(path)
            operation = self._client.change("DELETE", path, etag=newest["etag"])
            self._story.see_through(self._client, operation, name)

    def _remove_more_clusters(self) -> None:
        for cluster in self._client.read_list("/clusters"):
            if cluster["name"] in _MORE_CLUSTERS:
                path = f"/clusters/{segment(cluster['id'])}"
                operation = self._client.change("DELETE", path, etag=cluster["etag"])
                self._story.see_through(self._client, operation, clean(cluster["name"]))

    def _found(self, path: str) -> JsonObject | None:
        found = [entry for entry in self._client.pages(path) if entry["name"] == _PRODUCT]
        return found[-1] if found else None


def _registry_of(home: Path) -> str:
    """Return where the embedded stack's registry of charts answers."""
    try:
        ports = json.loads((home / _PORTS_FILE).read_text(encoding="utf-8"))
        return f"127.0.0.1:{int(ports['charts'])}"
    except (OSError, ValueError, KeyError) as error:
        message = "The embedded stack has no registry of charts yet."
        raise CliError(message, next_commands=("make up",)) from error
