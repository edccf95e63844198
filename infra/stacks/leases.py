"""The right to act on a stack, kept up while something is done with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from domain.errors import BulkheadError, Reason
from infra.database.records.stack import StackLease, StackRecords
from infra.stacks.sessions import is_gone, new_holder
from infra.stacks.watch import RENEW_SECONDS


class HeldLease:
    """A lease that is being renewed.

    Attributes:
        lease: what its writes name.
        lost: set when another one took the stack over.
        on_renewal: called after each renewal.
    """

    def __init__(self, lease: StackLease) -> None:
        self.lease = lease
        self.lost = asyncio.Event()
        self.on_renewal: Callable[[], None] = lambda: None


@asynccontextmanager
async def hold(records: StackRecords, workspace_id: str, stack_id: str) -> AsyncIterator[HeldLease]:
    """Hold a stack as long as the block lasts.

    Raises:
        BulkheadError: ABORTED, which may be tried again, while another one holds it; NOT_FOUND.
    """
    lease = await records.take_lease(workspace_id, stack_id, new_holder(), is_gone)
    held = HeldLease(lease)
    renewing = asyncio.create_task(_renew(records, held))
    try:
        yield held
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        # A database that does not answer is no reason to fail: the lease ends by itself.
        with suppress(BulkheadError):
            await asyncio.shield(records.release_lease(lease))


async def _renew(records: StackRecords, held: HeldLease) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await records.renew_lease(held.lease)
        except BulkheadError as error:
            if error.reason is Reason.ABORTED:
                held.lost.set()
                return
            # Runners end by themselves when they hear of no renewal for long.
            continue
        held.on_renewal()
