"""What Temporal stores is sealed, opens where it belongs, and nowhere else."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleSpec,
    WorkflowHandle,
)
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from domain.errors import BulkheadError, Reason
from infra.openbao.policies import API
from infra.temporal.client import TemporalConnection
from infra.temporal.codec import SealingCodec, workflow_of
from tests.infra.openbao.own_server import own_server
from tests.infra.temporal.conftest import Engine, connected, sample_worker
from tests.infra.temporal.samples import Child, Echo, Everything
from tests.servers import Servers

PLAIN = DataConverter.default.payload_converter.to_payloads(["a word"])[0]

# Some of the last of the ports that the session claimed: no cluster of a test gets there.
LAST_PORTS = 8 * 95


def codec_of(connection: TemporalConnection, workflow_id: str) -> SealingCodec:
    context = WorkflowSerializationContext(namespace=connection.namespace, workflow_id=workflow_id)
    return connection.codec.with_context(context)


async def sealed_by(connection: TemporalConnection, workflow_id: str) -> Payload:
    (payload,) = await codec_of(connection, workflow_id).encode([PLAIN])
    return payload


async def refusal(codec: SealingCodec, payload: Payload) -> Reason:
    with pytest.raises(BulkheadError) as refused:
        await codec.decode([payload])
    return refused.value.reason


def stored(servers: Servers) -> bytes:
    """Return all that the server has on disk: database, journal and log."""
    files = [*Path(servers.home, "temporal").glob("*"), *servers.home.glob("supervisor/logs/*")]
    return b"".join(path.read_bytes() for path in files if path.is_file())


async def test_every_kind_of_payload_arrives_and_none_is_readable_in_the_store(
    engine: Engine,
) -> None:
    word, workflow_id = f"canary-{uuid4().hex}", f"sample-{uuid4().hex}"
    handle = await engine.client.start_workflow(
        Everything.run,
        args=[word, 1],
        id=workflow_id,
        task_queue=engine.task_queue,
        memo={"first": word},
        static_summary=word,
        static_details=word,
    )
    assert await handle.execute_update(Everything.change, word) == f"changed {word}"
    assert await handle.query(Everything.ask, word) == f"{word} "
    description = await handle.describe()
    assert await description.static_summary() == word
    await handle.signal(Everything.tell, word)
    assert await handle.result() == f"caught failed {word}"
    assert await (await handle.describe()).memo() == {"first": word}
    found = stored(engine.servers)
    assert workflow_id.encode() in found
    assert word.encode() not in found


async def test_a_sealed_history_replays(engine: Engine) -> None:
    handle = await engine.client.start_workflow(
        Echo.run, "word", id=f"sample-{uuid4().hex}", task_queue=engine.task_queue
    )
    await handle.result()
    replayer = Replayer(
        workflows=[Echo, Everything, Child],
        workflow_runner=UnsandboxedWorkflowRunner(),
        namespace=engine.connection.namespace,
        data_converter=engine.connection.data_converter,
    )
    await replayer.replay_workflow(await handle.fetch_history())


async def started_by(
    engine: Engine, schedule: ScheduleHandle, number: int
) -> WorkflowHandle[Any, Any]:
    while True:
        actions = (await schedule.describe()).info.recent_actions
        if len(actions) >= number:
            action = actions[number - 1].action
            assert isinstance(action, ScheduleActionExecutionStartWorkflow)
            return engine.client.get_workflow_handle(action.workflow_id)
        await asyncio.sleep(0.1)


async def test_a_schedules_workflow_opens_what_was_sealed_for_the_schedule(engine: Engine) -> None:
    schedule_id = f"sample/{uuid4().hex}"
    action = ScheduleActionStartWorkflow(
        Echo.run, "a word", id=schedule_id, task_queue=engine.task_queue, memo={"a": "b"}
    )
    schedule = await engine.client.create_schedule(
        schedule_id, Schedule(action=action, spec=ScheduleSpec())
    )
    try:
        # The second run is given what the first one returned.
        for number in (1, 2, 3):
            await schedule.trigger()
            async with asyncio.timeout(60):
                handle = await started_by(engine, schedule, number)
                assert await handle.result() == "a word"
            assert await (await handle.describe()).memo() == {"a": "b"}
            # Runs are named by the second in which they start.
            await asyncio.sleep(1.1)
    finally:
        await schedule.delete()


async def test_what_is_not_sealed_is_read_as_it_is(engine: Engine) -> None:
    assert await codec_of(engine.connection, "any").decode([PLAIN]) == [PLAIN]
    assert workflow_of(PLAIN) is None


CHANGES: dict[str, Callable[[Payload], None]] = {
    "text": lambda payload: setattr(payload, "data", payload.data[:-1] + b"\0"),
    "cut": lambda payload: setattr(payload, "data", payload.data[:5]),
    "workflow": lambda payload: payload.metadata.update({"bulkhead-workflow": b"other"}),
    "key": lambda payload: payload.metadata.update({"bulkhead-key": b"vault:v1:AAAA"}),
    "no key": lambda payload: payload.metadata.update({"bulkhead-key": b"\xff"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_changed_payload_is_refused(
    engine: Engine, change: Callable[[Payload], None]
) -> None:
    payload = await sealed_by(engine.connection, "one")
    change(payload)
    named = workflow_of(payload)
    assert named is not None
    assert await refusal(codec_of(engine.connection, named), payload) is Reason.INTERNAL


@pytest.mark.parametrize(
    ("workflow_id", "opens"),
    [
        ("one", True),
        ("one-2026-01-31T10:00:00Z", True),
        ("other", False),
        ("one-2026-01-31T10:00:00Z/child", False),
        ("one-2026-01-31T10:00:00Z-2026-01-31T10:00:00Z", False),
        ("one/2", False),
    ],
)
async def test_a_payload_opens_in_its_own_workflow_alone(
    engine: Engine,
    workflow_id: str,
    opens: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    payload = await sealed_by(engine.connection, "one")
    codec = codec_of(engine.connection, workflow_id)
    if opens:
        assert await codec.decode([payload]) == [PLAIN]
    else:
        assert await refusal(codec, payload) is Reason.INTERNAL


async def test_a_payload_of_another_temporal_namespace_is_refused(engine: Engine) -> None:
    payload = await sealed_by(engine.connection, "one")
    servers = engine.servers
    temporal = servers.temporal.model_copy(update={"namespace": "elsewhere"})
    other = TemporalConnection(temporal, servers.openbao("api"), API)
    assert await refusal(codec_of(other, "one"), payload) is Reason.INTERNAL
    other.close()


async def test_each_process_has_a_key_and_opens_what_the_others_sealed(engine: Engine) -> None:
    servers = engine.servers
    first, again = [await sealed_by(engine.connection, "one") for _ in range(2)]
    with connected(servers, servers.openbao("api"), API) as other:
        theirs = await sealed_by(other, "one")
        assert await codec_of(other, "one").decode([first, again]) == [PLAIN, PLAIN]
    assert await codec_of(engine.connection, "one").decode([theirs]) == [PLAIN]
    keys = [payload.metadata["bulkhead-key"] for payload in (first, again, theirs)]
    assert keys[0] == keys[1] != keys[2]


async def test_an_outage_of_openbao_stops_new_keys_and_loses_nothing(
    servers: Servers, tmp_path: Path
) -> None:
    with own_server(tmp_path, servers.control_planes.first_port + LAST_PORTS) as openbao:
        openbao.start()
        with (
            connected(servers, openbao.settings("api"), API) as sender,
            connected(servers, openbao.settings("worker")) as reader,
        ):
            early = await sealed_by(sender, "one")
            openbao.stop()
            assert await refusal(codec_of(reader, "one"), early) is Reason.DEPENDENCY_UNAVAILABLE
            with pytest.raises(BulkheadError, match="does not answer"):
                await sealed_by(reader, "one")
            # A key that is due for renewal serves on.
            key = sender.codec.keys.sealing_key()
            assert key is not None
            key.renew_at = 0
            late = await sealed_by(sender, "one")
            openbao.start()
            assert await codec_of(reader, "one").decode([early, late]) == [PLAIN, PLAIN]
            key.renew_at = 0
            renewed = await sealed_by(sender, "one")
            assert renewed.metadata["bulkhead-key"] != late.metadata["bulkhead-key"]
            assert await codec_of(reader, "one").decode([renewed]) == [PLAIN]


async def test_a_workflow_waits_until_its_input_can_be_opened(
    servers: Servers, tmp_path: Path
) -> None:
    task_queue = f"samples-{uuid4().hex}"
    with own_server(tmp_path, servers.control_planes.first_port + LAST_PORTS + 2) as openbao:
        openbao.start()
        with (
            connected(servers, openbao.settings("api"), API) as sender,
            connected(servers, openbao.settings("worker")) as reader,
        ):
            handle = await (await sender.client()).start_workflow(
                Echo.run,
                "word",
                id=f"sample-{uuid4().hex}",
                task_queue=task_queue,
                task_timeout=timedelta(seconds=2),
            )
            openbao.stop()
            async with sample_worker(await reader.client(), task_queue):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(handle.result(), 2)
                openbao.start()
                assert await asyncio.wait_for(handle.result(), 60) == "word"
