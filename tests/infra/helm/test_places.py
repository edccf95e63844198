"""Who gets a place of the host's for helm."""

import asyncio
import contextlib
from pathlib import Path

from infra.helm.places import Places
from infra.helm.program import Helm


def host_with_one_place() -> Helm:
    return Helm(Path("/nowhere"), Places(renders=1, deployments=1))


async def test_a_workspace_with_many_deployments_keeps_no_other_from_its_turn() -> None:
    helm, served = host_with_one_place(), list[str]()

    async def deploy(workspace: str) -> None:
        async with helm.place(workspace) as waited:
            assert waited
            served.append(workspace)

    async with asyncio.TaskGroup() as group, helm.place("many"):
        for workspace in ("many", "many", "many", "other", "third", "other"):
            group.create_task(deploy(workspace))
        await asyncio.sleep(0)
    assert served == ["many", "other", "third", "many", "other", "many"]


async def test_who_gives_up_waiting_takes_no_place() -> None:
    helm = host_with_one_place()

    async def wait() -> None:
        async with helm.place("a"):
            pass

    async with helm.place("a"):
        early, late = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.wait({early})
    # It has its turn, and is cancelled before it knows.
    late.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await late
    async with asyncio.timeout(10), helm.place("b") as waited:
        assert not waited
