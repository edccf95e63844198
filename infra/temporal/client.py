"""The only code that connects to Temporal: lazily, and with every payload sealed."""

import asyncio
import dataclasses

from temporalio.client import Client
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.service import RPCError

from domain.errors import BulkheadError, Reason
from infra.openbao.session import OpenBaoSession
from infra.settings import OpenBaoSettings, TemporalSettings
from infra.temporal.codec import SealingCodec
from infra.temporal.payload_keys import PayloadKeys

# A request never waits longer than this for the connection: its operation is committed, and the
# reconciler starts what could not be started.
_CONNECT_SECONDS = 2


class TemporalConnection:
    """Connects at first use, so that the API answers while Temporal is away.

    Args:
        settings: where Temporal is.
        openbao: where the keys of the payloads are.
        principal: under whose login this process asks OpenBao.
    """

    def __init__(
        self, settings: TemporalSettings, openbao: OpenBaoSettings, principal: str
    ) -> None:
        self._settings = settings
        self._keys = PayloadKeys(OpenBaoSession(openbao, principal))
        self.codec = SealingCodec(settings.namespace, self._keys)
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    @property
    def namespace(self) -> str:
        """The Temporal namespace that is ours."""
        return self._settings.namespace

    @property
    def data_converter(self) -> DataConverter:
        """What seals and opens payloads. A codec alone would leave failures' texts readable."""
        return dataclasses.replace(
            DataConverter.default,
            payload_codec=self.codec,
            failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        )

    async def client(self) -> Client:
        """Return the client.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
        """
        async with self._lock:
            if self._client is None:
                connecting = Client.connect(
                    self._settings.address,
                    namespace=self._settings.namespace,
                    data_converter=self.data_converter,
                )
                try:
                    self._client = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
                except (RPCError, RuntimeError, TimeoutError) as error:
                    raise unavailable() from error
                # At hand before OpenBao may be away; without one it is asked for when needed.
                self._keys.prefetch()
            return self._client

    def close(self) -> None:
        """Close the connections to OpenBao; Temporal's ends with the process."""
        self._keys.close()


def unavailable() -> BulkheadError:
    """Return the typed failure for a Temporal server that does not answer."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The workflow engine does not answer; accepted work starts by itself when it is back.",
        metadata={"dependency": "temporal"},
    )
