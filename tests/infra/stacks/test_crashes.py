"""Whatever is killed in the middle: the next run makes nothing twice and leaves nothing."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import boto3
import pytest

from domain.cloud import Provider, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.stack import StackAction, StackProgram
from infra.stacks import sessions
from infra.stacks.recovery import survey
from infra.stacks.request import StackRequest, StackResult
from infra.stacks.runs import StackRuns
from infra.supervisor.configuration import source_root
from tests.infra.stacks.laboratory import Laboratory, kill, until
from tests.infra.stacks.second_worker import arguments_of
from tests.infra.stacks.test_runs import state_of

ENGINE, RUNNER, PROVIDER = "pulumi --non-interactive up", "stacks.runner", "provider_program"
# A runner without its worker has ended all by then.
ABANDONED_SECONDS = 30.0
ONE_IN_SHORT = [
    Provider.HCLOUD,
    *(pytest.param(one, marks=pytest.mark.full) for one in (Provider.AWS, Provider.GCP)),
]


def has(laboratory: Laboratory, program: StackProgram) -> Callable[[], bool]:
    """Return a condition: the account has something of the stack."""
    return lambda: bool(laboratory.cloud.inventory(program.workspace_id, program.stack_id))


async def new_machine(laboratory: Laboratory) -> StackProgram:
    network = await laboratory.run(StackAction.UP, await laboratory.plan_network())
    return await laboratory.plan_machine(network.outputs)


def hold_up(laboratory: Laboratory, *, seconds: int) -> None:
    """Let the making of a server stop where it exists and is not finished."""
    laboratory.account.disturb(
        kind="slow", call=laboratory.case.finishes_server, delay_seconds=seconds
    )


async def in_the_middle(laboratory: Laboratory, program: StackProgram) -> "asyncio.Task[object]":
    """Start an `up` and wait until the provider has something that the state does not know."""
    hold_up(laboratory, seconds=8)
    running = asyncio.create_task(laboratory.run(StackAction.UP, program))
    condition = has(laboratory, program)
    await until(lambda: running.done() or condition())
    assert not running.done()
    laboratory.account.heal()
    return running


async def die_in_the_middle(laboratory: Laboratory, program: StackProgram) -> None:
    """Have an `up` whose engine is killed while the provider has a part of it."""
    running = await in_the_middle(laboratory, program)
    assert kill(program, ENGINE)
    with pytest.raises(BulkheadError):
        await running


async def check_one_server(laboratory: Laboratory, program: StackProgram) -> None:
    """Run again: the one server is adopted; then remove everything."""
    before = laboratory.cloud.inventory(program.workspace_id, program.stack_id)
    result = await laboratory.run(StackAction.UP, program)
    after = laboratory.cloud.inventory(program.workspace_id, program.stack_id)
    assert [one.id for one in after] == [one.id for one in before] == [result.resources["server"]]
    assert set((await laboratory.run(StackAction.UP, program)).changes) == {"same"}
    await laboratory.run(StackAction.DESTROY, program)
    assert await laboratory.stacks.remove_left(program, laboratory.cloud) == []


@pytest.mark.parametrize("laboratory", ONE_IN_SHORT, indirect=True)
async def test_an_engine_killed_in_the_middle_leaves_nothing_twice(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    await die_in_the_middle(laboratory, program)

    await laboratory.run(StackAction.UP, program)

    assert await laboratory.names(program) == laboratory.declared(program)
    await laboratory.run(StackAction.DESTROY, program)
    assert await laboratory.inventory(program) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_a_half_of_a_network_that_cannot_be_taken_over_is_removed_and_made_anew(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = await laboratory.plan_network()
    await die_in_the_middle(laboratory, program)
    half = laboratory.ids(program, "network")
    refused, really_run = list[StackRequest](), StackRuns.run

    async def run(runs: StackRuns, request: StackRequest, *more: Any) -> StackResult:  # noqa: ANN401
        if request.action is StackAction.UP and not refused:
            # As a route says that is there, has no tags, and is in no state.
            refused.append(request)
            raise BulkheadError(Reason.CONFLICT, "It exists already.")
        return await really_run(runs, request, *more)

    monkeypatch.setattr(StackRuns, "run", run)
    await laboratory.run(StackAction.UP, program)

    assert refused[0].after_crash
    assert await laboratory.names(program) == laboratory.declared(program)
    if laboratory.case.provider is not Provider.GCP:
        # Google's ids are names, which are the same again.
        assert not half & laboratory.ids(program, "network")


@pytest.mark.full
@pytest.mark.parametrize("part", [ENGINE, RUNNER, PROVIDER], ids=["engine", "runner", "provider"])
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_no_server_is_made_twice_whatever_is_killed(
    laboratory: Laboratory, part: str
) -> None:
    program = await new_machine(laboratory)
    running = await in_the_middle(laboratory, program)
    assert kill(program, part)
    with pytest.raises(BulkheadError) as failure:
        await running
    assert failure.value.reason in {Reason.INTERNAL, Reason.DEPENDENCY_UNAVAILABLE}
    assert sessions.processes_of(program.stack_id) == []

    await check_one_server(laboratory, program)


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_a_lock_of_the_dead_is_broken_and_their_calls_forgotten(
    laboratory: Laboratory,
) -> None:
    program = await new_machine(laboratory)
    await die_in_the_middle(laboratory, program)
    left = await state_of(laboratory, program)
    assert left is not None
    assert (left.pending, left.locks) == (1, 1)

    await laboratory.run(StackAction.UP, program)

    state = await state_of(laboratory, program)
    assert state is not None
    assert (state.pending, state.locks) == (0, 0)


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_what_a_killed_run_made_goes_with_a_destroy(laboratory: Laboratory) -> None:
    program = await new_machine(laboratory)
    await die_in_the_middle(laboratory, program)

    await laboratory.run(StackAction.DESTROY, program)

    assert await laboratory.inventory(program) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_a_killed_destroy_is_finished_by_the_next(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    await laboratory.run(StackAction.UP, program)
    whole = len(await laboratory.inventory(program))
    running = asyncio.create_task(laboratory.run(StackAction.DESTROY, program))
    await until(
        lambda: len(laboratory.cloud.inventory(program.workspace_id, program.stack_id)) < whole
    )
    kill(program, "pulumi --non-interactive destroy")
    with pytest.raises(BulkheadError):
        await running

    await laboratory.run(StackAction.DESTROY, program)

    assert await laboratory.inventory(program) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_an_answer_that_was_lost_makes_no_second_server(laboratory: Laboratory) -> None:
    program = await new_machine(laboratory)
    laboratory.account.disturb(kind="lost_response", call=laboratory.case.creates_server, count=1)
    # AWS's client repeats the call with the token of the first, and gets the same server.
    with suppress(BulkheadError):
        await laboratory.run(StackAction.UP, program)
    laboratory.account.heal()

    await check_one_server(laboratory, program)


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_a_cancelled_run_writes_down_what_the_provider_was_doing(
    laboratory: Laboratory,
) -> None:
    program = await new_machine(laboratory)
    running = await in_the_middle(laboratory, program)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert sessions.processes_of(program.stack_id) == []
    state = await state_of(laboratory, program)
    assert state is not None
    assert (set(state.resources), state.pending, state.locks) == ({"server"}, 0, 0)
    await check_one_server(laboratory, program)


@pytest.mark.parametrize("laboratory", [Provider.AWS], indirect=True)
async def test_what_shows_late_after_a_crash_is_waited_for(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    key = json.loads(laboratory.account.credential.data)
    ec2 = boto3.client(
        "ec2",
        endpoint_url=laboratory.account.url,
        region_name=laboratory.case.place.region,
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
    )
    tags = {**program.tags, Tag.RESOURCE: "network"}
    pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
    specification = [{"ResourceType": "vpc", "Tags": pairs}]
    made = ec2.create_vpc(CidrBlock="10.40.0.0/16", TagSpecifications=specification)
    # Nothing is there at the first look, in none of three regions.
    laboratory.account.disturb(kind="late", call="DescribeTags", count=3)

    unknown = await asyncio.to_thread(survey, program, laboratory.cloud, {}, {"network": "vpc"})

    assert [one.id for one in unknown.adoptable] == [made["Vpc"]["VpcId"]]
    assert [fault["over"] for fault in laboratory.account.faults()] == [True]


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_of_two_runs_at_once_one_is_told_to_try_again(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()

    outcomes = await asyncio.gather(
        *(laboratory.run(StackAction.UP, program) for _ in range(2)), return_exceptions=True
    )

    failures = [one for one in outcomes if isinstance(one, BulkheadError)]
    assert [(one.reason, one.retryable) for one in failures] == [(Reason.ABORTED, True)]
    assert await laboratory.names(program) == laboratory.declared(program)


@pytest.mark.full
async def test_a_worker_that_was_killed_is_succeeded_at_once_on_its_host(
    laboratory: Laboratory,
) -> None:
    program = await new_machine(laboratory)
    with second_worker(laboratory, program) as worker:
        await until(has(laboratory, program))
        worker.kill()
        await asyncio.to_thread(worker.wait)

        await check_one_server(laboratory, program)


@pytest.mark.full
async def test_a_runner_without_its_worker_ends_all_that_it_started(
    laboratory: Laboratory,
) -> None:
    program = await new_machine(laboratory)
    hold_up(laboratory, seconds=60)
    with second_worker(laboratory, program) as worker:
        await until(has(laboratory, program))
        worker.kill()
        await asyncio.to_thread(worker.wait)
        assert sessions.processes_of(program.stack_id)

        await until(lambda: not sessions.processes_of(program.stack_id), ABANDONED_SECONDS)


@pytest.mark.full
async def test_a_frozen_worker_does_nothing_any_more_once_its_stack_is_taken(
    laboratory: Laboratory,
) -> None:
    program = await new_machine(laboratory)
    hold_up(laboratory, seconds=120)
    with second_worker(laboratory, program) as worker:
        await until(has(laboratory, program))
        worker.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        laboratory.account.heal()
        # It is alive, for all that anybody knows: until its lease ends.
        with pytest.raises(BulkheadError) as failure:
            await laboratory.run(StackAction.UP, program)
        assert failure.value.reason is Reason.ABORTED

        await until(lambda: not sessions.processes_of(program.stack_id), 60.0)
        await asyncio.sleep(max(0.0, 61.0 - (time.monotonic() - frozen_at)))
        await check_one_server(laboratory, program)
        worker.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(worker.wait, 30) != 0


def second_worker(laboratory: Laboratory, program: StackProgram) -> "subprocess.Popen[bytes]":
    request = StackRequest(
        action=StackAction.UP, program=program, operation_id=new_id(Prefix.OPERATION), fence=0
    )
    command = [sys.executable, "-m", "tests.infra.stacks.second_worker"]
    return subprocess.Popen(
        [*command, arguments_of(laboratory, request)], cwd=source_root(), start_new_session=True
    )
