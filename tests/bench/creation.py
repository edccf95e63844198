"""A cluster through the API, and its four processes started by hand with certificates at hand."""

import shutil
import subprocess
import time
from contextlib import ExitStack

from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from infra.control_planes.commands import programs_of
from infra.control_planes.placement import HostPlacement
from infra.control_planes.processes import ProcessBackend
from infra.control_planes.readiness import ReadinessClient
from infra.kubernetes.objects import kept_objects
from infra.openbao.client import OpenBao
from tests.bench.measure import Figures, compare, say, spread
from tests.end_to_end.stack import Bulkhead, running_bulkhead

RUNS = 5
# The bare control planes' slot: none that the platform would give to anybody during the run.
SLOT = 99
POLL_SECONDS = 0.05


def measure() -> Figures:
    """Alternate the two, five times each."""
    bare: list[float] = []
    ours: list[float] = []
    steps: dict[str, list[float]] = {}
    with running_bulkhead() as bulkhead, ExitStack() as closing:
        openbao = OpenBao(bulkhead.stack.openbao("worker"))
        closing.callback(openbao.close)
        region = bulkhead.new_region()
        for run in range(RUNS):
            bare.append(_bare(bulkhead, openbao))
            ours.append(_ours(bulkhead, region, steps))
            say(f"run {run + 1}: bare {bare[-1]:.2f} s, ours {ours[-1]:.2f} s")
    return {
        "request_to_succeeded": compare(bare, ours, "s"),
        "steps": {name: spread(values) for name, values in steps.items()},
    }


def _ours(bulkhead: Bulkhead, region: str, steps: dict[str, list[float]]) -> float:
    started = time.monotonic()
    operation = bulkhead.create_cluster(region)
    ended = bulkhead.http.post(f"/operations/{operation['id']}:wait?timeout=60").json()
    seconds = time.monotonic() - started
    assert ended["state"] == "SUCCEEDED", ended["error"]
    for step in ended["steps"]:
        steps.setdefault(step["name"], []).append(step["duration_ms"] / 1000)
    bulkhead.delete_cluster(operation["owner_id"])
    return seconds


def _bare(bulkhead: Bulkhead, openbao: OpenBao) -> float:
    """Start the same processes without supervisor, workflow or rows, until the same readiness."""
    settings = bulkhead.stack.control_planes
    cluster = HostedControlPlane(
        workspace_id=new_id(Prefix.WORKSPACE),
        cluster_id=new_id(Prefix.CLUSTER),
        host=settings.host,
        slot=SLOT,
    )
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    ProcessBackend(settings, openbao).ensure_credentials(cluster)
    layout = HostPlacement(settings).layout_of(cluster)
    objects = kept_objects(cluster.network_profile, settings.coredns_image)
    with ExitStack() as processes, ReadinessClient(openbao, cluster, layout, objects) as client:
        # The administrator's certificate is made with the first question.
        client.what_is_missing(lambda: None)
        started = time.monotonic()
        for program in programs_of(layout):
            process = subprocess.Popen(
                program.command,
                cwd=program.directory,
                user=program.uid,
                group=program.uid,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            processes.callback(process.wait)
            processes.callback(process.kill)
        while client.what_is_missing(lambda: None) is not None:
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - started
    shutil.rmtree(layout.directory)
    openbao.remove_authorities(cluster)
    return seconds
