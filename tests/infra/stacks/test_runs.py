"""What runs come to, and what is told of them."""

import asyncio
import base64
from contextlib import suppress

import pytest
from psycopg import sql

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.stack import StackAction, StackProgram, StackState
from infra.stacks import backend, sessions
from infra.stacks.leases import hold
from infra.stacks.request import StackProgress
from tests.infra.stacks.laboratory import USER_DATA, Laboratory, command_of, kill, until

# How often a provider program looks whether something is done is the program's own affair.
NOT_A_POLL = r"^(?!GET .*/(?:actions|operations)/)"

NETWORK = [
    ("firewall", "firewall"),
    ("network", "network"),
    ("placement_group", "placement"),
    ("subnet", "subnet"),
]


async def test_a_stack_is_made_once_and_removed_without_a_trace(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    steps: list[StackProgress] = []

    made = await laboratory.run(StackAction.UP, program, on_progress=steps.append)
    again = await laboratory.run(StackAction.UP, program)

    assert made.changes == {"create": 5}
    assert again.changes == {"same": 5}
    assert (steps[-1].done, steps[-1].total) == (4, 4)
    row = await laboratory.row_of(program)
    assert row.state is StackState.PRESENT
    assert row.outputs == made.outputs
    assert row.encryption_salt is not None
    intents = await laboratory.records.intents_of(program.workspace_id, program.stack_id)
    assert {one.resource: one.cloud_id for one in intents} == made.resources
    assert await laboratory.inventory(program) == NETWORK

    await laboratory.run(StackAction.DESTROY, program)
    assert await laboratory.stacks.remove_left(program, laboratory.cloud) == []

    assert (await laboratory.row_of(program)).state is StackState.REMOVED
    assert await state_of(laboratory, program) is None
    assert list(laboratory.settings.directory.iterdir()) == []
    assert sessions.processes_of(program.stack_id) == []


@pytest.mark.parametrize(
    "laboratory",
    [
        Provider.HCLOUD,
        pytest.param(Provider.AWS, marks=pytest.mark.full),
        pytest.param(Provider.GCP, marks=pytest.mark.full),
    ],
    indirect=True,
)
async def test_what_the_engine_asks_is_counted_with_what_is_asked_beside_it(
    laboratory: Laboratory,
) -> None:
    # A fault that does nothing counts what it strikes.
    laboratory.account.disturb(kind="slow", call=NOT_A_POLL, delay_seconds=0)
    network = await laboratory.plan_network()
    outputs = (await laboratory.run(StackAction.UP, network)).outputs
    machine = await laboratory.plan_machine(outputs)
    await laboratory.run(StackAction.UP, machine)
    check_count(laboratory)
    for program in (machine, network):
        await laboratory.run(StackAction.DESTROY, program)
    check_count(laboratory)


async def test_a_run_that_finds_the_stack_held_takes_nothing_of_a_budget(
    laboratory: Laboratory,
) -> None:
    program = await laboratory.plan_network()
    took: list[str] = []

    async def take() -> None:
        took.append("calls")

    async with hold(laboratory.records, program.workspace_id, program.stack_id):
        with pytest.raises(BulkheadError) as failure:
            await laboratory.run(StackAction.UP, program, on_held=take)
    assert failure.value.reason is Reason.ABORTED
    assert took == []
    assert laboratory.cloud.calls.made == 0


async def test_a_run_for_which_a_budget_has_nothing_asks_nothing(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()

    async def take() -> None:
        raise BulkheadError(Reason.RATE_LIMITED, "none left")

    with pytest.raises(BulkheadError, match="none left"):
        await laboratory.run(StackAction.UP, program, on_held=take)
    assert laboratory.cloud.calls.made == 0
    # And holds nothing.
    await laboratory.run(StackAction.UP, program)


@pytest.mark.full
async def test_a_server_that_was_deleted_by_hand_is_told_and_not_made_again(
    laboratory: Laboratory,
) -> None:
    network = await laboratory.run(StackAction.UP, await laboratory.plan_network())
    program = await laboratory.plan_machine(network.outputs)
    await laboratory.run(StackAction.UP, program)
    assert (await laboratory.run(StackAction.REFRESH, program)).drift == {}
    for server in laboratory.cloud.inventory(program.workspace_id, program.stack_id):
        await asyncio.to_thread(laboratory.cloud.remove, server)

    looks = [await laboratory.run(StackAction.REFRESH, program) for _ in range(2)]

    assert [look.drift["server"]["action"] for look in looks] == ["delete", "delete"]
    assert await laboratory.inventory(program) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_no_secret_is_in_command_lines_state_progress_or_left_files(
    laboratory: Laboratory,
) -> None:
    network = await laboratory.run(StackAction.UP, await laboratory.plan_network())
    program = await laboratory.plan_machine(network.outputs)
    seen: set[str] = set()
    steps: list[StackProgress] = []
    running = asyncio.create_task(laboratory.run(StackAction.UP, program, on_progress=steps.append))
    files: dict[str, bytes] = {}
    while not running.done():
        seen |= {command_of(process) for process in sessions.processes_of(program.stack_id)}
        # The run removes directories and files meanwhile.
        with suppress(OSError):
            for path in laboratory.settings.directory.rglob("*"):
                if path.is_file():
                    files[path.name] = path.read_bytes()
        await asyncio.sleep(0.05)
    await running

    passphrase = laboratory.openbao.ensure_stack_secret(
        program.workspace_id, program.stack_id, "passphrase", lambda: "never made"
    )
    assert files.pop("passphrase").decode() == passphrase
    assert files.pop("user-data").decode() == USER_DATA
    password = (laboratory.servers.database.passwords_dir / "bulkhead_stacks").read_text().strip()
    everything = "\n".join(
        [*seen, str(steps), *stored(laboratory), *(one.decode("latin-1") for one in files.values())]
    )
    assert any("up" in command for command in seen)
    credentials = laboratory.case.secrets_of(laboratory.account.credential)
    for secret in (*credentials, passphrase, password, "not-to-be-seen-by-anyone"):
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in everything


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_another_passphrase_does_not_open_a_state(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    await laboratory.run(StackAction.UP, program)
    name = (program.workspace_id, program.stack_id, "passphrase")
    laboratory.openbao.remove_stack_secret(*name)
    laboratory.openbao.ensure_stack_secret(*name, lambda: "another one")

    with pytest.raises(BulkheadError) as failure:
        await laboratory.run(StackAction.UP, program)

    assert failure.value.reason is Reason.FAILED_PRECONDITION
    assert "passphrase" in failure.value.message
    assert "another one" not in failure.value.message


@pytest.mark.full
@pytest.mark.parametrize("laboratory", list(Provider), indirect=True)
async def test_a_providers_refusal_is_told_by_its_reason(laboratory: Laboratory) -> None:
    network = await laboratory.run(StackAction.UP, await laboratory.plan_network())
    program = await laboratory.plan_machine(network.outputs)

    laboratory.account.disturb(kind="capacity")
    with pytest.raises(BulkheadError) as failure:
        await laboratory.run(StackAction.UP, program)
    assert failure.value.reason is Reason.CAPACITY_UNAVAILABLE
    assert failure.value.metadata["resource"] == "server"

    laboratory.account.heal()
    await laboratory.run(StackAction.UP, program)
    assert len(await laboratory.inventory(program)) == 1


@pytest.mark.full
async def test_a_run_that_takes_too_long_is_ended(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    laboratory.account.disturb(kind="slow", call="POST", delay_seconds=5)

    with pytest.raises(BulkheadError) as failure:
        await laboratory.run(StackAction.UP, program, deadline_seconds=4)

    assert failure.value.reason is Reason.DEADLINE_EXCEEDED
    assert sessions.processes_of(program.stack_id) == []
    laboratory.account.heal()
    await laboratory.run(StackAction.UP, program)
    assert await laboratory.inventory(program) == NETWORK


@pytest.mark.full
async def test_a_runner_that_breaks_says_so(laboratory: Laboratory) -> None:
    program = await laboratory.plan_network()
    running = asyncio.create_task(laboratory.run(StackAction.UP, program))
    await until(lambda: kill(program, "infra.stacks.runner"))

    with pytest.raises(BulkheadError) as failure:
        await running
    assert failure.value.reason is Reason.INTERNAL
    assert sessions.processes_of(program.stack_id) == []


async def state_of(laboratory: Laboratory, program: StackProgram) -> backend.StackState | None:
    states = backend.StateBackend(laboratory.servers.database)
    state = await states.read(program.workspace_id, program.name)
    await states.close()
    return state


def stored(laboratory: Laboratory) -> list[str]:
    """Return all that the database has of a workspace's states."""
    name = backend.table_of(laboratory.workspace_id)
    table = sql.Identifier(name, name)
    with laboratory.servers.administrator() as connection:
        rows = connection.execute(sql.SQL("SELECT data->>'data' FROM {}").format(table)).fetchall()
    return [base64.b64decode(data).decode() for (data,) in rows]


def check_count(laboratory: Laboratory) -> None:
    """Assert that the count has at least what the API got, polls left out."""
    (fault,) = laboratory.account.faults()
    assert 0 < fault["struck"] <= laboratory.cloud.calls.made
