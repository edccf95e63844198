"""One lazily made connection a process."""

import asyncio

from temporalio.client import Client
from temporalio.service import RPCError

from domain.errors import BulkheadError, Reason
from infra.settings import TemporalSettings

# A request never waits longer than this for the connection: its operation is committed, and the
# reconciler starts what could not be started.
_CONNECT_SECONDS = 2


class TemporalConnection:
    """Connects at first use, so that the API answers while Temporal is away."""

    def __init__(self, settings: TemporalSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def client(self) -> Client:
        """Return the client.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
        """
        async with self._lock:
            if self._client is None:
                try:
                    self._client = await asyncio.wait_for(
                        Client.connect(self._settings.address, namespace=self._settings.namespace),
                        _CONNECT_SECONDS,
                    )
                except (RPCError, RuntimeError, TimeoutError) as error:
                    raise unavailable() from error
            return self._client


def unavailable() -> BulkheadError:
    """Return the typed failure for a Temporal server that does not answer."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The workflow engine does not answer; accepted work starts by itself when it is back.",
        metadata={"dependency": "temporal"},
    )
