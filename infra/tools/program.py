"""What a pin says: the module that a program is built from, its release, and its version."""

import hashlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GoModule:
    """A directory with `go.mod` and `go.sum`, from which programs are built.

    `typical_seconds` is a cold build on two cores: what a first-time user is told to expect.
    `tags` are build tags, separated by commas. A module with `static_libraries` is built with
    cgo and linked statically against them (see `infra.tools.native`); all others without cgo.
    """

    name: str
    directory: Path
    version: str
    ldflags: str
    typical_seconds: int
    tags: str = ""
    static_libraries: tuple[str, ...] = ()

    def key(self) -> str:
        """Name this pin by its content: version, platform, dependencies and build flags."""
        digest = hashlib.sha256()
        files = sorted(path for path in self.directory.rglob("*") if path.is_file())
        for part in (
            *(path.relative_to(self.directory).as_posix().encode() for path in files),
            *(path.read_bytes() for path in files),
            self.ldflags.encode(),
            self.tags.encode(),
            ",".join(self.static_libraries).encode(),
        ):
            digest.update(len(part).to_bytes(8, "big") + part)
        return f"{self.version}-{this_platform().replace('/', '-')}-{digest.hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Release:
    """The official release: where it is, and the sha256 of the file per platform.

    `url` and `member` may contain `{arch}`. `member` is the program's path inside a gzipped tar
    file; without it the file is the program itself.
    """

    url: str
    sha256: Mapping[str, str]
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """One executable: its exact version, how it tells it, and where it is had.

    The version stands alone in the first group of `version_pattern`, which is searched in what
    `version_arguments` makes the program print. A program that prints none has None for them:
    the pattern is then searched in the build information that Go puts into each executable.
    Without a `release` the program can only be built: upstream publishes no executable, or its
    checksum is not known to us.
    """

    name: str
    package: str
    module: GoModule
    release: Release | None
    version_arguments: tuple[str, ...] | None
    version_pattern: str

    @property
    def version(self) -> str:
        """The version that the program must print."""
        return self.module.version


def this_platform() -> str:
    """Name this machine as Go does, for example `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"
