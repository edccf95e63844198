"""What people are told of a cluster."""

import pytest

from domain.cluster import ClusterState, wait_for_api


@pytest.mark.parametrize(
    ("state", "helps"),
    [
        (ClusterState.SUSPENDED, "`bulkhead clusters resume clu_1`"),
        (ClusterState.DELETING, "`bulkhead operations cancel op_1`"),
        (None, "`bulkhead operations cancel op_1`"),
        (ClusterState.PROVISIONING, "wait until it is active"),
    ],
)
def test_who_waits_for_a_cluster_is_told_what_helps(state: ClusterState | None, helps: str) -> None:
    assert helps in wait_for_api(state, "clu_1", "op_1")


def test_a_cluster_that_is_active_needs_nobody() -> None:
    awaited = wait_for_api(ClusterState.ACTIVE, "clu_1", "op_1")
    assert awaited == "the API server of the cluster to answer"
