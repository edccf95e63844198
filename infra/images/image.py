"""One OCI image of one program: its layer, configuration and manifest, the same bytes each time."""

import gzip
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from infra.images.storage import Blob, HashingWriter, RegistryStorage
from infra.tools.program import this_platform

_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIGURATION_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"

# Of 1 to 9, for a program of 60 MB: 18 MB in a second. 6 saves one of them and takes twice as long.
_COMPRESSION: Final = 4

_EPOCH: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """What an image is made of.

    Attributes:
        repository: its name in the registry.
        program: the pinned program, which lies at `/<program>` and is what it runs.
        arguments: what the program gets unless a pod says otherwise.
        user: the `uid:gid` that it runs as unless a pod says otherwise; empty: root, for pods
            that give capabilities, which the kernel takes from any other user.
        directories: empty directories beside it that anyone may write to.
    """

    repository: str
    program: str
    arguments: tuple[str, ...] = ()
    user: str = ""
    directories: tuple[str, ...] = ()

    def store(self, storage: RegistryStorage, program: Path) -> str:
        """Write the image with this executable and return its digest, `sha256:<hex>`."""
        contents: list[Blob] = []
        layer = storage.add_blob(lambda file: contents.append(self._write_layer(file, program)))
        configuration = _add_json(storage, self._configuration(*contents))
        manifest = _add_json(
            storage,
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": _descriptor(_CONFIGURATION_TYPE, configuration),
                "layers": [_descriptor(_LAYER_TYPE, layer)],
            },
        )
        storage.link(self.repository, manifest=manifest, blobs=(configuration, layer))
        return manifest.digest

    def _write_layer(self, file: BinaryIO, program: Path) -> Blob:
        """Write the compressed layer, and return what it is before it is compressed."""
        with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as compressed:
            content = HashingWriter(cast("BinaryIO", compressed))
            # As a stream, which needs nothing but `write`.
            with tarfile.open(
                fileobj=cast("BinaryIO", content), mode="w|", format=tarfile.USTAR_FORMAT
            ) as archive:
                for directory in self.directories:
                    entry = _entry(directory, 0o1777)
                    entry.type = tarfile.DIRTYPE
                    archive.addfile(entry)
                entry = _entry(self.program, 0o755)
                with program.open("rb") as executable:
                    entry.size = program.stat().st_size
                    archive.addfile(entry, executable)
        return content.blob

    def _configuration(self, content: Blob) -> dict[str, object]:
        system, _, architecture = this_platform().partition("/")
        return {
            "created": _EPOCH,
            "architecture": architecture,
            "os": system,
            "config": {
                "Entrypoint": [f"/{self.program}"],
                "Cmd": list(self.arguments),
                "User": self.user,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [content.digest]},
            "history": [{"created": _EPOCH, "created_by": f"bulkhead {self.program}"}],
        }


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    # Owner root, and the time zero.
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _add_json(storage: RegistryStorage, value: dict[str, object]) -> Blob:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return storage.add_blob(lambda file: file.write(text.encode()))
