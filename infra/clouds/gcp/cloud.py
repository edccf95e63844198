"""One project of Google Cloud, seen through one service account's key."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from googleapiclient.errors import HttpError

from domain.cloud import Allowance, CloudResource, InstanceType, Place, Provider, Snapshot
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.cloud import no_image, no_snapshot
from infra.clouds.gcp.account import GcpAccount, Json
from infra.clouds.gcp.errors import missing_permissions, reason_in, typed_errors
from infra.clouds.gcp.inventory import inventory, path_in, remover
from infra.clouds.gcp.names import image_path
from infra.clouds.gcp.permissions import AT_ONCE, PERMISSIONS
from infra.clouds.gcp.prices import CURRENCY, Prices, prices_in
from infra.settings import ProviderSettings

_ZONE: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")
_SERVER: Final = re.compile(r"projects/[^/]+/zones/([^/]+)/instances/([^/]+)")
_IMAGE: Final = re.compile(
    r"(?:https://[^/]+/compute/v1/)?projects/(?P<project>[^/]+)/global/images/"
    r"(?P<family>family/)?(?P<name>[^/]+)"
)
# Of images, in Google's words.
_ARCHITECTURES: Final = {"amd64": "X86_64", "arm64": "ARM64"}
_GONE: Final = 404

# The price list of images for Europe and the United States, dollars for a GiB in a month.
_IMAGE_DOLLARS: Final = 0.05
_GIB: Final = 1 << 30

# The smallest machine that a node needs has two; Compute Engine counts processors and instances.
_CPUS_OF_A_MACHINE: Final = 2
# The network interfaces of a machine: one, with one public address.
_MACHINE_QUOTAS: Final = {"INSTANCES": 1, "IN_USE_ADDRESSES": 1, "CPUS": _CPUS_OF_A_MACHINE}

# An operation of somebody else's on the same thing: a server's deletion takes a minute or two.
_READY_WITHIN_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 1.0


class GcpCloud:
    """A project.

    Args:
        value: the key file of a service account, which also names the project.
        settings: where Google is.
    """

    def __init__(self, value: SecretValue, settings: ProviderSettings) -> None:
        self._account = GcpAccount(value, settings)
        self.calls = self._account.calls

    @property
    def provider(self) -> Provider:
        """Google Cloud."""
        return Provider.GCP

    def environment(self) -> Mapping[str, str]:
        """Return what Pulumi's provider reads: a token of an hour, and not the key."""
        return self._account.environment()

    def account_id(self) -> str:
        """Return the project's id, which is never used twice."""
        return self._account.project

    def check_credential(self) -> None:
        """Ask which of the needed permissions the account has on its project."""
        held: set[str] = set()
        with typed_errors():
            for begin in range(0, len(PERMISSIONS), AT_ONCE):
                body = {"permissions": PERMISSIONS[begin : begin + AT_ONCE]}
                answer = self._account.call(
                    self._account.resource_manager.projects().testIamPermissions(
                        resource=self._account.project, body=body
                    )
                )
                held |= set(answer.get("permissions", []))
        missing = [one for one in PERMISSIONS if one not in held]
        if missing:
            raise missing_permissions(missing)

    def place(self, name: str) -> Place:
        """Return a zone."""
        try:
            with typed_errors():
                zone = self._zone(name)
        except BulkheadError as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.INVALID_ARGUMENT}:
                raise
            zone = None
        if zone is None:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "Google Cloud has no such zone. A machine is in a zone, such as europe-west3-a.",
            )
        return Place(name=zone["name"], region=zone["region"].rpartition("/")[2])

    def instance_types(self, place: str) -> Sequence[InstanceType]:
        """Return a zone's machine types.

        Prices are without disk, address and traffic.
        """
        region = self.place(place).region
        with typed_errors():
            pages = self._account.pages(
                self._account.compute.machineTypes(), project=self._account.project, zone=place
            )
        prices = prices_in(self._account, region)
        return [_instance_type(body, prices) for page in pages for body in page.get("items", [])]

    def allowance(self, place: str) -> Allowance:
        """Return what the quotas of a zone's region leave."""
        region = self.place(place).region
        with typed_errors():
            found = self._account.call(
                self._account.compute.regions().get(project=self._account.project, region=region)
            )
        left = {
            quota["metric"]: int(quota["limit"] - quota["usage"])
            for quota in found.get("quotas", [])
        }
        machines = [
            max(0, left[metric]) // each
            for metric, each in _MACHINE_QUOTAS.items()
            if metric in left
        ]
        return Allowance(machines_left=min(machines, default=None), cpus_left=left.get("CPUS"))

    def check_image(self, image: str, place: str, architecture: str) -> None:  # noqa: ARG002
        """See that there is an image, by its path or as Canonical publishes it."""
        found = _IMAGE.fullmatch(image_path(image, architecture))
        if found is None:
            raise no_image(image, architecture)
        images = self._account.compute.images()
        if found["family"]:
            request = images.getFromFamily(project=found["project"], family=found["name"])
        else:
            request = images.get(project=found["project"], image=found["name"])
        try:
            with typed_errors():
                there = self._account.call(request)
        except BulkheadError as error:
            # Images that an account may not see are none of its.
            if error.reason not in {Reason.NOT_FOUND, Reason.INVALID_ARGUMENT}:
                raise
            raise no_image(image, architecture) from None
        # Old images say nothing of it, and are for x86.
        if there.get("architecture", "X86_64") != _ARCHITECTURES.get(architecture, architecture):
            raise no_image(image, architecture)

    def inventory(self, workspace_id: str, stack_id: str | None = None) -> Sequence[CloudResource]:
        """Return what is labelled, and what is named and described, as the workspace's."""
        with typed_errors():
            return inventory(self._account, workspace_id, stack_id)

    def remove(self, resource: CloudResource) -> None:
        """Remove a resource and wait until it is gone."""
        ask = remover(self._account, resource)
        until = time.monotonic() + _READY_WITHIN_SECONDS
        with typed_errors():
            while _is_busy(ask, or_fail=time.monotonic() > until):
                time.sleep(_LOOK_SECONDS)

    def power_off(self, server_id: str) -> None:
        """Stop an instance and wait until it is stopped."""
        server = _server(server_id)
        with typed_errors():
            self._account.change(self._account.compute.instances().stop, **server)

    def power_on(self, server_id: str) -> None:
        """Start an instance and wait until it runs; one that runs, or is gone, is left alone."""
        server = _server(server_id)
        with typed_errors():
            try:
                self._account.change(self._account.compute.instances().start, **server)
            except HttpError as error:
                if error.resp.status == _GONE:
                    return
                raise

    def snapshot(
        self,
        server_id: str,
        name: str,
        tags: Mapping[str, str],
        place: str,
        *,
        begun: bool = False,
    ) -> Snapshot | None:
        """Have an image made of a stopped instance's root disk, kept in the place's region."""
        server, region = _server(server_id), self.place(place).region
        with typed_errors():
            image = self._image(name)
            has_failed = image is not None and _has_failed(image, tags)
            if begun and (image is None or has_failed):
                raise no_snapshot(name, self.provider)
            if has_failed:
                # It has the name, which the next one needs.
                self._account.change(self._account.compute.images().delete, image=name)
            if image is None or has_failed:
                instance = self._account.call(
                    self._account.compute.instances().get(project=self._account.project, **server)
                )
                self._make_image(name, instance, tags, region)
                return None
        if image.get("status") != "READY":
            return None
        size = int(image.get("archiveSizeBytes", 0)) / _GIB
        return Snapshot(
            id=path_in(image["selfLink"]),
            size_gb=round(size, 2),
            monthly_cost_cents=math.ceil(size * _IMAGE_DOLLARS * 100),
        )

    def describe(self, server_id: str) -> Mapping[str, object] | None:
        """Return an instance as Compute Engine tells it, without its metadata."""
        try:
            with typed_errors():
                found = self._account.call(
                    self._account.compute.instances().get(
                        project=self._account.project, **_server(server_id)
                    )
                )
        except BulkheadError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        # Metadata has the user data.
        return {key: value for key, value in found.items() if key != "metadata"}

    def _zone(self, name: str) -> Json | None:
        if not _ZONE.fullmatch(name):
            return None
        zones = self._account.compute.zones()
        return self._account.call(zones.get(project=self._account.project, zone=name))

    def _image(self, name: str) -> Json | None:
        images = self._account.compute.images()
        try:
            return self._account.call(images.get(project=self._account.project, image=name))
        except HttpError as error:
            if error.resp.status == _GONE:
                return None
            raise

    def _make_image(self, name: str, instance: Json, tags: Mapping[str, str], region: str) -> None:
        root = next(disk for disk in instance["disks"] if disk.get("boot"))
        body: dict[str, Any] = {
            "name": name,
            "sourceDisk": root["source"],
            "labels": dict(tags),
            # Without it, Google chooses a multi-region: not what a workspace's places allow.
            "storageLocations": [region],
        }
        self._account.begin(self._account.compute.images().insert, body=body)


def _instance_type(body: Json, prices: Prices) -> InstanceType:
    price, unknown = prices.of(body)
    return InstanceType(
        name=body["name"],
        architecture="arm64" if body.get("architecture") == "ARM64" else "amd64",
        cpu=float(body["guestCpus"]),
        memory_mib=int(body["memoryMb"]),
        # The root disk is of any size: the machine's own choice.
        storage_mib=0,
        available=body.get("deprecated", {}).get("state") not in {"OBSOLETE", "DELETED"},
        price_per_hour=price,
        currency=None if price is None else CURRENCY,
        price_unknown=unknown,
    )


def _has_failed(image: Json, tags: Mapping[str, str]) -> bool:
    """Tell whether an image is neither whole nor in the making; raises when it is not ours."""
    if any(image.get("labels", {}).get(key) != value for key, value in tags.items()):
        raise BulkheadError(
            Reason.CONFLICT,
            "The project has an image of the snapshot's name that is not of this server. "
            "Remove or rename it.",
        )
    return image.get("status") not in {"PENDING", "READY"}


def _is_busy(remove: Callable[[], object], *, or_fail: bool) -> bool:
    """Remove something; returns whether that is refused because an operation works on it."""
    try:
        remove()
    except HttpError as error:
        if error.resp.status == _GONE:
            return False
        if or_fail or reason_in(error) != "resourceNotReady":
            raise
        return True
    return False


def _server(server_id: str) -> dict[str, str]:
    found = _SERVER.fullmatch(server_id)
    if found is None:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"`{server_id}` is no id of an instance of Google Cloud."
        )
    zone, instance = found.groups()
    return {"zone": zone, "instance": instance}


def open_cloud(value: SecretValue, settings: ProviderSettings) -> GcpCloud:
    """Return the project of a service account's key file.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when the value is none.
    """
    return GcpCloud(value, settings)
