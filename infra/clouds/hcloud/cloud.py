"""A project at Hetzner Cloud, through Hetzner's own client library."""

import math
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hcloud import APIException, Client
from hcloud.images import BoundImage
from hcloud.server_types import BoundServerType, ServerTypeLocation
from hcloud.servers import BoundServer

from domain.cloud import (
    Allowance,
    CloudResource,
    InstanceType,
    Place,
    Provider,
    Snapshot,
)
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.cloud import CallCount, no_image, no_snapshot
from infra.clouds.hcloud import inventory, removal
from infra.clouds.hcloud.errors import typed_errors
from infra.settings import ProviderSettings

_NOT_FOUND: Final = "not_found"
_INVALID_INPUT: Final = "invalid_input"
_AVAILABLE: Final = "available"
_UNAVAILABLE: Final = "unavailable"
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{32,128}")
_ANSWERS_WITHIN_SECONDS: Final = 30.0
_FIRST_POLL_SECONDS: Final = 0.1
_LONGEST_POLL_SECONDS: Final = 2.0
# About a quarter of an hour.
_MOST_POLLS: Final = 450
# A call that is refused as one too many says so soon: the budget of all workers is told then.
_MOST_RETRIES: Final = 2
_SHUTDOWN_SECONDS: Final = 90.0
_MIB_PER_GB: Final = 1024
_CENTS: Final = 100
# Of servers, in Hetzner's words.
_ARCHITECTURES: Final = {"amd64": "x86", "arm64": "arm"}
_NAMES: Final = {theirs: ours for ours, theirs in _ARCHITECTURES.items()}


class HetznerCloud:
    """One project.

    Args:
        token: of the project.
        endpoint: of the API, with its version.
        ca_file: of authorities that are trusted; None: the public ones.
    """

    provider: Final = Provider.HCLOUD

    def __init__(self, token: str, endpoint: str, ca_file: Path | None = None) -> None:
        self._token = token
        self._endpoint = endpoint
        self._client = Client(
            token=token,
            api_endpoint=endpoint,
            application_name="bulkhead",
            poll_interval=_poll_seconds,
            poll_max_retries=_MOST_POLLS,
            timeout=_ANSWERS_WITHIN_SECONDS,
        )
        # The library has no public setting for any of these.
        base = self._client._client  # noqa: SLF001
        self.calls = CallCount()
        base._session.hooks["response"].append(self.calls)  # noqa: SLF001
        base._retry_max_retries = _MOST_RETRIES  # noqa: SLF001
        if ca_file is not None:
            base._session.verify = str(ca_file)  # noqa: SLF001
        # Its connections would stay open until somebody else closes them.
        weakref.finalize(self, base._session.close)  # noqa: SLF001

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the Pulumi program."""
        return {"HCLOUD_TOKEN": self._token, "HCLOUD_ENDPOINT": self._endpoint}

    def account_id(self) -> str | None:
        """Return nothing: Hetzner has no API that tells which project a token is of."""
        return None

    def check_credential(self) -> None:
        """Prove that the token may write: a request that lacks everything is refused for that.

        A token that may only read is refused before anybody looks at the request.
        """
        with typed_errors("checking the token"):
            try:
                self._client.request(method="POST", url="/placement_groups", json={})
            except APIException as refusal:
                if refusal.code != _INVALID_INPUT:
                    raise

    def check_project_of(self, other: "HetznerCloud") -> None:
        """See that this token is of the project of another: what that one finds, this one finds.

        In a project that has nothing yet, any other one cannot be told from it.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when it is of another project.
        """
        path = other.some_resource()
        # It may have gone in between.
        if path is None or self.has(path) or not other.has(path):
            return
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            "The new token is of another project: it does not find what the current one finds."
            " Make one in the same project.",
            metadata={"missing": "project"},
        )

    def some_resource(self) -> str | None:
        """Return the path of something in the project, if there is anything."""
        with typed_errors("looking into the project"):
            for kind in ("networks", "servers", "firewalls"):
                for item in self._client.request(method="GET", url=f"/{kind}")[kind]:
                    return f"/{kind}/{item['id']}"
        return None

    def has(self, path: str) -> bool:
        """Tell whether something is at a path."""
        with typed_errors("looking into the project"):
            return self._found(path) is not None

    def place(self, name: str) -> Place:
        """Return a location."""
        with typed_errors(f"looking for the place {name}"):
            found = self._client.locations.get_by_name(name)
        if found is None or found.name is None or found.network_zone is None:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"Hetzner has no location {name!r}. Choose one that its console shows, as fsn1.",
            )
        return Place(name=found.name, region=found.network_zone)

    def instance_types(self, place: str) -> Sequence[InstanceType]:
        """Return the server types that a location has."""
        with typed_errors("reading the server types"):
            kinds = self._client.server_types.get_all()
            currency = str(self._pricing()["currency"])
        return [
            _instance_type(kind, location, place, currency)
            for kind in kinds
            for location in kind.locations or []
            if location.location.name == place
        ]

    def allowance(self, place: str) -> Allowance:  # noqa: ARG002 - of the interface
        """Return nothing: Hetzner has no API for a project's limits."""
        return Allowance()

    def check_image(self, image: str, place: str, architecture: str) -> None:  # noqa: ARG002
        """See that the project has an image, given by name or id, for an architecture."""
        kind = _ARCHITECTURES.get(architecture, architecture)
        with typed_errors("looking for the image"):
            if image.isdecimal():
                answer = self._found(f"/images/{image}")
                there = answer is not None and answer["image"]["architecture"] == kind
            else:
                found = self._client.images.get_by_name_and_architecture(image, kind)
                there = found is not None
        if not there:
            raise no_image(image, architecture)

    def inventory(self, workspace_id: str, stack_id: str | None = None) -> Sequence[CloudResource]:
        """Return everything of a workspace or of one of its stacks."""
        with typed_errors("taking the inventory"):
            return inventory.of(self._client, workspace_id, stack_id)

    def remove(self, resource: CloudResource) -> None:
        """Remove a resource and wait until it is gone."""
        with typed_errors(f"removing the {resource.kind} {resource.name}"):
            removal.remove(self._client, resource)

    def power_off(self, server_id: str) -> None:
        """Shut a server down, and cut its power when it does not follow."""
        with typed_errors("shutting a server down"):
            server = self._client.servers.get_by_id(int(server_id))
            if server.status == server.STATUS_OFF:
                return
            server.shutdown().wait_until_finished()
            if not self._is_off_within(server, _SHUTDOWN_SECONDS):
                server.power_off().wait_until_finished()

    def power_on(self, server_id: str) -> None:
        """Switch a server on and wait until it is; one that is on, or gone, is left alone."""
        with typed_errors("switching a server on"):
            try:
                server = self._client.servers.get_by_id(int(server_id))
            except APIException as refusal:
                if refusal.code == _NOT_FOUND:
                    return
                raise
            if server.status != server.STATUS_RUNNING:
                server.power_on().wait_until_finished()

    def snapshot(
        self,
        server_id: str,
        name: str,
        tags: Mapping[str, str],
        place: str,  # noqa: ARG002 - Hetzner keeps it where it likes
        *,
        begun: bool = False,
    ) -> Snapshot | None:
        """Have a server's disk kept; Hetzner's snapshots are in no place that can be chosen."""
        with typed_errors("keeping a snapshot"):
            image = self._snapshot_named(name, tags)
            has_failed = image is not None and image.status == _UNAVAILABLE
            if begun and (image is None or has_failed):
                raise no_snapshot(name, self.provider)
            if image is not None and has_failed:
                # Else it would be found by the name of the next one.
                image.delete()
            if image is None or has_failed:
                server = self._client.servers.get_by_id(int(server_id))
                server.create_image(description=name, type="snapshot", labels=dict(tags))
                return None
            if image.status != _AVAILABLE:
                return None
            price = float(self._pricing()["image"]["price_per_gb_month"]["net"])
        size = float(image.image_size or 0)
        return Snapshot(
            id=str(_id(image)), size_gb=size, monthly_cost_cents=math.ceil(size * price * _CENTS)
        )

    def describe(self, server_id: str) -> Mapping[str, object] | None:
        """Return what the API says of a server; it does not tell user data."""
        with typed_errors("reading a server"):
            answer = self._found(f"/servers/{int(server_id)}")
        return None if answer is None else dict(answer["server"])

    def _found(self, path: str) -> Mapping[str, Any] | None:
        """Return the answer about what is at a path; None: there is nothing."""
        try:
            return self._client.request(method="GET", url=path)
        except APIException as refusal:
            if refusal.code == _NOT_FOUND:
                return None
            raise

    def _is_off_within(self, server: BoundServer, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            server.reload()
            if server.status == server.STATUS_OFF:
                return True
            time.sleep(_LONGEST_POLL_SECONDS / 2)
        return False

    def _snapshot_named(self, name: str, tags: Mapping[str, str]) -> BoundImage | None:
        selector = ",".join(f"{key}={value}" for key, value in sorted(tags.items()))
        images = self._client.images.get_all(type=["snapshot"], label_selector=selector)
        return next((image for image in images if image.description == name), None)

    def _pricing(self) -> Mapping[str, Any]:
        answer = self._client.request(method="GET", url="/pricing")
        return dict(answer["pricing"])


def open_cloud(value: SecretValue, settings: ProviderSettings) -> HetznerCloud:
    """Return the project of a token.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when the value is no token.
    """
    token = value.text().strip()
    if not _TOKEN.fullmatch(token):
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            "The value of the secret is no token of Hetzner Cloud. Add a version with one.",
        )
    return HetznerCloud(token, settings.hcloud_url, settings.ca_file)


def _poll_seconds(retries: int) -> float:
    return float(min(_FIRST_POLL_SECONDS * 1.3 ** min(retries, 20), _LONGEST_POLL_SECONDS))


def _id(item: Any) -> int:  # noqa: ANN401 - every type of the library has one, typed as optional
    return int(item.id)


def _instance_type(
    kind: BoundServerType, location: ServerTypeLocation, place: str, currency: str
) -> InstanceType:
    price = next((p for p in kind.prices or [] if p["location"] == place), None)
    return InstanceType(
        name=str(kind.name),
        architecture=_NAMES.get(str(kind.architecture), str(kind.architecture)),
        cpu=float(kind.cores or 0),
        memory_mib=int(float(kind.memory or 0) * _MIB_PER_GB),
        storage_mib=int(kind.disk or 0) * _MIB_PER_GB,
        available=location.available is not False and location.deprecation is None,
        price_per_hour=None if price is None else float(price["price_hourly"]["net"]),
        currency=None if price is None else currency,
    )
