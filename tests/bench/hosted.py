"""One cluster of a running stack as its host sees it: files, ports and an administrator."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from domain.cluster import HostedControlPlane
from infra.control_planes.layout import Layout
from infra.control_planes.placement import HostPlacement
from infra.kubernetes.client import KubernetesClient, administrator_of
from infra.openbao.client import OpenBao
from tests.end_to_end.stack import Bulkhead


@dataclass(frozen=True, slots=True)
class Hosted:
    """A cluster, where it is, and a client that may do everything in it."""

    cluster: HostedControlPlane
    layout: Layout
    client: KubernetesClient


@contextmanager
def hosted(bulkhead: Bulkhead, cluster_id: str) -> Iterator[Hosted]:
    """Find a cluster of a stack on this host."""
    with bulkhead.stack.administrator("bulkhead") as administrator:
        found = administrator.execute(
            "SELECT workspace_id, host, slot FROM control_plane_slots WHERE cluster_id = %s",
            (cluster_id,),
        ).fetchone()
    assert found is not None
    workspace_id, host, slot = found
    cluster = HostedControlPlane(
        workspace_id=workspace_id, cluster_id=cluster_id, host=host, slot=slot
    )
    layout = HostPlacement(bulkhead.stack.control_planes).layout_of(cluster)
    openbao = OpenBao(bulkhead.stack.openbao("worker"))
    try:
        with administrator_of(openbao, cluster, layout.local_api_url) as client:
            yield Hosted(cluster, layout, client)
    finally:
        openbao.close()
