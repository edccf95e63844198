"""Workers' calls in the place that a workspace has in OpenBao, also where it has none."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from domain.errors import BulkheadError
from infra.openbao.client import OpenBao
from infra.openbao.session import MISSING_SPACE

Found = TypeVar("Found")
Otherwise = TypeVar("Otherwise")


def is_missing_space(error: BulkheadError) -> bool:
    """Tell whether a call failed because the workspace has no namespace."""
    return MISSING_SPACE.items() <= error.metadata.items()


async def in_space(openbao: OpenBao, workspace_id: str, call: Callable[[], Found]) -> Found:
    """Run a blocking call, and once more in a fresh namespace where there was none.

    Raises:
        BulkheadError: what the call raises.
    """
    try:
        return await asyncio.to_thread(call)
    except BulkheadError as error:
        if not is_missing_space(error):
            raise
    await asyncio.to_thread(openbao.ensure_secret_space, workspace_id)
    return await asyncio.to_thread(call)


async def unless_missing(call: Callable[[], Found], otherwise: Otherwise) -> Found | Otherwise:
    """Run a blocking call; the other answer where the workspace has no namespace.

    Raises:
        BulkheadError: what the call raises.
    """
    try:
        return await asyncio.to_thread(call)
    except BulkheadError as error:
        if is_missing_space(error):
            return otherwise
        raise
