"""Servers of the local clouds that really boot here."""

import json
import os
import shutil
import uuid
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.local_cloud import disk
from infra.local_cloud.cloud import LocalCloud
from infra.local_cloud.commands import execute
from infra.local_cloud.image import Image
from infra.local_cloud.servers import LocalServer

_SEED: Final = "disk/var/lib/cloud/seed/nocloud/meta-data"
_UNWANTED: Final = ".unwanted"


class RealBoots:
    """Boots servers in a `LocalCloud`; a later one of the same directory finds them again.

    Args:
        cloud: that has them; a network of it goes with its last server.
        image: of every server that is not made of a snapshot.
    """

    def __init__(self, cloud: LocalCloud, image: Image) -> None:
        self._cloud = cloud
        self._image = image
        self._snapshots = cloud.directory / "snapshots"

    def create(self, key: str, *, user_data: str, network_key: str, image: str) -> IPv4Address:
        """Make a server and switch it on; it has the address before it has booted."""
        server = self._cloud.create(
            key,
            network=self._cloud.network(network_key),
            image=self._image_of(image),
            user_data=user_data,
        )
        # By its name alone a server made of its own snapshot would be the same instance again, for
        # which cloud-init does nothing.
        seed = f"instance-id: {uuid.uuid4()}\nlocal-hostname: {key}\n"
        disk.write(server.directory / _SEED, seed, 0o644)
        server.boot()
        return server.address

    def power_off(self, key: str) -> None:
        """Shut a server down."""
        if server := self._find(key):
            server.stop()

    def power_on(self, key: str) -> None:
        """Switch a server on."""
        if server := self._find(key):
            server.boot()

    def snapshot(self, key: str) -> str:
        """Copy a server's disk; what containerd keeps is not on it, as images are pulled again."""
        server = self._cloud.server(key)
        snapshot_key = f"snapshot-{uuid.uuid4().hex}"
        making = self._snapshots / f".{snapshot_key}"
        making.mkdir(parents=True)
        # With what marks files as removed: device nodes, and attributes that only root may read.
        execute("cp", "--archive", os.fspath(server.directory / "disk"), os.fspath(making))
        (making / "layers.json").write_text(json.dumps(_layers_of(server)))
        making.rename(self._snapshots / snapshot_key)
        return snapshot_key

    def remove_snapshot(self, snapshot_key: str) -> None:
        """Throw a copy away, at the latest when no disk lies on it any more."""
        place = self._snapshots / snapshot_key
        if snapshot_key and place.is_dir():
            (place / _UNWANTED).touch()
            self._collect()

    def remove(self, key: str) -> None:
        """End a server; with the last one its network goes."""
        server = self._find(key)
        if server is None:
            return
        server.remove()
        with suppress(BulkheadError):
            self._cloud.remove_network(server.network.id)
        self._collect()

    def _find(self, key: str) -> LocalServer | None:
        try:
            return self._cloud.server(key)
        except BulkheadError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    def _image_of(self, image: str) -> Image:
        place = self._snapshots / image
        if not (place / "layers.json").is_file():
            return self._image
        layers = json.loads((place / "layers.json").read_text())
        return Image((place / "disk", *map(Path, layers)))

    def _collect(self) -> None:
        used = {layer for server in self._cloud.servers() for layer in _layers_of(server)}
        for mark in self._snapshots.glob(f"*/{_UNWANTED}"):
            if os.fspath(mark.parent / "disk") not in used:
                shutil.rmtree(mark.parent, ignore_errors=True)


def _layers_of(server: LocalServer) -> list[str]:
    record = json.loads((server.directory / "server.json").read_text())
    return list(record["layers"])
