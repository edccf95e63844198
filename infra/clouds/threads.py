"""Threads for providers' libraries, which block: for as long as a provider lets them wait.

They are apart from all other threads of the process, so that a provider that hangs holds up nothing
but what is asked of it. Of one credential a few are at work at a time, so that nobody takes all.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

Result = TypeVar("Result")

# A thread that waits holds little, and none is made before it is needed.
_THREADS: Final = 128
_OF_A_CREDENTIAL: Final = 8

_pool: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="clouds")
_turns: Final[WeakValueDictionary[str, asyncio.Semaphore]] = WeakValueDictionary()


async def in_thread(
    secret_id: str, work: Callable[[], Result], *, only_reads: bool = False
) -> Result:
    """Do blocking work in a thread, when it is the credential's turn.

    Args:
        secret_id: whose value is the credential.
        work: what to do.
        only_reads: it changes nothing. Else a cancel waits for its end, so that nothing runs
            beside it.
    """
    turns = _turns.setdefault(secret_id, asyncio.Semaphore(_OF_A_CREDENTIAL))
    async with turns:
        in_context = partial(copy_context().run, work)
        done = asyncio.get_running_loop().run_in_executor(_pool, in_context)
        if only_reads:
            return await done
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait({done})
            raise
