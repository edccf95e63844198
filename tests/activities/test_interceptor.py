"""How the interceptor keeps the server informed of what runs."""

import asyncio
from dataclasses import replace
from typing import Any

from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.interceptor import ActivityInterceptor
from infra.database.records.steps import StepRecords
from tests.servers import Servers


class _Bare(ActivityInboundInterceptor):
    def __init__(self) -> None:
        """There is nothing after this one."""

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        return await input.fn()


async def _lasts_longer_than_a_beat() -> None:
    await asyncio.sleep(1.5)


async def _beats(steps: StepRecords, *, is_local: bool) -> int:
    environment, heard = ActivityEnvironment(), []
    environment.info = replace(environment.info, is_local=is_local)
    environment.on_heartbeat = lambda *details: heard.append(details)
    inbound = ActivityInterceptor(steps).intercept_activity(_Bare())
    call = ExecuteActivityInput(fn=_lasts_longer_than_a_beat, args=[], executor=None, headers={})

    async def run() -> None:
        await inbound.execute_activity(call)

    await environment.run(run)
    return len(heard)


async def test_a_heart_beats_only_where_the_server_listens(servers: Servers) -> None:
    steps = StepRecords(servers.database)
    try:
        assert await _beats(steps, is_local=False) > 0
        assert await _beats(steps, is_local=True) == 0
    finally:
        await steps.close()
