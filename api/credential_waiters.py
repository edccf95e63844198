"""Operations that wait for another credential: told when there may be one."""

from collections.abc import Sequence
from functools import partial

from api.clients import Clients
from api.scope import RequestScope, run_after_commit
from infra.database.queries.compute import Waiter, find_waiters
from infra.temporal.start import tell_credential_changed


async def wake_waiters_of(scope: RequestScope, secret_id: str) -> None:
    """Have the operations that wait for a secret's credential look again, after the commit.

    Without this they notice with their next look at the rows.
    """
    waiters = await find_waiters(scope.session, secret_id)
    if waiters:
        scope.after_commit.append(partial(_tell, scope.clients, waiters))


async def wake(clients: Clients, waiters: Sequence[Waiter]) -> None:
    """Do the same where what has changed is committed by now."""
    if waiters:
        await run_after_commit(partial(_tell, clients, waiters))


async def _tell(clients: Clients, waiters: Sequence[Waiter]) -> None:
    client = await clients.temporal.client()
    for waiter in waiters:
        await tell_credential_changed(client, waiter.type, waiter.owner_id, waiter.operation_id)
