"""What programs declare is asked of a process, of which nothing stays."""

import asyncio
from contextlib import suppress

import psutil
import pytest

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.stack import StackKind
from infra.stacks.declared import Declarations
from tests.infra.stacks.laboratory import until


def asked() -> list[psutil.Process]:
    """Return the processes that are asked."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "infra.stacks.declared" in child.cmdline():
                found.append(child)
    return found


async def test_the_programs_of_a_provider_are_asked_what_they_declare() -> None:
    declared = await Declarations().of(Provider.HCLOUD, StackKind.MACHINE)
    assert declared == {"server": "server"}
    assert asked() == []


async def test_whoever_is_cancelled_leaves_no_process_behind() -> None:
    asking = asyncio.create_task(Declarations().of(Provider.HCLOUD, StackKind.MACHINE))
    await until(lambda: bool(asked()))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asked() == []


async def test_a_process_that_does_not_answer_is_ended_and_asked_again_later() -> None:
    with pytest.raises(BulkheadError) as late:
        await Declarations(within_seconds=0.0).of(Provider.HCLOUD, StackKind.MACHINE)
    assert (late.value.reason, late.value.retryable) == (Reason.DEADLINE_EXCEEDED, True)
    assert asked() == []
