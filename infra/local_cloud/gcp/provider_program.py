"""The Pulumi provider program of the local Google Cloud: `pulumi-resource-gcp`."""

from typing import Final

from infra.local_cloud.gcp.provider_client import connect
from infra.local_cloud.gcp.provider_instances import InstanceResource
from infra.local_cloud.gcp.provider_networks import (
    AccountResource,
    FirewallResource,
    NetworkResource,
    SubnetworkResource,
)
from infra.local_cloud.provider_programs import ProviderProgram, serve

PROGRAM: Final = ProviderProgram(
    name="gcp",
    connect=connect,
    resources={
        "gcp:compute/firewall:Firewall": FirewallResource,
        "gcp:compute/instance:Instance": InstanceResource,
        "gcp:compute/network:Network": NetworkResource,
        "gcp:compute/subnetwork:Subnetwork": SubnetworkResource,
        "gcp:serviceaccount/account:Account": AccountResource,
    },
)

if __name__ == "__main__":
    serve(PROGRAM)
