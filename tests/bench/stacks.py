"""Our runner beside a bare `up` of the same program, and many runs at once on the stacks' queue.

Both use the real engine, the same provider program against the same API on loopback, and states
in the same PostgreSQL; they take turns. Memory is the peak of all processes that a run started,
in resident bytes; the worker itself and a bare caller's shell are not counted.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psutil

from domain.cloud import Provider
from domain.identifiers import Prefix, new_id
from domain.names import STACKS_TASK_QUEUE
from domain.stack import StackAction, StackProgram
from infra.database.engine import Database, DatabaseRole
from infra.local_cloud.provider_programs.install import install
from infra.local_cloud.serving import served
from infra.openbao.client import OpenBao
from infra.settings import StackSettings
from infra.stacks import sessions
from infra.stacks.backend import StateBackend, table_of
from infra.stacks.request import StackRequest
from infra.stacks.stacks import Stacks
from infra.supervisor.configuration import source_root
from infra.tools import toolbox
from tests.bench.measure import Figures, compare, say, spread
from tests.bench.stack_queue import run_at_once
from tests.clouds.case import LocalAccount
from tests.infra.stacks.conftest import CASES
from tests.infra.stacks.laboratory import Laboratory, new_workspace
from tests.servers import Servers, running_servers

ROUNDS: Final = 7
AT_ONCE: Final = 12
# What a slot is reckoned with, as an operator is told: slots times it is the budget of all runs.
RUN_MIB: Final = 350
_MIB: Final = 1024 * 1024
_SAMPLE_SECONDS: Final = 0.05


def measure() -> Figures:
    """Run on servers of its own."""
    with (
        running_servers() as servers,
        ExitStack() as clouds,
        tempfile.TemporaryDirectory() as directory,
    ):
        work = Path(directory)
        urls = {provider: clouds.enter_context(served(provider)) for provider in Provider}
        install(work / "pulumi")
        settings = StackSettings(
            directory=work / "runs",
            pulumi_home=work / "pulumi",
            programs_dir=toolbox.ensure(["pulumi"])["pulumi"].parent,
        )
        settings.directory.mkdir()
        return asyncio.run(_measure(servers, urls, settings, work))


async def _measure(
    servers: Servers, urls: Mapping[Provider, str], settings: StackSettings, work: Path
) -> Figures:
    database = Database(servers.database, DatabaseRole.WORKER)
    openbao = OpenBao(servers.openbao("worker"))
    stacks = Stacks(database, openbao, servers.database, settings)
    workspace_id = await new_workspace(servers, openbao)
    laboratories = {
        provider: Laboratory(
            servers=servers,
            database=database,
            openbao=openbao,
            stacks=stacks,
            settings=settings,
            account=LocalAccount(
                case=CASES[provider], url=url, credential=CASES[provider].credential(url)
            ),
            workspace_id=workspace_id,
        )
        for provider, url in urls.items()
    }
    say(f"{ROUNDS} networks at Hetzner made by each, and looked at again")
    figures = await _overhead(laboratories[Provider.HCLOUD], work)
    say(f"{AT_ONCE} machines at once at three providers, {settings.slots} slots of {RUN_MIB} MiB")
    figures["at_once"] = await _at_once(list(laboratories.values()))
    await stacks.close()
    await database.close()
    openbao.close()
    return figures


async def _overhead(laboratory: Laboratory, work: Path) -> Figures:
    bare = _Bare(laboratory, work)
    # The first run of each loads what the kernel then keeps.
    taken: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    again: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for number in range(ROUNDS + 1):
        theirs, ours = await laboratory.plan_network(), await laboratory.plan_network()
        measured = {
            "bare": [await asyncio.to_thread(bare.up, theirs) for _ in range(2)],
            "ours": [await _ours(laboratory, ours) for _ in range(2)],
        }
        if number:
            for who, (first, second) in measured.items():
                taken[who].append(first)
                again[who].append(second)
    return {
        "up_wall": _compare(taken, 0, "s"),
        "up_memory": _compare(taken, 1, "MiB"),
        "up_again_wall": _compare(again, 0, "s"),
        "up_again_memory": _compare(again, 1, "MiB"),
    }


def _compare(taken: dict[str, list[tuple[float, float]]], column: int, unit: str) -> Figures:
    bare, ours = ([one[column] for one in taken[who]] for who in ("bare", "ours"))
    return compare(bare, ours, unit)


class _Bare:
    """Runs `bare_stack` with an environment as it needs it."""

    def __init__(self, laboratory: Laboratory, work: Path) -> None:
        self._laboratory = laboratory
        self._work = work
        passphrase = work / "passphrase"
        passphrase.write_text(secrets.token_urlsafe())
        backend = StateBackend(laboratory.servers.database)
        state = backend.environment(laboratory.workspace_id, 0)
        # A table without a fence.
        state["PULUMI_BACKEND_URL"] = state["PULUMI_BACKEND_URL"].replace(
            f"&table={table_of(laboratory.workspace_id)}", "&table=bare"
        )
        program = laboratory.settings.programs_dir
        self._environment = {
            **os.environ,
            **state,
            **laboratory.cloud.environment(),
            "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.fspath(source_root()),
            "PULUMI_HOME": os.fspath(laboratory.settings.pulumi_home),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_CONFIG_PASSPHRASE_FILE": os.fspath(passphrase),
        }

    def up(self, program: StackProgram) -> tuple[float, float]:
        """Return seconds and the peak of the memory in MiB."""
        request = StackRequest(
            action=StackAction.UP, program=program, operation_id=new_id(Prefix.OPERATION), fence=0
        )
        path = self._work / "request.json"
        path.write_text(json.dumps(request.as_json()))
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bare_stack", os.fspath(path)],
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        tree = psutil.Process(process.pid)
        with _peak(lambda: [tree, *tree.children(recursive=True)]) as peak:
            assert process.wait() == 0
        return time.monotonic() - started, peak()


async def _ours(laboratory: Laboratory, program: StackProgram) -> tuple[float, float]:
    started = time.monotonic()
    with _peak(lambda: _marked(program)) as peak:
        await laboratory.run(StackAction.UP, program)
    return time.monotonic() - started, peak()


async def _at_once(laboratories: Sequence[Laboratory]) -> Figures:
    planned: list[tuple[Laboratory, StackProgram]] = []
    for laboratory in laboratories:
        network = await laboratory.run(StackAction.UP, await laboratory.plan_network())
        planned += [
            (laboratory, await laboratory.plan_machine(network.outputs))
            for _ in range(AT_ONCE // len(laboratories))
        ]
    settings, temporal = laboratories[0].settings, laboratories[0].servers.temporal
    taken: list[float] = []
    running, most = 0, 0

    async def run(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        laboratory, program = planned[number]
        started = time.monotonic()
        await laboratory.run(StackAction.UP, program)
        taken.append(time.monotonic() - started)
        running -= 1

    def processes() -> list[psutil.Process]:
        return [process for _, program in planned for process in _marked(program)]

    started = time.monotonic()
    with _peak(processes) as peak:
        await run_at_once(temporal.address, STACKS_TASK_QUEUE, settings.slots, len(planned), run)
    wall = time.monotonic() - started
    return {
        "runs": len(planned),
        "slots": settings.slots,
        "most_at_a_time": most,
        "wall_seconds": round(wall, 1),
        "run_seconds": spread(taken),
        "peak_memory_mib": round(peak()),
        "budget_mib": settings.slots * RUN_MIB,
        "within_limit": most <= settings.slots and peak() <= settings.slots * RUN_MIB,
        "servers": sum([len(await one.inventory(program)) for one, program in planned]),
    }


def _marked(program: StackProgram) -> list[psutil.Process]:
    found = []
    for process in sessions.processes_of(program.stack_id):
        try:
            found.append(psutil.Process(process))
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def _peak(processes: Callable[[], list[psutil.Process]]) -> Iterator[Callable[[], float]]:
    """Sample the resident memory of processes; gives the peak of their sum in MiB."""
    greatest, ended = 0, threading.Event()

    def sample() -> None:
        nonlocal greatest
        while not ended.wait(_SAMPLE_SECONDS):
            try:
                resident = sum(process.memory_info().rss for process in processes())
            except psutil.NoSuchProcess:
                continue
            greatest = max(greatest, resident)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: greatest / _MIB
    finally:
        ended.set()
        thread.join()
