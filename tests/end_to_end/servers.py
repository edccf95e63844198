"""A stack that servers can reach, a cluster in it, and servers that really boot and join it."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from infra.local_cloud import Image, LocalCloud, LocalServer, PrivateNetwork
from tests.end_to_end.stack import Body, Bulkhead, running_bulkhead
from tests.local_servers import image_or_skip, temporary_cloud

# Promised for a server with nothing on it, on a machine that does other work as well.
JOINS_WITHIN_SECONDS = 240.0
_API_ANSWERS_WITHIN = 120.0

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], seconds: float, what: str) -> Found:
    """Look each half second until there is something.

    Raises:
        AssertionError: there was nothing in time; `what` says of what.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"{what} not within {seconds:.0f} s"
        time.sleep(0.5)


class Place:
    """One customer's cluster, and the private network that the customer's servers are in."""

    def __init__(
        self, bulkhead: Bulkhead, cloud: LocalCloud, image: Image, cluster_id: str, directory: Path
    ) -> None:
        self.bulkhead = bulkhead
        self.cloud = cloud
        self.image = image
        self.cluster_id = cluster_id
        self.directory = directory
        self.kubeconfig = bulkhead.kubeconfig(cluster_id, directory / "kubeconfig")
        self.network: PrivateNetwork = cloud.network("place")

    def new_bootstrap(self, **body: int) -> Body:
        """Ask for the right to join the cluster."""
        return self.bulkhead.persist(
            "POST", f"/clusters/{self.cluster_id}/worker_bootstraps", json=body
        )

    def switch_on(
        self, name: str, bootstrap: Body | None = None, network: PrivateNetwork | None = None
    ) -> LocalServer:
        """Boot a server that joins by cloud-init, and return while it does."""
        wanted = bootstrap or self.new_bootstrap()
        server = self.cloud.create(
            name,
            network=network or self.network,
            image=self.image,
            user_data=wanted["cloud_init"],
        )
        server.boot()
        return server

    def machine_of(self, server: LocalServer) -> Body:
        """Return the machine that a server became."""

        def look() -> Body | None:
            return next((one for one in self.machines() if one["hostname"] == server.name), None)

        return until(look, JOINS_WITHIN_SECONDS, f"a machine of {server.name}")

    def joined(self, server: LocalServer) -> Body:
        """Return a server's machine when it has joined."""
        machine = self.machine_of(server)
        ended = self.bulkhead.end_of(self.create_of(machine), JOINS_WITHIN_SECONDS)
        assert ended["state"] == "SUCCEEDED", ended
        return self.bulkhead.get(f"/machines/{machine['id']}")

    def joined_once(self, *servers: LocalServer) -> list[Body]:
        """Return the machines of servers when they are ready: each once, and no other.

        Raises:
            AssertionError: there is another machine or node, or a firewall let something in.
        """
        machines = [self.joined(server) for server in servers]
        names = [each["hostname"] for each in self.machines()]
        assert sorted(names) == sorted(server.name for server in servers)
        assert self.nodes() == {each["node_name"]: "True" for each in machines}
        for server in servers:
            assert server.firewall_counters().accepted == 0
        return machines

    def nodes(self) -> dict[str, str]:
        """Return of each node whether it is ready: True, False or Unknown."""
        ready = "{.status.conditions[?(@.type=='Ready')].status}"
        columns = f"jsonpath={{range .items[*]}}{{.metadata.name}} {ready}{{'\\n'}}{{end}}"
        lines = self.kubectl("get", "nodes", "-o", columns).splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def await_health(self, machine: Body, wanted: str, seconds: float) -> None:
        """Wait until a machine is said to be healthy, unreachable, ..."""

        def look() -> bool | None:
            found = self.bulkhead.get(f"/machines/{machine['id']}")
            return found["health"]["state"] == wanted or None

        until(look, seconds, f"{machine['hostname']} to be {wanted}")

    def create_of(self, machine: Body) -> Body:
        """Return the operation by which a machine joins."""
        found = self.bulkhead.get(f"/operations?owner_type=machine&owner_id={machine['id']}")
        return next(each for each in found["data"] if each["metadata"]["type"] == "machine.create")

    def machines(self) -> list[Body]:
        """Return all machines of the cluster."""
        found = self.bulkhead.get(f"/machines?cluster_id={self.cluster_id}&limit=100")["data"]
        assert isinstance(found, list)
        return found

    def ask(self, method: str, machine_id: str, verb: str = "") -> Body:
        """Ask for a change of a machine, and return the operation."""
        etag = self.bulkhead.get(f"/machines/{machine_id}")["etag"]
        headers = {"If-Match": etag, "Idempotency-Key": uuid4().hex}
        return self.bulkhead.persist(method, f"/machines/{machine_id}{verb}", headers=headers)

    def await_cluster_api(self) -> None:
        """Wait until the cluster lets its owner in: a restarted API server reads its roles last."""

        def look() -> bool | None:
            answer = self.bulkhead.kubectl(self.kubeconfig, "get", "nodes", "-o", "name")
            return answer.returncode == 0 or None

        until(look, _API_ANSWERS_WITHIN, "the cluster's API to answer")

    def clear(self) -> None:
        """Have no server and no machine any more, whatever state they are in."""
        self.await_cluster_api()
        for node in self.kubectl("get", "nodes", "-o", "name").split():
            self.kubectl("cordon", node)
        for server in self.cloud.servers():
            if server.is_running:
                server.run("bulkhead-node uninstall")
            server.remove()
        self.kubectl("delete", "deployments,csr", "--all")
        # No kubelet is there to end them.
        self.kubectl("delete", "pods", "--all", "--all-namespaces", "--force", "--grace-period=0")
        for operation in [self._deletion_of(machine) for machine in self.machines()]:
            ended = self.bulkhead.end_of(operation, JOINS_WITHIN_SECONDS)
            assert ended["state"] == "SUCCEEDED", ended["error"]

    def _deletion_of(self, machine: Body) -> Body:
        if machine["state"] == "DELETING":
            return self.bulkhead.get(f"/operations/{machine['active_operation_id']}")
        return self.ask("DELETE", machine["id"])

    def apply(self, *manifests: Body) -> None:
        """Apply manifests to the cluster."""
        file = self.directory / f"{uuid4().hex}.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        self.kubectl("apply", "-f", str(file))

    @property
    def demo_image(self) -> str:
        """Kubernetes' test image, which the platform's own registry has."""
        images = self.bulkhead.stack.images
        assert images is not None
        return images.demo

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = self.bulkhead.kubectl(self.kubeconfig, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def running_place(directory: Path) -> Iterator[Place]:
    """Bring everything up; at the end nothing is left of stack, cluster or servers."""
    image = image_or_skip()
    with temporary_cloud() as cloud, running_bulkhead(node_address="local") as bulkhead:
        created = bulkhead.end_of(bulkhead.create_cluster())
        assert created["state"] == "SUCCEEDED", created["error"]
        yield Place(bulkhead, cloud, image, created["response"]["cluster_id"], directory)
