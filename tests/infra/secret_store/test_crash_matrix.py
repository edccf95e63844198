"""A process may die before and after every effect, and die again while that is mended.

Each case kills one saga at one moment, then either its repetition or its settlement at another one,
and lets what runs on a schedule have its way. Nothing that may never be, may be there at the end.
"""

import asyncio
import contextlib
import itertools
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from domain.caller import Caller
from domain.errors import BulkheadError
from domain.secret import SecretPlace, SecretState
from tests.infra.secret_store.faults import Crash
from tests.infra.secret_store.world import Secret, World

CASES_OF_THE_SAMPLE: Final = 50
CRASHES_OF_THE_MATRIX: Final = 1000

# Listing a workspace's values takes a request for each secret.
CASES_A_WORKSPACE: Final = 20


class Saga(ABC):
    """One saga on one secret; `again` is what its caller does who got no answer."""

    def __init__(self, world: World, caller: Caller) -> None:
        self.world, self.caller = world, caller
        self.secret = Secret(SecretPlace(workspace_id=caller.workspace_id, secret_id=""))

    async def prepare(self) -> None:
        """Bring about the state before."""
        self.secret = await self.world.new_secret(self.caller, versions=2)

    @abstractmethod
    async def run(self) -> None:
        """Do it."""

    async def again(self) -> None:
        """Do it once more."""
        await self.run()

    async def settle(self) -> None:
        """Do what runs on schedules."""
        for version_id in list(self.secret.values):
            await self.world.settlement.settle(self.secret.version(version_id))
        row = await self.world.row(self.secret)
        if row is not None and row.state is SecretState.PURGING:
            await self.world.purges.purge_values(self.secret.place)
            await self.world.purges.record(self.secret.place)

    async def violations(self) -> list[str]:
        """Return what is wrong in the end."""
        return await self.world.violations(self.secret)


class Creating(Saga):
    async def prepare(self) -> None:
        pass

    async def run(self) -> None:
        await self.world.create(self.caller, self.secret)

    async def again(self) -> None:
        known = {version.id for version in await self.world.versions(self.secret)}
        # Without a committed intent nobody goes on.
        if self.begun not in known:
            return
        # It may have been given up meanwhile.
        with contextlib.suppress(BulkheadError):
            version = self.secret.version(self.begun)
            await self.world.store(version, self.secret.values[self.begun])

    @property
    def begun(self) -> str:
        """The version that is added."""
        return list(self.secret.values)[-1] if self.secret.values else ""


class Adding(Creating):
    async def prepare(self) -> None:
        await Saga.prepare(self)

    async def run(self) -> None:
        await self.world.add(self.secret)


class GivingUp(Saga):
    """A rotation that ended in the middle: its pending version was seen by nobody."""

    async def run(self) -> None:
        await self.world.begin_pending(self.secret)

    async def again(self) -> None:
        # A thread of the rotation that still writes, late.
        version_id, value = list(self.secret.values.items())[-1]
        known = {version.id for version in await self.world.versions(self.secret)}
        if version_id in known:
            place = self.secret.version(version_id)
            with contextlib.suppress(BulkheadError):
                await asyncio.to_thread(self.world.values.write, place, value, audit_id="aud_x")


class Destroying(Saga):
    async def run(self) -> None:
        await self.world.destroy(self.secret, list(self.secret.values)[1])


class Purging(Saga):
    async def run(self) -> None:
        await self.world.purge(self.secret)

    async def violations(self) -> list[str]:
        wrong = await super().violations()
        if await self.world.row(self.secret) is not None:
            return wrong
        wrong += [
            f"{await self.world.look(self.secret, version_id)} after the purge"
            for version_id in self.secret.values
            if await self.world.look(self.secret, version_id) != "absent"
        ]
        secret_id = self.secret.place.secret_id
        (tombstones,) = self.world.administrator.execute(
            "SELECT count(*), min(array_length(version_ids, 1)) FROM secret_tombstones"
            " WHERE secret_id = %s",
            (secret_id,),
        ).fetchall()
        if tombstones != (1, len(self.secret.values)):
            wrong.append(f"tombstones: {tombstones}")
        entry = (await asyncio.to_thread(self.world.ledger.entries)).get(secret_id)
        if entry is None or set(entry.version_ids) != set(self.secret.values):
            wrong.append("the ledger does not know of it")
        return wrong


SAGAS: Final = (Creating, Adding, GivingUp, Destroying, Purging)


@dataclass(frozen=True)
class Case:
    """Where one saga dies, and where what mends it dies."""

    saga: type[Saga]
    dies_at: int
    repeats: bool
    mending_dies_at: int


@dataclass
class Tally:
    """What came of the cases."""

    cases: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    violations: list[str] = field(default_factory=list)


async def moments_of(world: World, caller: Caller, saga: type[Saga]) -> int:
    """Count the moments of a saga that nothing happens to."""
    one = saga(world, caller)
    await one.prepare()
    world.faults.arm(None)
    await one.run()
    return world.faults.passed


async def every_case(world: World, caller: Caller) -> list[Case]:
    order = random.Random(4)
    of_sagas: list[list[Case]] = []
    for saga in SAGAS:
        moments = range(await moments_of(world, caller, saga))
        cases = [Case(saga, *rest) for rest in itertools.product(moments, (True, False), moments)]
        order.shuffle(cases)
        of_sagas.append(cases)
    # In turns: the longest saga has by far the most cases.
    turns = itertools.zip_longest(*of_sagas)
    return [case for turn in turns for case in turn if case is not None]


async def workspaces(world: World) -> AsyncIterator[Caller]:
    while True:
        caller = await world.new_workspace()
        for _ in range(CASES_A_WORKSPACE):
            yield caller


async def dies(world: World, moment: int, work: Saga, *, repeats: bool | None) -> None:
    """Run a saga, its repetition or its settlement until it dies, or to its end."""
    world.faults.arm(moment)
    with contextlib.suppress(Crash):
        match repeats:
            case None:
                await work.run()
            case True:
                await work.again()
            case False:
                await work.settle()
    world.faults.arm(None)


async def go_through(world: World, case: Case, caller: Caller) -> list[str]:
    saga = case.saga(world, caller)
    world.faults.arm(None)
    await saga.prepare()
    await dies(world, case.dies_at, saga, repeats=None)
    await dies(world, case.mending_dies_at, saga, repeats=case.repeats)
    await saga.settle()
    await saga.settle()
    # Whoever was believed dead goes on.
    if isinstance(saga, Creating | GivingUp):
        await saga.again()
    return await saga.violations()


async def tally(world: World, cases: list[Case], *, until_crashes: int | None = None) -> Tally:
    result, before = Tally(), world.faults.crashes
    of_case = workspaces(world)
    for case in cases:
        wrong = await go_through(world, case, await anext(of_case))
        result.cases[case.saga.__name__] += 1
        result.violations += [f"{case}: {what}" for what in wrong]
        result.crashes = world.faults.crashes - before
        if until_crashes is not None and result.crashes >= until_crashes:
            break
    await of_case.aclose()  # type: ignore[attr-defined] # it is a generator
    print(  # noqa: T201 - the figures
        f"\ncrash matrix: {result.crashes} crashes in {dict(result.cases)} cases, "
        f"{len(result.violations)} violations"
    )
    return result


async def test_a_sample_of_crashes_leaves_nothing_half_done(world: World, caller: Caller) -> None:
    cases = await every_case(world, caller)
    result = await tally(world, cases[:CASES_OF_THE_SAMPLE])
    assert result.crashes > CASES_OF_THE_SAMPLE
    assert result.violations == []


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_a_thousand_crashes_leave_nothing_half_done(world: World, caller: Caller) -> None:
    cases = await every_case(world, caller)
    result = await tally(world, cases, until_crashes=CRASHES_OF_THE_MATRIX)
    assert result.crashes >= CRASHES_OF_THE_MATRIX
    assert result.violations == []
