"""Networks, as the engine makes them."""

from abc import abstractmethod
from typing import ClassVar

from infra.clouds.aws.errors import unless_gone
from infra.clouds.aws.kinds import Found as Item
from infra.clouds.aws.kinds import tags_of
from infra.local_cloud.aws.provider_client import (
    AwsClient,
    remove,
    says,
    specification,
    told_tags,
)
from infra.local_cloud.provider_programs import (
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)


class Ec2Resource(Resource[AwsClient]):
    """What all of EC2's have in common.

    Attributes:
        kind: EC2's word for it.
        told: inputs that EC2 tells again.
    """

    kind: ClassVar[str]
    told: ClassVar[frozenset[str]]
    computed = frozenset({"region"})

    @abstractmethod
    def tell(self, item: Item) -> Properties:
        """Return all outputs."""

    def known(self, resource_id: str) -> Properties:
        """Return the outputs of one that must be there."""
        item = self.client.find(self.kind, resource_id)
        if item is None:
            message = f"reading {self.kind} ({resource_id}): couldn't find resource"
            raise ProviderError(message)
        return {**self.tell(item), "region": self.client.region}

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        item = self.client.find(self.kind, resource_id)
        if item is None:
            return None
        outputs = {**self.tell(item), "region": self.client.region}
        return Found(resource_id, outputs, {name: outputs.get(name) for name in self.told})

    def set_tags(self, resource_id: str, new: Properties) -> None:
        """Give it the tags that it shall have."""
        item = self.client.find(self.kind, resource_id)
        self.client.set_tags(resource_id, tags_of(item or {}), new.get("tags") or {})


class VpcResource(Ec2Resource):
    """`aws:ec2/vpc:Vpc`."""

    kind = "vpc"
    told = frozenset({"cidrBlock", "tags", "enableDnsHostnames", "enableDnsSupport"})
    replace_on = frozenset({"cidrBlock", "region"})
    computed = frozenset({"region", "enableDnsHostnames", "enableDnsSupport", "instanceTenancy"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it, and then set its attributes, each by a call of its own."""
        ec2 = self.client.ec2
        with says("creating EC2 VPC", "EC2"):
            answer = ec2.create_vpc(CidrBlock=inputs["cidrBlock"], **specification("vpc", inputs))
        found = str(answer["Vpc"]["VpcId"])
        try:
            self._set_attributes(found, inputs)
        except ProviderError as failure:
            raise PartialError(found, {"cidrBlock": inputs["cidrBlock"]}, str(failure)) from failure
        return found, self.known(found)

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags and attributes."""
        self.set_tags(resource_id, new)
        self._set_attributes(resource_id, new)
        return self.known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting EC2 VPC ({resource_id})", "EC2"):
            remove(lambda: self.client.ec2.delete_vpc(VpcId=resource_id))

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        found = str(item["VpcId"])
        with says(f"reading EC2 VPC ({found}) attributes", "EC2"):
            attributes = {
                name: self.client.ec2.describe_vpc_attribute(VpcId=found, Attribute=name)[
                    f"{name[0].upper()}{name[1:]}"
                ]["Value"]
                for name in ("enableDnsSupport", "enableDnsHostnames")
            }
        return {
            "arn": self.client.arn(f"vpc/{found}"),
            "cidrBlock": item["CidrBlock"],
            "instanceTenancy": item["InstanceTenancy"],
            "ownerId": self.client.account,
            **attributes,
            **told_tags(item),
        }

    def _set_attributes(self, found: str, inputs: Properties) -> None:
        with says(f"modifying EC2 VPC ({found})", "EC2"):
            for name, default in (("enableDnsSupport", True), ("enableDnsHostnames", False)):
                value = bool(inputs.get(name, default))
                argument = f"{name[0].upper()}{name[1:]}"
                self.client.ec2.modify_vpc_attribute(VpcId=found, **{argument: {"Value": value}})


class SubnetResource(Ec2Resource):
    """`aws:ec2/subnet:Subnet`."""

    kind = "subnet"
    told = frozenset({"vpcId", "cidrBlock", "availabilityZone", "tags"})
    replace_on = frozenset({"vpcId", "cidrBlock", "availabilityZone", "region"})
    computed = frozenset({"region", "availabilityZone"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it."""
        zone = inputs.get("availabilityZone")
        with says("creating EC2 Subnet", "EC2"):
            answer = self.client.ec2.create_subnet(
                VpcId=inputs["vpcId"],
                CidrBlock=inputs["cidrBlock"],
                **({"AvailabilityZone": zone} if zone else {}),
                **specification("subnet", inputs),
            )
        found = str(answer["Subnet"]["SubnetId"])
        return found, self.known(found)

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags."""
        self.set_tags(resource_id, new)
        return self.known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting EC2 Subnet ({resource_id})", "EC2"):
            remove(lambda: self.client.ec2.delete_subnet(SubnetId=resource_id))

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        return {
            "arn": self.client.arn(f"subnet/{item['SubnetId']}"),
            "vpcId": item["VpcId"],
            "cidrBlock": item["CidrBlock"],
            "availabilityZone": item["AvailabilityZone"],
            "mapPublicIpOnLaunch": item["MapPublicIpOnLaunch"],
            "ownerId": self.client.account,
            **told_tags(item),
        }


class InternetGatewayResource(Ec2Resource):
    """`aws:ec2/internetGateway:InternetGateway`."""

    kind = "internet-gateway"
    told = frozenset({"vpcId", "tags"})
    replace_on = frozenset({"region"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it, and then attach it."""
        with says("creating EC2 Internet Gateway", "EC2"):
            answer = self.client.ec2.create_internet_gateway(
                **specification("internet-gateway", inputs)
            )
        found = str(answer["InternetGateway"]["InternetGatewayId"])
        try:
            self._attach(found, inputs.get("vpcId"))
        except ProviderError as failure:
            raise PartialError(found, {}, str(failure)) from failure
        return found, self.known(found)

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags, and attach it where it shall be."""
        self.set_tags(resource_id, new)
        attached = self.known(resource_id).get("vpcId")
        if attached != new.get("vpcId"):
            self._detach(resource_id, attached)
            self._attach(resource_id, new.get("vpcId"))
        return self.known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Detach and remove it."""
        item = self.client.find(self.kind, resource_id)
        if item is None:
            return
        self._detach(resource_id, self.tell(item).get("vpcId"))
        with says(f"deleting EC2 Internet Gateway ({resource_id})", "EC2"):
            remove(lambda: self.client.ec2.delete_internet_gateway(InternetGatewayId=resource_id))

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        attached: Item = next(iter(item.get("Attachments") or [{}]), {})
        return {
            "arn": self.client.arn(f"internet-gateway/{item['InternetGatewayId']}"),
            "vpcId": attached.get("VpcId"),
            "ownerId": self.client.account,
            **told_tags(item),
        }

    def _attach(self, found: str, vpc_id: str | None) -> None:
        if vpc_id:
            with says(f"attaching EC2 Internet Gateway ({found}) to VPC ({vpc_id})", "EC2"):
                self.client.ec2.attach_internet_gateway(InternetGatewayId=found, VpcId=vpc_id)

    def _detach(self, found: str, vpc_id: str | None) -> None:
        if vpc_id:
            with says(f"detaching EC2 Internet Gateway ({found}) from VPC ({vpc_id})", "EC2"):
                remove(
                    lambda: self.client.ec2.detach_internet_gateway(
                        InternetGatewayId=found, VpcId=vpc_id
                    )
                )


class RouteTableResource(Ec2Resource):
    """`aws:ec2/routeTable:RouteTable`, with routes to gateways."""

    kind = "route-table"
    told = frozenset({"vpcId", "routes", "tags"})
    replace_on = frozenset({"vpcId", "region"})
    computed = frozenset({"region", "propagatingVgws"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it, and then its routes."""
        with says("creating EC2 Route Table", "EC2"):
            answer = self.client.ec2.create_route_table(
                VpcId=inputs["vpcId"], **specification("route-table", inputs)
            )
        found = str(answer["RouteTable"]["RouteTableId"])
        try:
            self._set_routes(found, [], inputs.get("routes") or [])
        except ProviderError as failure:
            raise PartialError(found, {"vpcId": inputs["vpcId"]}, str(failure)) from failure
        return found, self.known(found)

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags and routes."""
        self.set_tags(resource_id, new)
        has = self.known(resource_id)["routes"]
        self._set_routes(resource_id, has, new.get("routes") or [])
        return self.known(resource_id)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting EC2 Route Table ({resource_id})", "EC2"):
            remove(lambda: self.client.ec2.delete_route_table(RouteTableId=resource_id))

    def same(self, key: str, old: object, new: object) -> bool:
        """Compare routes as a set."""
        if key == "routes":
            return _routes(old) == _routes(new)
        return super().same(key, old, new)

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        return {
            "arn": self.client.arn(f"route-table/{item['RouteTableId']}"),
            "vpcId": item["VpcId"],
            "routes": [
                {"cidrBlock": route["DestinationCidrBlock"], "gatewayId": route["GatewayId"]}
                for route in item["Routes"]
                if route.get("GatewayId", "local") != "local"
            ],
            "ownerId": self.client.account,
            **told_tags(item),
        }

    def _set_routes(self, found: str, old: list[Properties], new: list[Properties]) -> None:
        has, wanted = _routes(old), _routes(new)
        with says(f"setting routes of EC2 Route Table ({found})", "EC2"):
            for cidr, _ in has - wanted:
                self.client.ec2.delete_route(RouteTableId=found, DestinationCidrBlock=cidr)
            for cidr, gateway in wanted - has:
                self.client.ec2.create_route(
                    RouteTableId=found, DestinationCidrBlock=cidr, GatewayId=gateway
                )


class RouteTableAssociationResource(Resource[AwsClient]):
    """`aws:ec2/routeTableAssociation:RouteTableAssociation`; imported as `SUBNET/TABLE`."""

    replace_on = frozenset({"subnetId", "gatewayId", "region"})
    computed = frozenset({"region"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it."""
        with says("creating EC2 Route Table Association", "EC2"):
            answer = self.client.ec2.associate_route_table(
                RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"]
            )
        return str(answer["AssociationId"]), self._outputs(inputs)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Look for it in the tables."""
        subnet, _, table = resource_id.partition("/")
        filters = (
            {"association.subnet-id": [subnet], "route-table-id": [table]}
            if table
            else {"association.route-table-association-id": [resource_id]}
        )
        wanted = [{"Name": name, "Values": values} for name, values in filters.items()]
        with says(f"reading EC2 Route Table Association ({resource_id})", "EC2"):
            tables = self.client.ec2.describe_route_tables(Filters=wanted)["RouteTables"]
        for association in (one for found in tables for one in found["Associations"]):
            if association.get("SubnetId") and (
                resource_id == association["RouteTableAssociationId"]
                or subnet == association["SubnetId"]
            ):
                told = {
                    "subnetId": association["SubnetId"],
                    "routeTableId": association["RouteTableId"],
                }
                return Found(association["RouteTableAssociationId"], self._outputs(told), told)
        return None

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Refuse: the real program replaces the association behind the same resource."""
        message = "This provider program does not change an association's route table."
        raise ProviderError(message)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove it."""
        with says(f"deleting EC2 Route Table Association ({resource_id})", "EC2"):
            unless_gone(self.client.ec2.disassociate_route_table, AssociationId=resource_id)

    def _outputs(self, inputs: Properties) -> Properties:
        return {**inputs, "region": self.client.region}


def _routes(routes: object) -> set[tuple[str, str]]:
    found = routes if isinstance(routes, list) else []
    return {(str(route["cidrBlock"]), str(route["gatewayId"])) for route in found}
