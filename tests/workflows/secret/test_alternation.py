"""What becomes of the previous value of two users that take turns when a rotation fails."""

from collections.abc import Iterator

import pytest

from domain.errors import BulkheadError, Reason
from domain.operation import OperationState, Step
from tests.durability import Moment
from tests.infra.rotators.logins import OTHER_PASSWORD
from tests.workflows.conftest import Injected
from tests.workflows.secret.alternating import AlternatingLogin
from tests.workflows.secret.steering import at, end, execute


@pytest.fixture
def login(injected: Injected) -> Iterator[AlternatingLogin]:
    scenario = AlternatingLogin(injected.platform)
    yield scenario
    scenario.close()


async def test_a_previous_value_that_is_disabled_meanwhile_is_not_put_back(
    injected: Injected, login: AlternatingLogin
) -> None:
    await login.plan(await login.make())

    async def disable_and_fail() -> None:
        execute(
            login,
            "UPDATE secret_versions SET state = 'disabled' WHERE secret_id = %s AND number = 2",
            login.operation.secret_id,
        )
        raise BulkheadError(Reason.CONFLICT, "planted")

    async with at(injected, login, Step.TEST_VALUE, Moment.BEFORE, disable_and_fail):
        await login.start()
        assert await end(login) is OperationState.FAILED
    await login.verify_taken_back()
    assert not await login.accepts(login.previous)


async def test_a_previous_value_that_the_target_refused_before_is_not_put_back(
    injected: Injected, login: AlternatingLogin
) -> None:
    await login.plan(await login.make())
    # Somebody took it away there, and did not say so here.
    await login.give_other_user_a_password("by hand")

    async def fail() -> None:
        raise BulkheadError(Reason.CONFLICT, "planted")

    async with at(injected, login, Step.TEST_VALUE, Moment.BEFORE, fail):
        await login.start()
        assert await end(login) is OperationState.FAILED
    await login.verify_taken_back()
    assert not await login.accepts(login.previous)


async def test_no_payload_and_no_row_of_a_rotation_holds_what_was_put_back(
    injected: Injected, login: AlternatingLogin
) -> None:
    await login.plan(await login.make())

    async def fail() -> None:
        raise BulkheadError(Reason.CONFLICT, "planted")

    async with at(injected, login, Step.TEST_VALUE, Moment.BEFORE, fail):
        await login.start()
        assert await end(login) is OperationState.FAILED
    await login.verify_undone()
    with login.platform.servers.administrator() as administrator:
        (row,) = administrator.execute(
            "SELECT placement::text, to_jsonb(o)::text LIKE %s FROM operations o WHERE id = %s",
            (f"%{OTHER_PASSWORD}%", login.operation.operation_id),
        ).fetchall()
    version = (await login.versions())[1]
    assert version.id in row[0]
    assert row[1] is False
