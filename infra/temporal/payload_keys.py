"""The keys with which payloads are sealed: made and wrapped by OpenBao, used in this process.

Each process has a data key of its own, which OpenBao's transit engine made and wrapped; the
wrapped key travels with every payload, so that any process may have it unwrapped. The wrapping key
never leaves OpenBao, and whoever has only Temporal's store can open nothing.
"""

import time
from base64 import b64decode
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Final

import hvac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hvac import exceptions

from domain.errors import BulkheadError, Reason
from infra.openbao.answers import write
from infra.openbao.policies import PAYLOAD_KEY, TRANSIT_MOUNT
from infra.openbao.session import OpenBaoSession

# What is sealed with one key: bounded in time, so that a stolen one opens little, and far below
# the 2^32 messages at which random nonces of AES-GCM begin to repeat.
_LIFETIME_SECONDS: Final = 4 * 3600.0
_MOST_MESSAGES: Final = 1_000_000

# While OpenBao is away the old key serves on, and it is asked again after this time.
_RETRY_SECONDS: Final = 10.0

# Unwrapped keys that are kept: one a process and lifetime. Replaying a month's history needs one
# for every process that took part, so a miss costs a call of milliseconds and nothing more.
_KEPT_KEYS: Final = 512

# Only misses come here; a burst of them after a start is of a few keys.
_THREADS: Final = 4


@dataclass(slots=True)
class SealingKey:
    """The key of this process.

    Attributes:
        wrapped: the key as OpenBao wrapped it, to travel with what it seals.
        cipher: the key itself.
        renew_at: on the monotonic clock, in seconds.
        messages: how many it may still seal.
    """

    wrapped: bytes
    cipher: AESGCM
    renew_at: float
    messages: int = _MOST_MESSAGES

    def __repr__(self) -> str:
        return "SealingKey(...)"


class PayloadKeys:
    """Data keys at hand, and those fetched from OpenBao. Safe to use from several threads.

    What blocks is to be run in `threads`.
    """

    def __init__(self, session: OpenBaoSession) -> None:
        self._session = session
        self._sealing: SealingKey | None = None
        self._known: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._making = Lock()
        self._lock = Lock()
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="payload-keys")

    def close(self) -> None:
        """Close every connection."""
        self.threads.shutdown(wait=False)
        self._session.close()

    def sealing_key(self) -> SealingKey | None:
        """Return the key for one more message; None when it is time for a new one."""
        with self._lock:
            key = self._sealing
            if key is None or key.messages <= 0 or time.monotonic() >= key.renew_at:
                return None
            key.messages -= 1
            return key

    def prefetch(self) -> None:
        """Have a key made in the background; a failure is that of whoever needs one first."""
        self.threads.submit(self.renew)

    def renew(self) -> SealingKey:
        """Have a new key made, unless another thread just did. Blocks.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer and there is no old
                key that may serve on.
        """
        with self._making:
            key = self.sealing_key()
            if key is not None:
                return key
            try:
                fresh = self._make()
            except BulkheadError:
                serves_on = self._keep_old_key()
                if serves_on is None:
                    raise
                return serves_on
            self._remember(fresh.wrapped, fresh.cipher)
            with self._lock:
                fresh.messages -= 1
                self._sealing = fresh
            return fresh

    def known(self, wrapped: bytes) -> AESGCM | None:
        """Return a key that was unwrapped before."""
        with self._lock:
            cipher = self._known.get(wrapped)
            if cipher is not None:
                self._known.move_to_end(wrapped)
            return cipher

    def unwrap(self, wrapped: bytes) -> AESGCM | None:
        """Have a key unwrapped; None when this OpenBao did not wrap it. Blocks.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """

        def ask(client: hvac.Client) -> str | None:
            try:
                answer = write(
                    client,
                    f"{TRANSIT_MOUNT}/decrypt/{PAYLOAD_KEY}",
                    {"ciphertext": wrapped.decode("ascii", errors="replace")},
                )
            except exceptions.InvalidRequest:
                return None
            return str(answer["plaintext"])

        found = self.known(wrapped)
        if found is not None:
            return found
        plaintext = self._session.call("unwrap a payload key", ask)
        if plaintext is None:
            return None
        cipher = _cipher_of(plaintext)
        self._remember(wrapped, cipher)
        return cipher

    def _make(self) -> SealingKey:
        answer = self._session.call(
            "make a payload key",
            lambda client: write(client, f"{TRANSIT_MOUNT}/datakey/plaintext/{PAYLOAD_KEY}", {}),
        )
        return SealingKey(
            wrapped=str(answer["ciphertext"]).encode(),
            cipher=_cipher_of(str(answer["plaintext"])),
            renew_at=time.monotonic() + _LIFETIME_SECONDS,
        )

    def _keep_old_key(self) -> SealingKey | None:
        with self._lock:
            key = self._sealing
            if key is None or key.messages <= 0:
                return None
            key.messages -= 1
            key.renew_at = time.monotonic() + _RETRY_SECONDS
            return key

    def _remember(self, wrapped: bytes, cipher: AESGCM) -> None:
        with self._lock:
            self._known[wrapped] = cipher
            while len(self._known) > _KEPT_KEYS:
                self._known.popitem(last=False)


def _cipher_of(plaintext: str) -> AESGCM:
    try:
        return AESGCM(b64decode(plaintext, validate=True))
    except ValueError:
        raise BulkheadError(
            Reason.INTERNAL, "The secret store answered with something that is no payload key."
        ) from None
