"""The list of a set's programs, in the one form whose hash names the set."""

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from infra.tools import PROGRAMS
from infra.tools.pins import CNI

# Not /usr/local/bin: what the server's owner installed there stays the owner's.
PROGRAMS_DIRECTORY = "/opt/bulkhead/bin"
# Where containerd and the images of other network plugins look by default.
CNI_DIRECTORY = "/opt/cni/bin"
EXECUTABLE_MODE = "0755"


class Artifact(BaseModel):
    """One file: what it is, and where on a server it goes with which mode (octal digits)."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int
    install_path: str
    mode: str = EXECUTABLE_MODE


class Manifest(BaseModel):
    """The files of one platform, for example `linux/amd64`, in the order of their names."""

    model_config = ConfigDict(frozen=True)

    platform: str
    artifacts: tuple[Artifact, ...]

    def canonical(self) -> bytes:
        """Write it in the form that is hashed and stored."""
        return self.model_dump_json().encode()

    @property
    def id(self) -> str:
        """Name it: the sha256 of its canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()


def describe(name: str, sha256: str, size_bytes: int) -> Artifact:
    """Complete what was measured of a program with what its pin says."""
    program = PROGRAMS[name]
    directory = CNI_DIRECTORY if program.module is CNI else PROGRAMS_DIRECTORY
    return Artifact(
        name=name,
        version=program.version,
        sha256=sha256,
        size_bytes=size_bytes,
        install_path=f"{directory}/{name}",
    )
