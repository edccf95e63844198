"""What the clock looks at in customers' accounts: leaks, and servers that are gone.

Each account is looked at within the budget of its credential. One that cannot be, because its
credential is refused or its provider does not answer, is said to be so, and holds up no other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from domain.caller import system_caller
from domain.cloud import SERVER, CloudResource
from domain.cloud_account import Account, OpenedAs
from domain.errors import BulkheadError
from domain.inventory import Standing, is_young, judge
from domain.secret import CURRENT
from infra.clouds.accounts import Accounts
from infra.clouds.cloud import Cloud
from infra.clouds.removal import remove_all
from infra.clouds.same_account import check_some_of, other_account
from infra.clouds.threads import in_thread
from infra.database.records.account import AccountRecords, Leak, ServedMachine, VisitedAccount
from infra.database.records.inventory import InventoryRecords

LEAKS: Final = "sweep-leaks"
MACHINES: Final = "reconcile-machines"

# An inventory asks for each kind of thing once, in as many pages as there are.
_CALLS: Final = 20

# At once: a visit waits for a provider most of the time, and holds little.
_ACCOUNTS_AT_ONCE: Final = 4

_ELSEWHERE: Final = (
    "The credential of now is of another account than the one in which this was found. Add a"
    " version of the secret with a credential of that account, and it is looked after again; or, if"
    " that account is lost, have the compute config name the version of now."
)
_STOPPED: Final = "An emergency stop is in force: nothing is removed before it is lifted."

Visit = Callable[[VisitedAccount, Cloud], Awaitable[int]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visited:
    """What one pass came to.

    Attributes:
        accounts: that were looked at.
        failed: that could not be.
        found: things that nobody wants, or machines whose server is gone, that were not known.
    """

    accounts: int = 0
    failed: int = 0
    found: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What one look into an account came to.

    Attributes:
        found: all that it has of the workspace.
        opened: as what it was opened.
        same: the other versions of the secret that are proved to be of this account.
    """

    found: Sequence[CloudResource]
    opened: OpenedAs
    same: frozenset[str]


class AccountVisits:
    """The passes over all accounts."""

    def __init__(
        self, accounts: Accounts, records: AccountRecords, inventories: InventoryRecords
    ) -> None:
        self._accounts = accounts
        self._records = records
        self._inventories = inventories

    async def sweep_leaks(self) -> Visited:
        """Find what nobody wants; remove what is surely ours, and keep the rest as findings.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        return await self._visit_all(await self._records.accounts(), LEAKS, self._sweep)

    async def reconcile_machines(self) -> Visited:
        """Find machines whose server is gone; nothing is mended, a person decides.

        Which have no node in their cluster is seen by the keeper, which looks at each cluster.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        accounts = await self._records.accounts()
        # Where there is no machine nothing is asked, and no credential is read for it.
        serving = [one for one in accounts if await self._records.served_machines(one)]
        return await self._visit_all(serving, MACHINES, self._reconcile)

    async def _visit_all(
        self, accounts: Sequence[VisitedAccount], schedule: str, visit: Visit
    ) -> Visited:
        places = asyncio.Semaphore(_ACCOUNTS_AT_ONCE)

        async def one(visited: VisitedAccount) -> int | None:
            async with places:
                return await self._visit(visited, schedule, visit)

        results = await asyncio.gather(*map(one, accounts))
        done = [result for result in results if result is not None]
        failed = len(results) - len(done)
        return Visited(accounts=len(done), failed=failed, found=sum(done))

    async def _visit(self, visited: VisitedAccount, schedule: str, visit: Visit) -> int | None:
        try:
            async with self._accounts.opened(
                visited.account,
                system_caller(visited.workspace_id, schedule),
                operation_id=schedule,
                calls=_CALLS,
            ) as cloud:
                result = await visit(visited, cloud)
        except BulkheadError as error:
            problem = error.message
        except Exception as error:
            # One account's surprise must not end the care for all the others.
            problem = f"Unexpected {type(error).__name__}; the worker's log has the place."
            log.exception("unexpected failure of a visit", workspace_id=visited.workspace_id)
        else:
            await self._records.note_look(visited, None)
            return result
        await self._records.note_look(visited, problem)
        await self._records.blame(visited, problem)
        log.warning(
            "an account cannot be looked at",
            workspace_id=visited.workspace_id,
            compute_config_id=visited.account.compute_config_id,
            message=problem,
        )
        return None

    async def _inventory(self, visited: VisitedAccount, cloud: Cloud) -> _Seen:
        """Return all that an account has of its workspace.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when it is not the account that it was.
        """
        opened, secret_id = self._accounts.opened_as(cloud), visited.account.secret_id
        if await self._records.is_elsewhere(visited, opened):
            raise other_account(secret_id)
        look = partial(cloud.inventory, visited.workspace_id)
        found = await in_thread(secret_id, look, only_reads=True)
        groups = await self._records.unseen_with(visited, opened)
        for made in groups.values():
            check_some_of(made, found, secret_id)
        return _Seen(found=found, opened=opened, same=frozenset(groups))

    async def _sweep(self, visited: VisitedAccount, cloud: Cloud) -> int:
        workspace_id = visited.workspace_id
        before = await self._records.open_leaks(visited)
        seen = await self._inventory(visited, cloud)
        found = seen.found
        # After the account: what is made has its row before.
        stack_ids = sorted({thing.stack_id for thing in found if thing.stack_id is not None})
        stacks = await self._records.stacks(workspace_id, stack_ids)
        unwanted = [
            (thing, standing)
            for thing, standing in judge(found, stacks)
            if standing is not Standing.WANTED
        ]
        now, known = datetime.now(UTC), {leak.key for leak in before}
        old = [
            (thing, standing)
            for thing, standing in unwanted
            if (thing.kind, thing.id) in known or not is_young(thing, now)
        ]
        things = [thing for thing, _ in old]
        await self._inventories.record_leaks(visited.account, seen.opened, things, {})
        if await self._records.is_stopped(visited):
            await self._records.blame(visited, _STOPPED)
        else:
            ours = [thing for thing, what in old if what is Standing.OURS]
            await self._remove(visited, cloud, ours)
        still = {(thing.kind, thing.id) for thing, _ in unwanted}
        gone = [leak for leak in before if leak.key not in still]
        here = {leak.id for leak in gone if _is_in(leak, before, seen, visited.account)}
        await self._records.resolve_leaks(workspace_id, sorted(here))
        elsewhere = [leak.id for leak in gone if leak.id not in here]
        if elsewhere:
            await self._records.blame(visited, _ELSEWHERE, elsewhere)
        return sum((thing.kind, thing.id) not in known for thing in things)

    async def _remove(
        self, visited: VisitedAccount, cloud: Cloud, things: Sequence[CloudResource]
    ) -> None:
        if not things:
            return
        left = await in_thread(visited.account.secret_id, partial(remove_all, cloud, things))
        errors = {item.resource.id: item.error for item in left}
        kept = [item.resource for item in left]
        opened = self._accounts.opened_as(cloud)
        await self._inventories.record_leaks(visited.account, opened, kept, errors)
        still = {(thing.kind, thing.id) for thing in kept}
        removed = {(thing.kind, thing.id) for thing in things} - still
        leaks: list[Leak] = await self._records.open_leaks(visited)
        gone = [leak.id for leak in leaks if leak.key in removed]
        await self._records.resolve_leaks(visited.workspace_id, gone)
        log.warning(
            "removed what nobody wanted",
            workspace_id=visited.workspace_id,
            removed=len(removed),
            left=len(kept),
        )

    async def _reconcile(self, visited: VisitedAccount, cloud: Cloud) -> int:
        machines = await self._records.served_machines(visited)
        found = (await self._inventory(visited, cloud)).found
        servers = {thing.stack_id for thing in found if thing.resource == SERVER}
        news = 0
        for machine in machines:
            missing = machine.stack_id not in servers and await _is_gone(visited, cloud, machine)
            changed = await self._records.note_server(
                visited, machine, schedule=MACHINES, missing=missing
            )
            if changed and missing:
                news += 1
                log.warning("a server is gone", machine_id=machine.machine_id)
        return news


def _is_in(leak: Leak, leaks: Sequence[Leak], seen: _Seen, account: Account) -> bool:
    """Tell whether a finding, if there is such a thing any more, is in the account that was seen.

    A version that a person named is believed. Where the provider does not tell the account, one
    thing that was seen with the finding's version, and is there, is enough.
    """
    if account.version != CURRENT or leak.version_id in {None, seen.opened.version_id, *seen.same}:
        return True
    if leak.account_id is not None and seen.opened.account_id is not None:
        return leak.account_id == seen.opened.account_id
    there = {(thing.kind, thing.id) for thing in seen.found}
    return any(one.version_id == leak.version_id and one.key in there for one in leaks)


async def _is_gone(visited: VisitedAccount, cloud: Cloud, machine: ServedMachine) -> bool:
    """Tell whether there is no such server, rather than one that lost its tags."""
    look = partial(cloud.describe, machine.server_id)
    return await in_thread(visited.account.secret_id, look, only_reads=True) is None
