"""One account of AWS, seen through one access key."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from botocore.exceptions import ClientError

from domain.cloud import (
    SNAPSHOT_PART,
    Allowance,
    CloudResource,
    InstanceType,
    Place,
    Provider,
    Snapshot,
    Tag,
)
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.aws.clients import Client, Clients
from infra.clouds.aws.errors import as_error, code_of, reason_of, typed_errors
from infra.clouds.aws.images import UBUNTU, ubuntu_parameter
from infra.clouds.aws.inventory import inventory, remove
from infra.clouds.aws.kinds import KINDS, Found
from infra.clouds.aws.permissions import check_permissions
from infra.clouds.aws.prices import CURRENCY, prices_in
from infra.clouds.aws.snapshots import has_failed, snapshot_in, without_attached
from infra.clouds.cloud import no_image, no_snapshot
from infra.providers.access_keys import access_key_of
from infra.providers.signing import AccessKey
from infra.settings import ProviderSettings

_ZONE: Final = re.compile(r"([a-z]{2}(?:-[a-z]+)+-[0-9]{1,2})[a-z]")

# "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", counted in virtual CPUs.
_STANDARD_CPUS: Final = ("ec2", "L-1216C47A")
_STANDARD_TYPE: Final = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)[0-9]")
# The smallest of most families; AWS counts its limit in CPUs alone.
_CPUS_OF_A_MACHINE: Final = 2

# Of images, in AWS's words.
_ARCHITECTURES: Final = {"amd64": "x86_64"}

_LIST_CLOSED: Final = "The access key may not read AWS's price list: pricing:GetProducts."
_UNLISTED: Final = "AWS's price list has no such type in the region."

_AT_ONCE: Final = 8
_ENDED: Final = frozenset({"shutting-down", "terminated"})
_POWER_WAITS: Final = {"Delay": 2, "MaxAttempts": 300}


class AwsCloud:
    """An account.

    Args:
        key: who asks.
        settings: where AWS is.
    """

    def __init__(self, key: AccessKey, settings: ProviderSettings) -> None:
        self._key = key
        self._settings = settings
        self._clients = Clients(key, settings)
        self.calls = self._clients.calls
        self._known_regions: list[str] = []

    @property
    def provider(self) -> Provider:
        """AWS."""
        return Provider.AWS

    def environment(self) -> Mapping[str, str]:
        """Return what AWS's SDKs read, and close what they would read of this host."""
        found = {
            "AWS_ACCESS_KEY_ID": self._key.key_id,
            "AWS_SECRET_ACCESS_KEY": self._key.secret,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self._settings.aws_endpoint_url is not None:
            found["AWS_ENDPOINT_URL"] = self._settings.aws_endpoint_url
        if self._settings.ca_file is not None:
            found["AWS_CA_BUNDLE"] = str(self._settings.ca_file)
        return found

    def account_id(self) -> str:
        """Return the account's number; every key may ask for its own."""
        with typed_errors():
            return str(self._clients("sts").get_caller_identity()["Account"])

    def check_credential(self) -> None:
        """Prove that the key is accepted, and that its user may do what the programs need."""
        with typed_errors():
            check_permissions(self._clients)

    def place(self, name: str) -> Place:
        """Return a zone, with its region."""
        match = _ZONE.fullmatch(name)
        with typed_errors():
            if match is None or match[1] not in self._regions():
                raise _no_such_place(name)
            answer = self._ec2(match[1]).describe_availability_zones(
                Filters=[{"Name": "zone-name", "Values": [name]}]
            )
        zones = answer["AvailabilityZones"]
        if not zones or zones[0].get("State", "available") != "available":
            raise _no_such_place(name)
        return Place(name=name, region=match[1])

    def instance_types(self, place: str) -> Sequence[InstanceType]:
        """Return every type of the region; available: offered in the zone.

        Prices are without disk, address and traffic, and told to those who may read the list.
        """
        zone = self.place(place)
        ec2 = self._ec2(zone.region)
        with typed_errors():
            pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone",
                Filters=[{"Name": "location", "Values": [place]}],
            )
            offered = {
                str(offer["InstanceType"])
                for page in pages
                for offer in page["InstanceTypeOfferings"]
            }
            pages = ec2.get_paginator("describe_instance_types").paginate()
            types = [found for page in pages for found in page["InstanceTypes"]]
            prices = prices_in(self._clients, zone.region)
        found = [
            _instance_type(
                item,
                available=item["InstanceType"] in offered,
                prices=prices,
            )
            for item in types
        ]
        return sorted(found, key=lambda item: (item.cpu, item.memory_mib, item.name))

    def allowance(self, place: str) -> Allowance:
        """Return what is left of the quota of CPUs; nothing, when the key may not read quotas."""
        region = self.place(place).region
        service, quota = _STANDARD_CPUS
        try:
            answer = self._clients("service-quotas", region).get_service_quota(
                ServiceCode=service, QuotaCode=quota
            )
        except ClientError as error:
            if reason_of(code_of(error)) in {Reason.CREDENTIAL_REJECTED, Reason.NOT_FOUND}:
                return Allowance()
            raise as_error(error) from None
        with typed_errors():
            running = KINDS["instance"].find(
                self._ec2(region), {"instance-state-name": ["pending", "running", "stopping"]}
            )
        used = sum(_cpus(item) for item in running if _is_standard(item))
        left = max(0, int(answer["Quota"]["Value"]) - used)
        return Allowance(machines_left=left // _CPUS_OF_A_MACHINE, cpus_left=left)

    def check_image(self, image: str, place: str, architecture: str) -> None:
        """See that the place's region has an image, by its id or as Canonical publishes it."""
        region, ubuntu = self.place(place).region, UBUNTU.fullmatch(image)
        try:
            with typed_errors():
                if ubuntu is not None:
                    name = ubuntu_parameter(ubuntu[1], architecture)
                    self._clients("ssm", region).get_parameter(Name=name)
                    return
                found = self._ec2(region).describe_images(ImageIds=[image])["Images"]
        except BulkheadError as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.INVALID_ARGUMENT}:
                raise
            found = []
        kind = _ARCHITECTURES.get(architecture, architecture)
        if not any(one.get("Architecture") == kind for one in found):
            raise no_image(image, architecture)

    def inventory(self, workspace_id: str, stack_id: str | None = None) -> Sequence[CloudResource]:
        """Return what is tagged in every region that the account uses, and in IAM."""
        with typed_errors():
            return inventory(self._clients, self._regions(), workspace_id, stack_id)

    def remove(self, resource: CloudResource) -> None:
        """Remove a resource and wait until it is gone."""
        with typed_errors():
            remove(self._clients, resource)

    def power_off(self, server_id: str) -> None:
        """Stop an instance and wait until it is stopped."""
        with typed_errors():
            region, _ = self._server(server_id)
            ec2 = self._ec2(region)
            ec2.stop_instances(InstanceIds=[server_id])
            ec2.get_waiter("instance_stopped").wait(
                InstanceIds=[server_id], WaiterConfig=_POWER_WAITS
            )

    def power_on(self, server_id: str) -> None:
        """Start an instance and wait until it runs; one that runs, or is gone, is left alone."""
        with typed_errors():
            found = self._found(server_id)
            state = "terminated" if found is None else str(found[1]["State"]["Name"])
            if found is None or state in _ENDED:
                return
            ec2 = self._ec2(found[0])
            if state == "stopping":
                ec2.get_waiter("instance_stopped").wait(
                    InstanceIds=[server_id], WaiterConfig=_POWER_WAITS
                )
            ec2.start_instances(InstanceIds=[server_id])
            ec2.get_waiter("instance_running").wait(
                InstanceIds=[server_id], WaiterConfig=_POWER_WAITS
            )

    def snapshot(
        self,
        server_id: str,
        name: str,
        tags: Mapping[str, str],
        place: str,
        *,
        begun: bool = False,
    ) -> Snapshot | None:
        """Have an image of an instance made; AWS keeps it in the instance's region."""
        with typed_errors():
            region = self.place(place).region
            ec2 = self._ec2(region)
            image = next(iter(KINDS["image"].find(ec2, {"name": [name]})), None)
            failed = image is not None and has_failed(image, tags)
            if begun and (image is None or failed):
                raise no_snapshot(name, self.provider)
            if image is not None and failed:
                # It has the name, which the next one needs.
                KINDS["image"].remove(ec2, str(image["ImageId"]))
            if image is None or failed:
                self._make_image(server_id, name, tags, region)
                return None
            return snapshot_in(image)

    def describe(self, server_id: str) -> Mapping[str, object] | None:
        """Return an instance as EC2 tells it, which is without user data."""
        with typed_errors():
            found = self._found(server_id)
        return None if found is None else _plain(found[1])

    def _make_image(self, server_id: str, name: str, tags: Mapping[str, str], region: str) -> None:
        home, server = self._server(server_id)
        if home != region:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"AWS keeps a snapshot where its server is, in {home}, and not in {region}.",
            )
        # The image has a snapshot inside, which outlives it.
        inside = {**tags, Tag.RESOURCE: SNAPSHOT_PART}
        try:
            self._ec2(region).create_image(
                InstanceId=server_id,
                Name=name,
                BlockDeviceMappings=without_attached(server),
                TagSpecifications=[
                    {
                        "ResourceType": kind,
                        "Tags": [{"Key": key, "Value": value} for key, value in of_kind.items()],
                    }
                    for kind, of_kind in (("image", tags), ("snapshot", inside))
                ],
            )
        except ClientError as error:
            # Made just now, and not in EC2's lists yet.
            if code_of(error) != "InvalidAMIName.Duplicate":
                raise

    def _ec2(self, region: str) -> Client:
        return self._clients("ec2", region)

    def _regions(self) -> list[str]:
        """Return the regions that the account uses; others have nothing of anybody's."""
        if not self._known_regions:
            answer = self._clients("ec2").describe_regions()
            self._known_regions = sorted(item["RegionName"] for item in answer["Regions"])
        return self._known_regions

    def _found(self, server_id: str) -> tuple[str, Found] | None:
        """Look for an instance, whose id does not tell its region, in all of them."""

        def look(region: str) -> list[Found]:
            return KINDS["instance"].find(self._ec2(region), {"instance-id": [server_id]})

        regions = self._regions()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(look, regions))
        return next(
            ((region, found[0]) for region, found in zip(regions, answers, strict=True) if found),
            None,
        )

    def _server(self, server_id: str) -> tuple[str, Found]:
        found = self._found(server_id)
        if found is None:
            raise BulkheadError(Reason.NOT_FOUND, f"AWS knows no instance {server_id}.")
        return found


def open_cloud(value: SecretValue, settings: ProviderSettings) -> AwsCloud:
    """Return the account of an access key: JSON with `access_key_id` and `secret_access_key`."""
    key = access_key_of(value)
    if key is None:
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            "The value is no access key of AWS. Store JSON with `access_key_id` and "
            "`secret_access_key`.",
        )
    return AwsCloud(key, settings)


def _no_such_place(name: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"AWS has no zone {name[:64]!r} that this account uses; name one such as `eu-central-1a`.",
    )


def _architecture(supported: Sequence[str]) -> str:
    """Return the newest of an instance type's architectures, by the name that others have too."""
    newest = str(supported[-1])
    return "amd64" if newest == "x86_64" else newest


def _instance_type(
    item: Found, *, available: bool, prices: Mapping[str, float] | None
) -> InstanceType:
    price = None if prices is None else prices.get(str(item["InstanceType"]))
    unknown = _LIST_CLOSED if prices is None else _UNLISTED
    return InstanceType(
        name=str(item["InstanceType"]),
        architecture=_architecture(item["ProcessorInfo"]["SupportedArchitectures"]),
        cpu=float(item["VCpuInfo"]["DefaultVCpus"]),
        memory_mib=int(item["MemoryInfo"]["SizeInMiB"]),
        # Most have none of their own: their disks are volumes of any size.
        storage_mib=int(item.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)) * 1024,
        available=available,
        price_per_hour=price,
        currency=None if price is None else CURRENCY,
        price_unknown=unknown if price is None else None,
    )


def _is_standard(item: Found) -> bool:
    spot = item.get("InstanceLifecycle") == "spot"
    return not spot and _STANDARD_TYPE.match(str(item["InstanceType"])) is not None


def _cpus(item: Found) -> int:
    options = item.get("CpuOptions", {})
    return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 2))


def _plain(item: Mapping[object, object] | Found) -> dict[str, object]:
    return {str(key): _as_json(value) for key, value in item.items()}


def _as_json(value: object) -> object:
    match value:
        case {**members}:
            return _plain(members)
        case list():
            return [_as_json(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)
