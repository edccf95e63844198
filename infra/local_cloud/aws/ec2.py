"""moto's EC2 with what it leaves out: time, client tokens, capacity, quotas, and things in use."""

import base64
import gzip
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.availability_zones_and_regions import Region
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociation
from moto.ec2.models.instance_types import InstanceType
from moto.ec2.models.instances import Instance, InstanceState, Reservation
from moto.ec2.models.vpcs import VPC
from moto.ec2.utils import random_ami_id

from infra.local_cloud.aws.accounts import ACCOUNTS, MOTO_LOCK, REGIONS, Account
from infra.local_cloud.aws.catalogue import keep_a_part
from infra.local_cloud.aws.images import DiskImage, ubuntu_images
from infra.local_cloud.aws.starts import refuse_start
from infra.local_cloud.boots import Boots

# Small and large ones, of three processors, and one with an accelerator.
_FAMILIES: Final = frozenset(
    {"c5", "c6g", "c6i", "g4dn", "m5", "m6g", "m6i", "r5", "t3", "t3a", "t4g"}
)
_IN_USE: Final = "DependencyViolation"
_NO_TOKEN: Final = "ABCDE"  # noqa: S105 - what moto says when a request has none

_STATES: Final = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


class UnkindEc2(EC2Backend):
    """One account's EC2 in one region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._answered: dict[str, tuple[str, Reservation]] = {}
        self._replayed: set[str] = set()
        # What is done to one server is done one after another.
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        for image in ubuntu_images(self):
            self.amis[image.id] = image

    @property
    def account(self) -> Account:
        """Whose it is."""
        return ACCOUNTS[self.account_id]

    def describe_regions(self, region_names: list[str] | None = None) -> list[Region]:
        """Return the regions that the account uses."""
        return [
            region for region in super().describe_regions(region_names) if region.name in REGIONS
        ]

    def describe_instance_types(
        self, instance_types: list[str] | None = None, filters: Any = None
    ) -> list[InstanceType]:
        """Return what the region has of some families; all 1400 would take seconds."""
        found = super().describe_instance_types(instance_types, filters)
        offered = {offer["InstanceType"] for offer in self.describe_instance_type_offerings()}
        return [one for one in found if one["InstanceType"] in offered]

    def describe_instance_type_offerings(
        self, location_type: str | None = None, filters: dict[str, Any] | None = None
    ) -> list[Any]:
        """Return where some families are offered."""
        found = super().describe_instance_type_offerings(location_type, filters)
        return [one for one in found if one["InstanceType"].partition(".")[0] in _FAMILIES]

    def create_vpc(self, *args: Any, **kwargs: Any) -> VPC:
        """Make a VPC, as long as the quota lasts."""
        account = ACCOUNTS.get(self.account_id)
        if account is not None and len(self.vpcs) >= account.vpcs:
            code = "VpcLimitExceeded"
            raise EC2ClientError(code, "The maximum number of VPCs has been reached.")
        return super().create_vpc(*args, **kwargs)

    def run_instances(
        self,
        image_id: str,
        count: int,
        user_data: Base64EncodedString | None,
        security_group_names: list[str],
        **kwargs: Any,
    ) -> Reservation:
        """Begin to start instances; the same client token again begins nothing."""
        token = kwargs["client_token"]
        asked = repr(
            (image_id, count, str(user_data), security_group_names, sorted(kwargs.items()))
        )
        if token != _NO_TOKEN and token in self._answered:
            before, reservation = self._answered[token]
            if before != asked:
                code = "IdempotentParameterMismatch"
                raise EC2ClientError(
                    code, f"Arguments on this idempotent request are inconsistent with {token}."
                )
            self._replayed = {instance.id for instance in reservation.instances}
            return reservation
        refuse_start(self, self.account, image_id, count, user_data, kwargs)
        reservation = super().run_instances(
            image_id, count, user_data, security_group_names, **kwargs
        )
        for instance in reservation.instances:
            for interface in instance.nics.values():
                interface.delete_on_termination = True
            # moto leaves out what a request gives to the interface alone.
            instance.security_groups = list(instance.nics[0].group_set)
            for disk in instance.block_device_mapping.values():
                attachment: Any = self.volumes[disk.volume_id].attachment
                attachment.delete_on_termination = disk.delete_on_termination
            self._boot(instance, user_data)
        self._answered[token] = (asked, reservation)
        return reservation

    def associate_iam_instance_profile(
        self,
        instance_id: str,
        iam_instance_profile_name: str | None = None,
        iam_instance_profile_arn: str | None = None,
    ) -> IamInstanceProfileAssociation:
        """Give an instance its profile; one that a repeated request is about has it already."""
        if instance_id in self._replayed:
            self._replayed.discard(instance_id)
            return self.iam_instance_profile_associations[instance_id]
        return super().associate_iam_instance_profile(
            instance_id, iam_instance_profile_name, iam_instance_profile_arn
        )

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Begin to start what is stopped."""
        changed = []
        for instance in self._in_state(instance_ids, {"stopped", "pending", "running"}, "started"):
            changed.append((instance, _copy(instance)))
            if instance.state == "stopped":
                _enter(instance, "pending")
                self._later(instance, self._boots.power_on, instance.start)
        return changed

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Begin to stop what runs."""
        changed = []
        states = {"running", "stopping", "stopped"}
        for instance in self._in_state(instance_ids, states, "stopped"):
            changed.append((instance, _copy(instance)))
            if instance.state == "running":
                _enter(instance, "stopping")
                self._later(instance, self._boots.power_off, instance.stop)
        return changed

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Begin to end instances, whatever they do."""
        changed = []
        for instance in self.get_multi_instances_by_id(instance_ids):
            if instance.disable_api_termination is True:
                code = "OperationNotPermitted"
                raise EC2ClientError(
                    code,
                    f"The instance '{instance.id}' may not be terminated. Modify its "
                    "'disableApiTermination' instance attribute and try again.",
                )
            changed.append((instance, _copy(instance)))
            if instance.state not in {"shutting-down", "terminated"}:
                _enter(instance, "shutting-down")
                self._later(instance, self._boots.remove, instance.terminate)
        return changed

    def create_image(
        self,
        instance_id: str,
        name: str,
        description: str,
        tag_specifications: list[dict[str, Any]],
    ) -> Ami:
        """Begin to make an image of an instance's disk."""
        taken = [ami for ami in self.amis.values() if ami.name == name and self._owns(ami)]
        if taken:
            code = "InvalidAMIName.Duplicate"
            raise EC2ClientError(code, f"AMI name {name} is already in use by AMI {taken[0].id}")
        instance = self._in_state([instance_id], {"running", "stopped"}, "imaged")[0]
        image_id = random_ami_id()
        image = DiskImage(
            self,
            image_id,
            instance=instance,
            name=name,
            description=description,
            root_device_type="ebs",
            snapshot_description=f"Created by CreateImage({instance_id}) for {image_id}",
        )
        self.amis[image.id] = image
        for spec in tag_specifications:
            tags = {tag["Key"]: tag["Value"] for tag in spec["Tags"]}
            {"image": image, "snapshot": image.ebs_snapshot}[spec["ResourceType"]].add_tags(tags)
        for root in list(instance.block_device_mapping.values())[:1]:
            volume = self.volumes[root.volume_id]
            image.ebs_snapshot.volume.size = volume.size
            image.ebs_snapshot.encrypted = volume.encrypted
        image.state = "pending"
        threading.Thread(target=self._keep_disk, args=(instance, image), daemon=True).start()
        return image

    def deregister_image(self, ami_id: str) -> None:
        """Forget an image; its snapshot stays."""
        super().deregister_image(ami_id)
        self._forget_disk(ami_id)

    def delete_subnet(self, subnet_id: str) -> Any:
        """Remove a subnet that nothing is in."""
        if any(interface.subnet.id == subnet_id for interface in self.enis.values()):
            raise EC2ClientError(
                _IN_USE, f"The subnet '{subnet_id}' has dependencies and cannot be deleted."
            )
        return super().delete_subnet(subnet_id)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Remove a group that nothing is in."""
        used = {group.id for interface in self.enis.values() for group in interface.group_set}
        if group_id in used:
            raise EC2ClientError(_IN_USE, f"resource {group_id} has a dependent object")
        super().delete_security_group(name, group_id)

    def delete_vpc(self, vpc_id: str) -> VPC:
        """Remove a VPC that nothing is in."""
        gateways = [
            gateway
            for gateway in self.internet_gateways.values()
            if gateway.vpc is not None and gateway.vpc.id == vpc_id
        ]
        groups = [group for group in self.groups[vpc_id].values() if group.name != "default"]
        if gateways or groups:
            raise EC2ClientError(
                _IN_USE, f"The vpc '{vpc_id}' has dependencies and cannot be deleted."
            )
        return super().delete_vpc(vpc_id)

    def detach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> None:
        """Take a gateway from a VPC in which nothing has a public address any more."""
        mapped = [
            interface
            for interface in self.enis.values()
            if interface.subnet.vpc_id == vpc_id and interface.public_ip
        ]
        if mapped:
            raise EC2ClientError(
                _IN_USE,
                f"Network {vpc_id} has some mapped public address(es). Please unmap those public "
                "address(es) before detaching the gateway.",
            )
        super().detach_internet_gateway(internet_gateway_id, vpc_id)

    @property
    def _boots(self) -> Boots:
        return self.account.options.boots

    def _owns(self, image: Ami) -> bool:
        return image.owner_id == self.account_id

    def _in_state(
        self, instance_ids: list[str], states: Iterable[str], verb: str
    ) -> list[Instance]:
        instances = self.get_multi_instances_by_id(instance_ids)
        for instance in instances:
            if instance.state not in states:
                code = "IncorrectInstanceState"
                raise EC2ClientError(
                    code,
                    f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
                )
        return instances

    def _boot(self, instance: Instance, user_data: Base64EncodedString | None) -> None:
        _enter(instance, "pending")
        network = str(instance.vpc_id)
        image = self.account.boot_images.get(instance.image_id, instance.image_id)

        def boot(key: str) -> None:
            address = self._boots.create(
                key, user_data=_text(user_data), network_key=network, image=image
            )
            if address is not None:
                with MOTO_LOCK:
                    instance.nics[0].private_ip_address = str(address)

        self._later(instance, boot, lambda: _enter(instance, "running"))

    def _later(
        self,
        instance: Instance,
        work: Callable[[str], None],
        finish: Callable[[], object],
    ) -> None:
        """Do something to a server, and let the API tell it when AWS would.

        What cannot be done ends the server, as at AWS: `Server.InternalError`.
        """
        state = instance.state

        def take_turn() -> None:
            began = time.monotonic()
            with self._turns[instance.id]:
                failed = False
                try:
                    work(instance.id)
                except Exception as error:  # noqa: BLE001 - whatever it is, the server is not
                    failed = True
                    print(f"{instance.id}: {error}")
                left = self.account.options.action_seconds - (time.monotonic() - began)
                time.sleep(max(0.0, left))
                with MOTO_LOCK:
                    if instance.state == state:
                        (instance.terminate if failed else finish)()

        threading.Thread(target=take_turn, daemon=True).start()

    def _keep_disk(self, instance: Instance, image: Ami) -> None:
        with self._turns[instance.id]:
            time.sleep(self.account.options.action_seconds)
            runs = instance.state == "running"
            state = "available"
            try:
                if runs:
                    self._boots.power_off(instance.id)
                self.account.boot_images[image.id] = self._boots.snapshot(instance.id)
                if runs:
                    self._boots.power_on(instance.id)
            except Exception as error:  # noqa: BLE001 - whatever it is, there is no image
                print(f"{image.id}: {error}")
                state = "failed"
            with MOTO_LOCK:
                image.state = state
                is_there = image.id in self.amis
            if not is_there:
                # It was deregistered meanwhile.
                self._forget_disk(image.id)

    def _forget_disk(self, image_id: str) -> None:
        kept = self.account.boot_images.pop(image_id, None)
        if kept is not None:
            self._boots.remove_snapshot(kept)


def _copy(instance: Instance) -> InstanceState:
    return InstanceState(instance.state, instance.state_code)


def _enter(instance: Instance, state: str) -> None:
    instance._state = InstanceState(state, _STATES[state])  # noqa: SLF001 - moto has no setter


def _text(user_data: Base64EncodedString | None) -> str:
    """Return user data as cloud-init reads it."""
    data = b"" if user_data is None else base64.b64decode(str(user_data))
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


def install() -> None:
    """Let moto make its EC2 from this."""
    keep_a_part()
    ec2_backends.backend = UnkindEc2
