"""What servers download to become nodes: immutable sets of programs, named by their content.

An `ArtifactSet` is the programs of one platform with version, size, sha256 and the place where a
server puts each; its name is the hash of that list, so a bootstrap that pins a set pins every
byte. The `ArtifactStore` is the directory of the sets and their files.
"""

from infra.artifacts.manifest import Artifact, Manifest
from infra.artifacts.store import ArtifactSet, ArtifactStore

__all__ = ["Artifact", "ArtifactSet", "ArtifactStore", "Manifest"]
