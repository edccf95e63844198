"""Servers of a cloud's API that really boot: made, switched off, kept, and made again."""

import pytest

from infra.local_cloud import Image, LocalCloud
from infra.local_cloud.real_boots import RealBoots

_USER_DATA = "#!/bin/sh\necho $(cat /var/lib/cloud/data/instance-id) >> /root/boots\n"


@pytest.mark.full
def test_a_server_made_of_a_snapshot_has_its_disk_and_is_another_instance(
    cloud: LocalCloud, image: Image
) -> None:
    boots = RealBoots(cloud, image)
    made = boots.create("first", user_data=_USER_DATA, network_key="boots", image="debian-12")
    server = cloud.server("first")
    assert server.address == made
    server.wait_until_booted()
    server.run("cloud-init status --wait; echo kept > /root/kept")
    boots.power_off("first")
    assert not server.is_running
    kept = boots.snapshot("first")
    boots.remove("first")

    boots.create("first", user_data=_USER_DATA, network_key="boots", image=kept)
    boots.remove_snapshot(kept)
    again = cloud.server("first")
    again.wait_until_booted()
    result = again.run("cloud-init status --wait >/dev/null; cat /root/kept /root/boots")
    lines = result.output.split()
    assert lines[0] == "kept"
    assert len(set(lines[1:])) == 2

    boots.remove("first")
    boots.remove("first")
    assert "boots" not in {network.id for network in cloud.networks()}
    assert list((cloud.directory / "snapshots").iterdir()) == []
