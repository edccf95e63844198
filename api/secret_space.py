"""Calls to OpenBao in a workspace's own namespace, which is made when it is first needed."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from api.clients import Clients
from domain.errors import BulkheadError
from infra.openbao.session import LOG_IN, MISSING_SPACE
from infra.temporal.secret_space import prepare_secret_space

_T = TypeVar("_T")


async def in_secret_space(clients: Clients, workspace_id: str, call: Callable[[], _T]) -> _T:
    """Run a blocking call to OpenBao; make the workspace's place there first when it has none.

    Raises:
        BulkheadError: what the call raises; DEPENDENCY_UNAVAILABLE when no worker made the place
            in time.
    """
    try:
        return await asyncio.to_thread(call)
    except BulkheadError as error:
        # While a worker makes the place, a login there is refused: its parts come one by one.
        refused = error.metadata.get("operation") == LOG_IN and "denied" in error.metadata
        if not refused and not MISSING_SPACE.items() <= error.metadata.items():
            raise
    await prepare_secret_space(await clients.temporal.client(), workspace_id)
    return await asyncio.to_thread(call)
