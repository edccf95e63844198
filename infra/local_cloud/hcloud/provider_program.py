"""The Pulumi provider program of the local Hetzner cloud: `pulumi-resource-hcloud`."""

from typing import Final

from infra.local_cloud.hcloud.provider_client import connect
from infra.local_cloud.hcloud.provider_networks import (
    FirewallResource,
    NetworkResource,
    PlacementGroupResource,
    SubnetResource,
)
from infra.local_cloud.hcloud.provider_servers import ServerResource
from infra.local_cloud.provider_programs import ProviderProgram, serve

PROGRAM: Final = ProviderProgram(
    name="hcloud",
    connect=connect,
    resources={
        "hcloud:index/firewall:Firewall": FirewallResource,
        "hcloud:index/network:Network": NetworkResource,
        "hcloud:index/networkSubnet:NetworkSubnet": SubnetResource,
        "hcloud:index/placementGroup:PlacementGroup": PlacementGroupResource,
        "hcloud:index/server:Server": ServerResource,
    },
)

if __name__ == "__main__":
    serve(PROGRAM)
