"""What the platform asks of a provider beside Pulumi, whichever it is.

A `Cloud` is one customer's account, seen through one credential, by the provider's own client
library. Its methods block: call them in a thread. Every failure is a `BulkheadError` of one of
these reasons, mapped from what the provider really answers: CAPACITY_UNAVAILABLE, QUOTA_EXCEEDED,
RATE_LIMITED (metadata `retry_after_seconds`), CREDENTIAL_REJECTED (refused, expired, or too weak;
metadata `missing` then names the permissions), CONFLICT, INVALID_ARGUMENT, NOT_FOUND,
DEPENDENCY_UNAVAILABLE. No message quotes a credential.
"""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Protocol

from domain.cloud import Allowance, CloudResource, InstanceType, Place, Provider, Snapshot
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.settings import ProviderSettings


class CallCount:
    """How many calls were made; takes what client libraries tell a hook, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.made = 0

    def __call__(self, *_told: object, **_more: object) -> None:
        """Count one."""
        self.add(1)

    def add(self, calls: int) -> None:
        """Count some that somebody else made with the same credential."""
        with self._lock:
            self.made += calls


class Cloud(Protocol):
    """One account.

    Attributes:
        calls: that were made of its API by this object, or by a Pulumi program on its behalf.
    """

    calls: CallCount

    @property
    def provider(self) -> Provider:
        """Which provider it is at."""

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which the provider's Pulumi program finds the credential.

        Also where the provider is, when it is not at its public address.
        """

    def account_id(self) -> str | None:
        """Return the provider's own name of the account, as no other has it; None: it tells none.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED, or DEPENDENCY_UNAVAILABLE when nothing is known.
        """

    def check_credential(self) -> None:
        """Prove that the credential may do all that the programs need.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED, or DEPENDENCY_UNAVAILABLE when nothing is known.
        """

    def place(self, name: str) -> Place:
        """Return a place.

        Raises:
            BulkheadError: INVALID_ARGUMENT when the provider has none of the name.
        """

    def instance_types(self, place: str) -> Sequence[InstanceType]:
        """Return the sizes that can be had in a place, with prices where an API tells them."""

    def allowance(self, place: str) -> Allowance:
        """Return how many more machines the account may have, where an API tells it."""

    def check_image(self, image: str, place: str, architecture: str) -> None:
        """See that servers of an architecture (`amd64`, `arm64`) can be made of an image there.

        Raises:
            BulkheadError: INVALID_ARGUMENT when there is no such image, or not for these servers.
        """

    def inventory(self, workspace_id: str, stack_id: str | None = None) -> Sequence[CloudResource]:
        """Return everything that carries the workspace's tag, of every kind that we can make.

        Args:
            workspace_id: whose.
            stack_id: of this stack alone.
        """

    def remove(self, resource: CloudResource) -> None:
        """Remove a resource and wait until it is gone; one that is gone already is no failure.

        Raises:
            BulkheadError: CONFLICT while something else uses it: remove that first.
        """

    def power_off(self, server_id: str) -> None:
        """Shut a server down and wait until it is off."""

    def power_on(self, server_id: str) -> None:
        """Switch a server on and wait until it is; one that is on, or gone, is left alone."""

    def snapshot(
        self,
        server_id: str,
        name: str,
        tags: Mapping[str, str],
        place: str,
        *,
        begun: bool = False,
    ) -> Snapshot | None:
        """Have a server's disk kept under a name; the snapshot of that name, if it is there.

        Returns:
            None as long as the provider copies, which may take an hour: ask again.

        Args:
            server_id: whose disk.
            name: of the snapshot.
            tags: of the snapshot.
            place: in which, or near which, it is kept.
            begun: it was begun before. One that is not there could not be made then.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when it could not be made.
        """

    def describe(self, server_id: str) -> Mapping[str, object] | None:
        """Return the provider's own attributes of a server, without user data; None: gone."""


def no_snapshot(name: str, dependency: str) -> BulkheadError:
    """Return the typed failure of a provider that did not come to the end of a copy."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The provider could not make the snapshot {name} of the server's disk. It is begun again.",
        metadata={"dependency": dependency},
    )


def no_image(image: str, architecture: str) -> BulkheadError:
    """Return the typed refusal of an image that is not there, or not for an architecture."""
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The account has no image {image!r} for {architecture} servers. Have the compute config"
        " name one that it has, or choose another type of machine.",
        metadata={"image": image, "architecture": architecture},
    )


class OpenCloud(Protocol):
    """Opens an account; each provider's folder has one, named `open_cloud`."""

    def __call__(self, value: SecretValue, settings: ProviderSettings) -> Cloud:
        """Return the account of a credential.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when the value is no credential of this provider.
        """
