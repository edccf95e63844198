"""What a cloud's API does when a server of it is switched on: boot one here, or nothing."""

from ipaddress import IPv4Address
from typing import Protocol


class Boots(Protocol):
    """Servers behind an API. All methods block, and may be called in several threads.

    Attributes of the methods:
        key: what the API knows a server by; unique over all that use the same `Boots`, in lower
            case letters, digits and hyphens.
    """

    def create(
        self, key: str, *, user_data: str, network_key: str, image: str
    ) -> IPv4Address | None:
        """Make a server, switch it on and return its address; None: the API shall choose one.

        Args:
            key: of the server, new.
            user_data: what its cloud-init gets.
            network_key: servers with the same one reach each other.
            image: a snapshot's key, or anything else for the one image that there is.
        """

    def power_off(self, key: str) -> None:
        """Shut a server down and wait until it is off; does nothing if it is."""

    def power_on(self, key: str) -> None:
        """Switch a server on; does nothing if it is on."""

    def snapshot(self, key: str) -> str:
        """Keep a copy of a server's disk and return its key; the server is to be off."""

    def remove_snapshot(self, snapshot_key: str) -> None:
        """Throw a copy away; does nothing if there is none."""

    def remove(self, key: str) -> None:
        """End a server and throw its disk away; does nothing if there is none."""


class NoBoots:
    """Servers that are records of an API and nothing else."""

    def create(
        self, key: str, *, user_data: str, network_key: str, image: str
    ) -> IPv4Address | None:
        """Let the API choose an address."""
        return None

    def power_off(self, key: str) -> None:
        """Do nothing."""

    def power_on(self, key: str) -> None:
        """Do nothing."""

    def snapshot(self, key: str) -> str:
        """Return a key that stands for nothing."""
        return f"snapshot-{key}"

    def remove_snapshot(self, snapshot_key: str) -> None:
        """Do nothing."""

    def remove(self, key: str) -> None:
        """Do nothing."""
