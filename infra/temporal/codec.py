"""Seals every payload before it leaves the process: AES-256-GCM, bound to its workflow.

Nothing that Temporal stores holds a secret; sealing keeps the rest, names of customers' things
and who did what, from whoever gets its store, and keeps a payload from serving in another workflow.
What is not sealed is read as it is: histories of before this codec, and what an operator starts by
hand. So a sealed payload is confidential and cannot be changed or moved, but payloads prove nothing
about who sent them; the rows decide what is done.
"""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from typing import Final, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from domain.errors import BulkheadError, Reason
from infra.temporal.payload_keys import PayloadKeys

ENCODING: Final = b"binary/bulkhead-sealed-1"

_ENCODING_KEY: Final = "encoding"
_WRAPPED_KEY: Final = "bulkhead-key"
_WORKFLOW_KEY: Final = "bulkhead-workflow"

_NONCE_BYTES: Final = 12

# A request that starts a workflow waits no longer than this for a key; the reconciler starts what
# could not be started.
_KEY_SECONDS: Final = 5.0

# What the scheduler appends to the workflow id of a schedule's action. The action's payloads are
# sealed before it does, under the id without; and what one run returned, or failed with, is handed
# to the next run.
_SCHEDULED_AT = re.compile(r"-\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")

_Found = TypeVar("_Found")


class SealingCodec(PayloadCodec, WithSerializationContext):
    """The codec of one Temporal namespace; with a context, that of one workflow.

    The workflow id stands in the payload's metadata, authenticated, so that the codec server knows
    whose payload it is; with a context it must also be the workflow's own. Which id the SDK gives
    (measured with 1.35; tests/infra/temporal/test_codec.py holds it): inputs, results, failures,
    memos, heartbeats, signals, queries and updates carry the workflow they are of, at both ends. A
    schedule's action carries the id without the time of its start, and the result of the run before
    that run's id. A child's `static_summary`
    carries its parent's, so only the codec server opens that one.
    """

    def __init__(self, namespace: str, keys: PayloadKeys, workflow_id: str | None = None) -> None:
        self._namespace = namespace
        self.keys = keys
        self._workflow_id = workflow_id

    def with_context(self, context: SerializationContext) -> Self:
        """Return the codec of the workflow that the context is of."""
        workflow_id = None
        if isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            workflow_id = context.workflow_id
        return type(self)(self._namespace, self.keys, workflow_id)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Seal payloads.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when there is no key and OpenBao does not answer.
        """
        if self._workflow_id is None:
            raise BulkheadError(
                Reason.INTERNAL,
                "A payload outside a workflow, such as a schedule's memo, has nothing to be bound "
                "to and is not sealed; use the memo of the schedule's action.",
                retryable=False,
            )
        return [await self._seal(payload, self._workflow_id) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Open sealed payloads of the context's workflow, and pass on those that are not sealed.

        Raises:
            BulkheadError: INTERNAL for a payload that was changed, is of another workflow or was
                sealed under another OpenBao; DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        opened: list[Payload] = []
        for payload in payloads:
            sealed_for = workflow_of(payload)
            if sealed_for is None:
                opened.append(payload)
            elif self._workflow_id is None or not _serves(sealed_for, self._workflow_id):
                raise _not_readable()
            else:
                opened.append(await self.open(payload))
        return opened

    async def open(self, payload: Payload) -> Payload:
        """Open a sealed payload of whichever workflow its metadata names.

        The caller has found out by `workflow_of` whether it may; a name that was changed makes
        opening fail.

        Raises:
            BulkheadError: as `decode` says.
        """
        wrapped = payload.metadata[_WRAPPED_KEY]
        cipher = self.keys.known(wrapped) or await self._fetch(self.keys.unwrap, wrapped)
        if cipher is None:
            raise _not_readable()
        bound = self._bound(payload.metadata[_WORKFLOW_KEY])
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        return Payload.FromString(_decrypt(cipher, nonce, sealed, bound))

    async def _seal(self, payload: Payload, workflow_id: str) -> Payload:
        key = self.keys.sealing_key()
        if key is None:
            key = await self._fetch(self.keys.renew)
        nonce = os.urandom(_NONCE_BYTES)
        bound = self._bound(workflow_id.encode())
        return Payload(
            metadata={
                _ENCODING_KEY: ENCODING,
                _WRAPPED_KEY: key.wrapped,
                _WORKFLOW_KEY: workflow_id.encode(),
            },
            data=nonce + key.cipher.encrypt(nonce, payload.SerializeToString(), bound),
        )

    def _bound(self, workflow_id: bytes) -> bytes:
        # The length keeps the two from running into each other.
        namespace = self._namespace.encode()
        return b"%b %d %b %b" % (ENCODING, len(namespace), namespace, workflow_id)

    async def _fetch(self, blocking: Callable[..., _Found], *arguments: bytes) -> _Found:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self.keys.threads, blocking, *arguments)
        try:
            return await asyncio.wait_for(call, _KEY_SECONDS)
        except TimeoutError:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "The secret store gives no payload key in time; it is tried again.",
                metadata={"dependency": "openbao"},
            ) from None


def workflow_of(payload: Payload) -> str | None:
    """Return the workflow that a sealed payload says it is of; None for one that is not sealed."""
    if payload.metadata.get(_ENCODING_KEY) != ENCODING:
        return None
    return payload.metadata[_WORKFLOW_KEY].decode(errors="replace")


def _serves(sealed_for: str, workflow_id: str) -> bool:
    if sealed_for == workflow_id:
        return True
    schedule, is_scheduled = _SCHEDULED_AT.subn("", workflow_id)
    return bool(is_scheduled) and schedule == _SCHEDULED_AT.sub("", sealed_for)


def _decrypt(cipher: AESGCM, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, bound)
    except (InvalidTag, ValueError):
        raise _not_readable() from None


def _not_readable() -> BulkheadError:
    return BulkheadError(
        Reason.INTERNAL,
        "A workflow's payload cannot be opened: it was changed, belongs to another workflow, or "
        "was sealed under another OpenBao than this one.",
        retryable=False,
    )
