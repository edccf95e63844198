"""What tells two requests apart that carry values, and lets nobody guess which values."""

import base64
import hashlib
import hmac
from typing import Final

from domain.names import secret_namespace_of
from infra.openbao import policies
from infra.openbao.answers import write
from infra.openbao.session import OpenBaoSession

# What the key of our own is derived from; another text gives other keys.
_PURPOSE: Final = base64.b64encode(b"idempotency of requests with values").decode()

# Some hundred bytes each. A process that serves more workspaces asks for them again.
_MOST_KEYS: Final = 4096


class RequestFingerprints:
    """Keyed hashes (HMAC-SHA-256), by a key of each workspace that no store of ours has.

    It is derived by OpenBao from a key that never leaves it, and stays in this process's memory: to
    ask for every hash took as long as to store the value. A rotation of OpenBao's key reaches a
    process when it is started anew.
    """

    def __init__(self, session: OpenBaoSession) -> None:
        self._session = session
        self._keys: dict[str, bytes] = {}

    def learn(self, workspace_id: str) -> None:
        """Have the workspace's key derived. Blocking; thread-safe.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the server is down, sealed or denies the
                login; FAILED_PRECONDITION while the workspace has no place there.
        """
        namespace = secret_namespace_of(workspace_id)
        answer = self._session.call(
            "derive a key",
            lambda client: write(
                client, f"transit/hmac/{policies.FINGERPRINTS_KEY}", {"input": _PURPOSE}
            ),
            namespace=namespace,
            login_namespace=namespace,
        )
        if len(self._keys) >= _MOST_KEYS:
            self._keys = {}
        self._keys[workspace_id] = str(answer["hmac"]).encode()

    def of(self, workspace_id: str, data: bytes) -> bytes | None:
        """Return the hash of what a request wants; None: the workspace's key is to be learned."""
        key = self._keys.get(workspace_id)
        return None if key is None else hmac.digest(key, data, hashlib.sha256)
