"""From power-on to a ready node: a server that joins, and one that was made a node by hand."""

import statistics
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from infra.artifacts.manifest import describe
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.nodes import path_of
from infra.local_cloud import Image, LocalServer
from infra.tools import NODE, ensure
from tests.bench import bare_joining
from tests.bench.hosted import Hosted, hosted
from tests.bench.measure import Figures, compare, say, spread
from tests.end_to_end.servers import Place, running_place

RUNS = 5
READY_WITHIN_SECONDS = 120.0
# Of the question that both are asked; it costs the booting server processor time.
POLL_SECONDS = 0.1
LIMIT = 1.5


def measure() -> Figures:
    """Alternate the two, after one of each that fills the host's page cache."""
    bare: list[float] = []
    ours: list[float] = []
    stages: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_place(Path(folder)) as place,
        hosted(place.bulkhead, place.cluster_id) as cluster,
    ):
        place.image = with_programs(place.image)
        for run in range(RUNS + 1):
            bare.append(_bare(place, cluster, f"bare-{run}"))
            ours.append(_ours(place, cluster, f"ours-{run}", stages))
            say(f"run {run}: bare {bare[-1]:.2f} s, ours {ours[-1]:.2f} s")
    compared = compare(bare[1:], ours[1:], "s")
    return {
        "power_on_to_ready": compared,
        "within_limit": statistics.median(ours[1:]) <= LIMIT * statistics.median(bare[1:]),
        "stages_of_ours_s": {name: spread(values[1:]) for name, values in stages.items()},
    }


def with_programs(image: Image) -> Image:
    """Put the programs of a node where the platform's artifacts are installed."""
    files = {}
    for name, path in ensure(NODE).items():
        files[describe(name, "0" * 64, 0).install_path] = path
    return image.with_files(files)


def _bare(place: Place, cluster: Hosted, name: str) -> float:
    server = place.cloud.create(name, network=place.network, image=place.image)
    bare_joining.lay_out(server, cluster.layout)
    known = set(_nodes(cluster.client))
    started = time.monotonic()
    server.boot()
    node = _await_ready(cluster.client, known)
    seconds = time.monotonic() - started
    assert node["metadata"]["name"] == name
    server.remove()
    cluster.client.delete(path_of(name))
    return seconds


def _ours(place: Place, cluster: Hosted, name: str, stages: dict[str, list[float]]) -> float:
    bootstrap = place.new_bootstrap()
    known = set(_nodes(cluster.client))
    server = place.cloud.create(
        name, network=place.network, image=place.image, user_data=bootstrap["cloud_init"]
    )
    started, began = time.monotonic(), time.time()
    server.boot()
    _await_ready(cluster.client, known)
    seconds = time.monotonic() - started
    for stage, moment in _moments(server).items():
        stages.setdefault(stage, []).append(moment - began)
    place.joined(server)
    _delete(place, server)
    return seconds


def _await_ready(client: KubernetesClient, known: set[str]) -> Object:
    """Wait for a node that is not among the known, and is ready."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        for name, node in _nodes(client).items():
            if name not in known and _is_ready(node):
                return node
        assert time.monotonic() < deadline, "no new node became ready"
        time.sleep(POLL_SECONDS)


def _nodes(client: KubernetesClient) -> dict[str, Object]:
    return {node["metadata"]["name"]: node for node in client.list_all("/api/v1/nodes")}


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _moments(server: LocalServer) -> dict[str, float]:
    """Return when the server's services were asked to start, in Unix seconds."""
    units = ("bulkhead-containerd", "bulkhead-kubelet", "bulkhead-tunnel", "bulkhead-flannel")
    shown = server.run(
        f"for u in {' '.join(units)}; do"
        " systemctl show -p InactiveExitTimestampMonotonic --value $u; done;"
        " cut -d' ' -f1 /proc/uptime; date +%s.%N"
    ).output.split()
    *starts, uptime, now = map(float, shown[: len(units) + 2])
    return {
        unit.removeprefix("bulkhead-"): now - uptime + start / 1e6
        for unit, start in zip(units, starts, strict=True)
    }


def _delete(place: Place, server: LocalServer) -> None:
    machine = place.machine_of(server)
    path = f"/machines/{machine['id']}"
    etag = place.bulkhead.get(path)["etag"]
    headers = {"If-Match": etag, "Idempotency-Key": uuid4().hex}
    operation = place.bulkhead.persist("DELETE", path, headers=headers)
    place.bulkhead.wait_for_step(operation, "uninstall_server")
    # It would ask what to do within half a minute.
    server.run("systemctl start bulkhead-node.service")
    place.bulkhead.end_of(operation, READY_WITHIN_SECONDS)
    server.remove()
