"""Twenty clusters at once: how long until all are active, and what they weigh."""

import time
from concurrent.futures import ThreadPoolExecutor

from domain.cluster import HostedControlPlane
from infra.control_planes.processes import ProcessBackend
from infra.openbao.client import OpenBao
from tests.bench.measure import Figures, say, spread
from tests.end_to_end.stack import Body, Bulkhead, running_bulkhead

CLUSTERS = 20
ALL_ACTIVE_WITHIN_SECONDS = 900.0
MIB = 1024 * 1024


def measure() -> Figures:
    """Ask for all of them in the same moment."""
    with running_bulkhead() as bulkhead:
        region = bulkhead.new_region()
        started = time.monotonic()
        with ThreadPoolExecutor(CLUSTERS) as pool:
            answers = list(pool.map(lambda _: _ask(bulkhead, region), range(CLUSTERS)))
        accepted = [answer for answer in answers if "id" in answer]
        refused = [
            answer["errors"][0]["metadata"]["reason"] for answer in answers if "errors" in answer
        ]
        ended = [bulkhead.end_of(each, ALL_ACTIVE_WITHIN_SECONDS) for each in accepted]
        seconds = time.monotonic() - started
        say(f"{len(ended)} ended after {seconds:.0f} s, {len(refused)} refused")
        states = [each["state"] for each in ended]
        figures: Figures = {
            "asked": CLUSTERS,
            "active": states.count("SUCCEEDED"),
            "refused": refused,
            "failed": [each["error"] for each in ended if each["state"] != "SUCCEEDED"],
            "all_ended_after_s": round(seconds, 1),
            "each_s": spread([each["duration_ms"] / 1000 for each in ended]),
            "memory_mib": _memory(bulkhead, ended),
        }
        for each in ended:
            if each["state"] == "SUCCEEDED":
                bulkhead.delete_cluster(each["owner_id"])
        return figures


def _ask(bulkhead: Bulkhead, region: str) -> Body:
    answer: Body = bulkhead.http.post(
        "/clusters", json={"name": "fleet", "region_id": region}
    ).json()
    return answer


def _memory(bulkhead: Bulkhead, ended: list[Body]) -> Figures:
    openbao = OpenBao(bulkhead.stack.openbao("worker"))
    backend = ProcessBackend(bulkhead.stack.control_planes, openbao)
    by_component: dict[str, list[float]] = {}
    with bulkhead.stack.administrator("bulkhead") as administrator:
        slots = administrator.execute(
            "SELECT cluster_id, workspace_id, host, slot FROM control_plane_slots"
        ).fetchall()
    for cluster_id, workspace_id, host, slot in slots:
        description = backend.describe(
            HostedControlPlane(
                workspace_id=workspace_id, cluster_id=cluster_id, host=host, slot=slot
            )
        )
        for status in description.components:
            by_component.setdefault(status.component, []).append(status.memory_bytes / MIB)
    openbao.close()
    totals = [sum(each) for each in zip(*by_component.values(), strict=True)]
    assert len(totals) == len([each for each in ended if each["state"] == "SUCCEEDED"])
    return {
        **{name: spread(values) for name, values in by_component.items()},
        "control_plane": spread(totals),
    }
