"""The Pulumi provider program of the local AWS: `pulumi-resource-aws`."""

from typing import Final

from infra.local_cloud.aws.provider_access import (
    InstanceProfileResource,
    RoleResource,
    SecurityGroupResource,
)
from infra.local_cloud.aws.provider_client import AwsClient, connect, says
from infra.local_cloud.aws.provider_networks import (
    InternetGatewayResource,
    RouteTableAssociationResource,
    RouteTableResource,
    SubnetResource,
    VpcResource,
)
from infra.local_cloud.aws.provider_servers import InstanceResource
from infra.local_cloud.provider_programs import Properties, ProviderProgram, serve


def _get_parameter(client: AwsClient, arguments: Properties) -> Properties:
    name = arguments["name"]
    with says(f"reading SSM Parameter ({name})", "SSM"):
        found = client.ssm.get_parameter(Name=name)["Parameter"]
    return {
        "id": name,
        "name": name,
        "region": client.region,
        "type": found["Type"],
        "value": found["Value"],
        "insecureValue": found["Value"],
    }


PROGRAM: Final = ProviderProgram(
    name="aws",
    connect=connect,
    resources={
        "aws:ec2/instance:Instance": InstanceResource,
        "aws:ec2/internetGateway:InternetGateway": InternetGatewayResource,
        "aws:ec2/routeTable:RouteTable": RouteTableResource,
        "aws:ec2/routeTableAssociation:RouteTableAssociation": RouteTableAssociationResource,
        "aws:ec2/securityGroup:SecurityGroup": SecurityGroupResource,
        "aws:ec2/subnet:Subnet": SubnetResource,
        "aws:ec2/vpc:Vpc": VpcResource,
        "aws:iam/instanceProfile:InstanceProfile": InstanceProfileResource,
        "aws:iam/role:Role": RoleResource,
    },
    functions={"aws:ssm/getParameter:getParameter": _get_parameter},
)

if __name__ == "__main__":
    serve(PROGRAM)
