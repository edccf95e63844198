"""Copies of the disks of Google's servers."""

from functools import partial
from typing import Any

import pytest

from domain.cloud import SNAPSHOT, Provider, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.clouds.gcp.cloud import GcpCloud, open_cloud
from infra.local_cloud.serving import served
from tests.clouds.gcp_case import CASE
from tests.infra.clouds.copies import HeldDisks, end_of_copy

ZONE, REGION = CASE.place.name, CASE.place.region
UBUNTU = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"


def make_server(cloud: GcpCloud) -> str:
    """Have a server that is off, and return its id."""
    account = cloud._account  # noqa: SLF001 - the same client, to make things
    compute = account.compute
    network: dict[str, Any] = {"name": "net", "autoCreateSubnetworks": False}
    account.change(compute.networks().insert, body=network)
    subnetwork = {"name": "sub", "network": "global/networks/net", "ipCidrRange": "10.5.0.0/24"}
    account.change(compute.subnetworks().insert, region=REGION, body=subnetwork)
    server = {
        "name": "one",
        "machineType": f"zones/{ZONE}/machineTypes/{CASE.instance_type}",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU}}],
        "networkInterfaces": [{"subnetwork": f"regions/{REGION}/subnetworks/sub"}],
    }
    account.change(compute.instances().insert, zone=ZONE, body=server)
    server_id = f"projects/{account.project}/zones/{ZONE}/instances/one"
    cloud.power_off(server_id)
    return server_id


def test_a_copy_that_failed_is_removed_and_begun_again() -> None:
    disks, workspace_id = HeldDisks(), new_id(Prefix.WORKSPACE)
    tags: dict[str, str] = {Tag.WORKSPACE: workspace_id, Tag.RESOURCE: SNAPSHOT}
    with served(Provider.GCP, boots=disks) as url:
        cloud = open_cloud(CASE.credential(url), CASE.settings(url))
        keep = partial(cloud.snapshot, make_server(cloud), "bh-kept", tags, ZONE)
        disks.fail_once()
        assert keep() is None
        with pytest.raises(BulkheadError) as failed:
            end_of_copy(keep)
        assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert keep() is None
        kept = end_of_copy(keep)
        assert [thing.id for thing in cloud.inventory(workspace_id)] == [kept.id]
