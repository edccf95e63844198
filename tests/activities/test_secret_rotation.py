"""What a rotation asks of a target ends before its attempt does, and nothing of it goes on."""

import asyncio
import time
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from temporalio.testing import ActivityEnvironment

from activities import secret_rotation
from activities.secret_rotation import SecretRotationActivities
from domain.caller import system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.owned_operation import SecretOperation
from domain.rotation import Rotation
from domain.secret import Retirement, RotatorKind, SecretValue, VersionPlace
from infra.clouds.threads import in_thread
from infra.database.records.rotation_facts import RotationFacts
from infra.rotators.places import TargetPlaces
from workflows.policies import ROTATOR_CALL

WORKSPACE, SECRET = new_id(Prefix.WORKSPACE), new_id(Prefix.SECRET)
OPERATION = SecretOperation(
    operation_id=new_id(Prefix.OPERATION),
    workspace_id=WORKSPACE,
    secret_id=SECRET,
    caller=system_caller(WORKSPACE, "test"),
)


def place() -> VersionPlace:
    return VersionPlace(
        workspace_id=WORKSPACE, secret_id=SECRET, version_id=new_id(Prefix.SECRET_VERSION)
    )


FACTS = RotationFacts(
    rotator=RotatorKind.HTTPS,
    rotation=Rotation(
        workspace_id=WORKSPACE,
        secret_id=SECRET,
        operation_id=OPERATION.operation_id,
        settings={},
    ),
    retirement=Retirement.DISABLE,
    current=place(),
    current_number=1,
    pending=place(),
    pending_number=2,
    is_reached=True,
    is_finished=False,
    is_refused=False,
    is_overdue=False,
    previous=None,
    is_previous_known=False,
)


class Hanging:
    """A rotator whose target takes its time; it notes what goes on."""

    def __init__(self) -> None:
        self.running = 0
        self.told = 0

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        del rotation, pending
        self.running += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.running -= 1

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        del pending, current
        await in_thread(rotation.secret_id, self._change)

    def _change(self) -> None:
        self.running += 1
        time.sleep(0.5)
        self.told += 1
        self.running -= 1


def activities_with(rotator: Hanging, places: TargetPlaces) -> SecretRotationActivities:
    records, reader, values = AsyncMock(), AsyncMock(), AsyncMock()
    records.find.return_value = FACTS
    records.taking_back_since.return_value = None
    reader.read_in_any_state.return_value = SecretValue(b"a value")
    rotators = cast("Any", {RotatorKind.HTTPS: rotator})
    return SecretRotationActivities(records, reader, values, rotators, places)


@pytest.mark.parametrize("step", ["test_value", "take_value_back"])
async def test_a_target_that_hangs_is_given_up_and_nothing_of_it_goes_on(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_rotation, "DONE_WITHIN_SECONDS", 0.1)
    rotator = Hanging()
    activity = getattr(activities_with(rotator, TargetPlaces()), step)
    began = time.monotonic()
    with pytest.raises(BulkheadError) as raised:
        await ActivityEnvironment().run(activity, OPERATION)
    assert raised.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert time.monotonic() - began < 5
    assert rotator.running == 0
    # A thread cannot be stopped: what it changes is waited for.
    assert rotator.told == (step == "take_value_back")


async def test_one_workspace_asks_a_bounded_number_of_targets_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Longer than a busy machine takes to begin with all of them.
    monkeypatch.setattr(secret_rotation, "DONE_WITHIN_SECONDS", 5.0)
    rotator, places = Hanging(), TargetPlaces()
    activities = activities_with(rotator, places)

    async def ask() -> Reason:
        with pytest.raises(BulkheadError) as raised:
            await ActivityEnvironment().run(activities.test_value, OPERATION)
        return raised.value.reason

    reasons = await asyncio.gather(*(ask() for _ in range(100)))
    assert reasons.count(Reason.DEPENDENCY_UNAVAILABLE) == 20
    assert reasons.count(Reason.RATE_LIMITED) == 80


def test_the_longest_step_ends_well_before_its_attempt() -> None:
    longest = secret_rotation.REACHED_WITHIN_SECONDS + secret_rotation.DONE_WITHIN_SECONDS
    assert longest + 30 <= ROTATOR_CALL.attempt.total_seconds()
