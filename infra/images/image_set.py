"""All images of the platform, and what their digests are."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.images.image import Image
from infra.images.storage import RegistryStorage
from infra.supervisor.files import write_atomically

# Users are numbers: images without /etc/passwd have no names for them.
_IMAGES: Final = {
    "pause": Image(repository="bulkhead/pause", program="pause", user="65535:65535"),
    # Port 53 needs a capability, or a pod that lets every user have it.
    "coredns": Image(repository="bulkhead/coredns", program="coredns"),
    # Kubernetes' own test image: a web server, checks of DNS and connections, a webhook.
    "demo": Image(
        repository="bulkhead/demo",
        program="agnhost",
        arguments=("pause",),
        user="65532:65532",
        directories=("tmp",),
    ),
}

# The pinned programs that the images are made of.
IMAGE_PROGRAMS: Final = tuple(image.program for image in _IMAGES.values())


class ImageReferences(BaseModel):
    """Where each image is: `<repository>@sha256:<hex>`, after `at` with the registry before it."""

    model_config = ConfigDict(frozen=True)

    pause: str
    coredns: str
    demo: str

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `ImageSet.ensure` wrote.

        Raises:
            FileNotFoundError: it was never run.
        """
        return cls.model_validate_json(file.read_text())

    def at(self, registry: str) -> Self:
        """Return them as a node asks for them, at a registry's `host:port`."""
        return self.model_copy(update={name: f"{registry}/{reference}" for name, reference in self})


class _Record(ImageReferences):
    """The references, and what the images were made of."""

    sources: str


class ImageSet:
    """The images in a registry's directory; one process at a time may change them.

    Args:
        storage: the directory that the registry serves.
        record: the file that says what was made; see `ImageReferences.load`.
    """

    def __init__(self, storage: Path, record: Path) -> None:
        self._storage = RegistryStorage(storage)
        self._record = record

    def ensure(self, programs: Mapping[str, Path]) -> ImageReferences:
        """Make every image that is missing or whose program is another one; keep older ones.

        Nodes that run an older image may still ask for it. When nothing changed, this looks at
        a few files only.

        Args:
            programs: the path of each of `IMAGE_PROGRAMS`.
        """
        sources = _sources(programs)
        record = self._read()
        if record is None or record.sources != sources or not self._is_there(record):
            references = {
                name: f"{image.repository}@{image.store(self._storage, programs[image.program])}"
                for name, image in _IMAGES.items()
            }
            record = _Record(sources=sources, **references)
            write_atomically(self._record, record.model_dump_json(indent=2) + "\n")
        return ImageReferences.model_validate(record.model_dump())

    def _read(self) -> _Record | None:
        try:
            return _Record.model_validate_json(self._record.read_text())
        except (FileNotFoundError, ValidationError):
            return None

    def _is_there(self, references: ImageReferences) -> bool:
        named = (getattr(references, name) for name in _IMAGES)
        return all(self._storage.has(reference.partition("@")[2]) for reference in named)


def _sources(programs: Mapping[str, Path]) -> str:
    """Name what the images are made of: what each image says, and the very files."""
    digest = hashlib.sha256()
    for image in _IMAGES.values():
        path = programs[image.program].resolve()
        status = path.stat()
        identity = (path, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(f"{image!r} {identity!r}\n".encode())
    return digest.hexdigest()
