"""A workspace's place in OpenBao is made once, whatever fails or is cancelled on the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import secret_space_workflow_id_of
from domain.secret import SecretValue, VersionPlace
from infra.temporal.secret_space import prepare_secret_space
from tests.durability import Fault, Moment
from tests.workflows.conftest import Injected

STEP = "prepare_secret_space"


@pytest_asyncio.fixture
async def workspace(injected: Injected) -> AsyncIterator[str]:
    yield (await injected.platform.new_workspace()).workspace_id
    injected.injector.fault, injected.injector.repeat = None, False


async def assert_is_usable(injected: Injected, workspace_id: str) -> None:
    place = VersionPlace(
        workspace_id=workspace_id,
        secret_id=new_id(Prefix.SECRET),
        version_id=new_id(Prefix.SECRET_VERSION),
    )
    values, value = injected.platform.openbao.values, SecretValue(b"kept")
    await asyncio.to_thread(values.write, place, value)
    assert await asyncio.to_thread(values.read, place, new_id(Prefix.AUDIT_EVENT)) == value


async def test_it_is_made_by_a_step_that_runs_twice(injected: Injected, workspace: str) -> None:
    injected.injector.repeat = True
    await prepare_secret_space(injected.platform.client, workspace)
    await assert_is_usable(injected, workspace)


@pytest.mark.parametrize("moment", Moment)
async def test_it_is_made_although_its_step_fails(
    injected: Injected, workspace: str, moment: Moment
) -> None:
    async def fail() -> None:
        raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "planted")

    fault = injected.injector.fault = Fault("PrepareSecretSpace", STEP, moment, fail)
    await prepare_secret_space(injected.platform.client, workspace)
    assert fault.struck
    await assert_is_usable(injected, workspace)


@pytest.mark.parametrize("moment", Moment)
async def test_whoever_needs_it_next_makes_it_after_a_cancel(
    injected: Injected, workspace: str, moment: Moment
) -> None:
    client = injected.platform.client
    handle = client.get_workflow_handle(secret_space_workflow_id_of(workspace))
    fault = injected.injector.fault = Fault("PrepareSecretSpace", STEP, moment, handle.cancel)
    with contextlib.suppress(BulkheadError):
        await prepare_secret_space(client, workspace)
    assert fault.struck
    await prepare_secret_space(client, workspace)
    await assert_is_usable(injected, workspace)
