"""What servers reach this API by, and what they are told of it."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.artifacts import ArtifactSet, ArtifactStore
from infra.openbao.signing import ApiOpenBao
from infra.settings import ApiSettings

PLATFORMS: Final = ("linux/amd64", "linux/arm64")

# Whoever asks has shown no token, so OpenBao is not asked each time.
_AUTHORITY_SECONDS: Final = 60.0


@dataclass(slots=True)
class NodeEndpoint:
    """One for each process. The methods read files and ask OpenBao: call them in a thread."""

    settings: ApiSettings
    openbao: ApiOpenBao
    _authority: tuple[str, float] = field(default=("", 0.0))

    @property
    def url(self) -> str:
        """Return where servers reach the API.

        Raises:
            BulkheadError: FAILED_PRECONDITION when they cannot.
        """
        if self.settings.node_url is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "No server can join: this platform listens on its own machine only. Start it with "
                "BULKHEAD_NODE_ADDRESS (the embedded stack: an address that servers reach, or "
                "`local`), or set API__NODE_URL where the API runs by itself.",
                metadata={"setting": "BULKHEAD_NODE_ADDRESS"},
            )
        return self.settings.node_url

    def artifacts_for(self, platform: str) -> ArtifactSet:
        """Return the programs for a platform such as `linux/amd64`.

        Raises:
            BulkheadError: FAILED_PRECONDITION when there are none.
        """
        found = self.find_artifacts(platform)
        if found is None:
            supported = ", ".join(self.supported()) or "none"
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"There are no programs for {platform} here; servers may be: {supported}. Store "
                "them where API__ARTIFACTS_DIR says.",
                metadata={"platform": platform},
            )
        return found

    def find_artifacts(self, platform: str) -> ArtifactSet | None:
        """Return the newest programs for a platform, None where there are none."""
        store = self._store()
        return None if store is None else store.current(platform)

    def kept_artifacts(self, set_id: str) -> ArtifactSet | None:
        """Return the programs that a server was told of, None where they are not kept any more."""
        store = self._store()
        return None if store is None else store.open(set_id)

    def find_program(self, sha256: str) -> Path | None:
        """Return a program of any set: a server that has older ones may need one again.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE for one that is missing or damaged here.
        """
        store = self._store()
        found = (each.find(sha256) for each in store.stored()) if store else iter(())
        return next((file for file in found if file is not None), None)

    def _store(self) -> ArtifactStore | None:
        folder = self.settings.artifacts_dir
        return None if folder is None else ArtifactStore(folder)

    def supported(self) -> list[str]:
        """Return the platforms for which there are programs."""
        return [platform for platform in PLATFORMS if self.find_artifacts(platform) is not None]

    def authority(self) -> str:
        """Return the root certificate, as PEM, that servers check this API against.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        pem, until = self._authority
        if time.monotonic() >= until:
            file = self.settings.node_authority_file
            pem = self.openbao.platform_authority() if file is None else file.read_text()
            pem = pem.strip() + "\n"
            self._authority = (pem, time.monotonic() + _AUTHORITY_SECONDS)
        return pem

    def authority_sha256(self) -> str:
        """Return the SHA-256 of the root certificate as it is served, in hexadecimal."""
        return hashlib.sha256(self.authority().encode()).hexdigest()
