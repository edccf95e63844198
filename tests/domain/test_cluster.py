"""What people are told of a cluster."""

import pytest

from domain.cluster import ClusterState, can_be_endpoint, wait_for_api


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


@pytest.mark.parametrize(
    ("host", "can"),
    [("10.1.2.3", True), ("2001:db8::1", True), ("127.0.0.1", False), ("api.example", False)],
)
def test_pods_reach_an_api_server_only_at_an_address_that_is_not_loopback(
    host: str,
    can: bool,  # noqa: FBT001 - the parameter of a test
) -> None:
    assert can_be_endpoint(host) is can
