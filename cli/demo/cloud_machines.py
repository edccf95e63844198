"""One machine on each of three clouds, joined to the demo's cluster, and gone without a trace."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.client import ApiClient, JsonObject, segment
from cli.demo.kubernetes import Kubectl
from cli.demo.story import Story
from cli.errors import CliError, ExitCode
from cli.output import Column
from cli.preflight import instance_types, preflight, price_text
from cli.text import clean

# Each provider has it, and the platform finds it by this name.
_IMAGE: Final = "ubuntu-24.04"
_READY_SECONDS: Final = 180
_POD_SECONDS: Final = 120
_MARGIN_SECONDS: Final = 5.0
# A node with less has little room for pods beside the kubelet.
_LEAST_MEMORY_MIB: Final = 4096

_COLUMNS: Final = (
    Column("MACHINE", "name"),
    Column("CLOUD", "provider"),
    Column("PLACE", "place"),
    Column("TYPE", "instance_type"),
    Column("SERVER", "provider_id"),
    Column("STATE", "state"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cloud:
    provider: str
    title: str
    place: str

    @property
    def name(self) -> str:
        """What the machine, its compute config and its secret are called."""
        return f"demo-{self.provider}"


CLOUDS: Final = (
    _Cloud(provider="hcloud", title="Hetzner Cloud", place="fsn1"),
    _Cloud(provider="aws", title="AWS", place="eu-central-1a"),
    _Cloud(provider="gcp", title="Google Cloud", place="europe-west3-a"),
)


class CloudMachines:
    """The demo's machines in clouds.

    Args:
        story: what is told.
        client: the API, in the demo's workspace.
        cluster: the demo's cluster.
        accounts: the folder with a credential for each cloud.
    """

    def __init__(
        self, story: Story, client: ApiClient, cluster: JsonObject, accounts: Path
    ) -> None:
        self._story = story
        self._client = client
        self._cluster = cluster
        self._accounts = accounts

    def create(self, kubectl: Kubectl) -> None:
        """Make one machine on each, all at the same time, and show how each joins.

        Raises:
            CliError: one of them does not become ready.
        """
        # All are asked what they have before the first server is booted: this machine is all three.
        wanted = [(cloud, self._shape(cloud, self._config(cloud))) for cloud in CLOUDS]
        for cloud in CLOUDS:
            self._clear_earlier(cloud)
        operations = [(cloud, self._client.create("/machines", body)) for cloud, body in wanted]
        for cloud, operation in operations:
            self._story.see_through(self._client, operation, cloud.name)
        nodes = [f"node/{machine['node_name']}" for machine in self._machines().values()]
        with self._story.working("nodes in clouds are ready"):
            wait = ["wait", "--for=condition=Ready", *nodes, f"--timeout={_READY_SECONDS}s"]
            kubectl.run(wait, seconds=_READY_SECONDS + _MARGIN_SECONDS)
        self.show()
        self._story.output.note()
        kubectl.show(["get", "nodes"])

    def run_pods(self, kubectl: Kubectl, image: str) -> None:
        """Run a pod on each of their nodes, and remove it again.

        Raises:
            CliError: one does not become ready.
        """
        pods = {
            f"on-{name}": str(machine["node_name"]) for name, machine in self._machines().items()
        }
        items = [_pod(name, node, image) for name, node in sorted(pods.items())]
        manifest = {"apiVersion": "v1", "kind": "List", "items": items}
        kubectl.show(["apply", "--server-side", "-f", "-"], json.dumps(manifest))
        names = [f"pod/{name}" for name in sorted(pods)]
        with self._story.working("a pod is ready on each cloud"):
            wait = ["wait", "--for=condition=Ready", *names, f"--timeout={_POD_SECONDS}s"]
            kubectl.run(wait, seconds=_POD_SECONDS + _MARGIN_SECONDS)
        columns = "POD:.metadata.name,STATUS:.status.phase,NODE:.spec.nodeName"
        kubectl.show(["get", *names, "-o", f"custom-columns={columns}"])
        kubectl.run(["delete", *names, "--now"], seconds=_POD_SECONDS)

    def remove(self) -> None:
        """Delete them all, and see that their accounts have nothing left.

        Raises:
            CliError: one does not go, or something is left.
        """
        machines = self._machines()
        operations = [(name, self._delete(machine)) for name, machine in machines.items()]
        for name, operation in operations:
            self._story.see_through(self._client, operation, name)
        for name, machine in machines.items():
            self._show_nothing_left(name, machine)
        self._story.output.note()
        leaks = self._client.read_list("/leaks")
        if leaks:
            left = ", ".join(f"{clean(one['kind'])} {clean(one['name'])}" for one in leaks)
            message = f"The accounts still have {left}."
            raise CliError(message, ExitCode.FAILED, next_commands=("bulkhead leaks",))
        self._story.done("bulkhead leaks: 0 left in any account")

    def show(self) -> None:
        """List them as the API tells them."""
        providers = {cloud.name: cloud.title for cloud in CLOUDS}
        rows = [
            {**machine, "provider": providers[name]}
            for name, machine in sorted(self._machines().items())
        ]
        self._story.output.note()
        self._story.output.listing(rows, _COLUMNS, ("The cluster has no machines in clouds.",))

    def _config(self, cloud: _Cloud) -> JsonObject:
        """Return the compute config of a cloud, with the newest credential that there is."""
        secret = self._secret(cloud)
        found = self._named("/compute_configs", cloud.name)
        if found is None:
            body = {
                "name": cloud.name,
                "provider": cloud.provider,
                "provider_config": {"region": cloud.place, "image": _IMAGE},
                "credential_scope": {"kind": "byom", "secret_id": secret["id"]},
            }
            found = self._client.create("/compute_configs", body)
        self._story.done(f"{cloud.title}: compute config {cloud.name}, place {cloud.place}")
        return found

    def _secret(self, cloud: _Cloud) -> JsonObject:
        file = self._accounts / cloud.provider
        try:
            value = file.read_text(encoding="utf-8")
        except OSError as error:
            message = f"Cannot read the account of the local cloud in {file}: {error.strerror}."
            raise CliError(message, next_commands=("make clouds", "make status")) from error
        found = self._named("/secrets", cloud.name)
        if found is None:
            kind = f"cloud_provider/{cloud.provider}"
            body = {"name": cloud.name, "kind": kind, "value": value}
            return self._client.create("/secrets", body)
        path = f"/secrets/{segment(found['id'])}"
        held = self._client.change("POST", f"{path}/versions/current:access", body={})
        if held.get("value") != value:
            # The local clouds began anew, and their accounts with them.
            version = self._client.create(f"{path}/versions", {"value": value})
            aliases = {"version_aliases": {"current": version["version_number"]}}
            newest = self._client.get(path)
            self._client.change("PATCH", path, etag=newest["etag"], body=aliases)
        return found

    def _shape(self, cloud: _Cloud, config: JsonObject) -> JsonObject:
        """Return what a machine is asked for with, after the provider said that it has it."""
        with self._story.working(f"{cloud.title}: sizes and prices"):
            instance_type = self._smallest_type(cloud, config)
            wanted: JsonObject = {"instance_type": instance_type, "count": 1}
            choice = preflight(self._client, config, wanted)["choices"][0]
        price = price_text(choice.get("price_per_hour"), choice.get("currency"))
        self._story.done(
            f"{cloud.title}: one {instance_type} in {choice['place']}, {price} an hour"
        )
        return {
            "name": cloud.name,
            "cluster_id": self._cluster["id"],
            "compute_config_id": config["id"],
            "instance_type": instance_type,
        }

    def _smallest_type(self, cloud: _Cloud, config: JsonObject) -> str:
        fitting = [
            each
            for each in instance_types(self._client, config)
            if each["available"]
            and each["memory_mib"] >= _LEAST_MEMORY_MIB
            and each["architecture"] == "amd64"
        ]
        if not fitting:
            message = f"{cloud.title} offers no machine of {_LEAST_MEMORY_MIB} MiB."
            raise CliError(message, ExitCode.UNAVAILABLE)
        smallest = min(
            fitting,
            key=lambda each: (
                each["memory_mib"],
                float("inf") if each["price_per_hour"] is None else each["price_per_hour"],
                each["name"],
            ),
        )
        return str(smallest["name"])

    def _clear_earlier(self, cloud: _Cloud) -> None:
        """Delete what an earlier run left half-way or did not come to delete."""
        machine = self._machines().get(cloud.name)
        if machine is None:
            return
        self._story.output.note(f"{cloud.name} is left from an earlier run; it goes first.")
        self._story.see_through(self._client, self._delete(machine), cloud.name)

    def _delete(self, machine: JsonObject) -> JsonObject:
        path = f"/machines/{segment(machine['id'])}"
        owner: dict[str, object] = {"owner_type": "machine", "owner_id": machine["id"]}
        running = next(
            (each for each in self._client.pages("/operations", **owner) if not each["done"]), None
        )
        if running is not None and running["metadata"]["type"] == "machine.delete":
            return running
        return self._client.change("DELETE", path, etag=self._client.get(path)["etag"])

    def _show_nothing_left(self, name: str, machine: JsonObject) -> None:
        inventory = self._client.get(f"/machines/{segment(machine['id'])}/inventory")
        if inventory["left"] or inventory["resources"]:
            message = f"The account of {name} still has something of it."
            look = f"bulkhead machines inventory {machine['id']}"
            raise CliError(message, ExitCode.FAILED, next_commands=(look,))
        self._story.done(f"{name}: its account was asked, and has nothing of it (0 left)")

    def _machines(self) -> dict[str, JsonObject]:
        names = {cloud.name for cloud in CLOUDS}
        entries = self._client.pages("/machines", cluster_id=self._cluster["id"])
        return {str(each["name"]): each for each in entries if each.get("name") in names}

    def _named(self, path: str, name: str) -> JsonObject | None:
        found = [each for each in self._client.pages(path) if each["name"] == name]
        return found[-1] if found else None


def _pod(name: str, node: str, image: str) -> JsonObject:
    container = {"name": "pod", "image": image, "args": ["pause"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
