"""The steps of a rotation. Each is told ids; values live inside one activity and go nowhere else.

No step is interrupted half-way: a thread that still writes a value, or a target that still takes
one, must not run beside the undo. A cancel is heeded when the step at hand is done. What a target
is asked has an end well before the attempt's own (`ROTATOR_CALL`), and nothing of it goes on then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import structlog
from temporalio import activity

from domain.errors import BulkheadError, Reason
from domain.operation import WAITING_FOR_NEW_VALUE
from domain.owned_operation import SecretOperation
from domain.rotation import WaitingConsumers
from domain.secret import (
    ALTERNATING_ROTATORS,
    Retirement,
    RotatorKind,
    SecretValue,
    VersionPlace,
)

if TYPE_CHECKING:
    from infra.database.records.rotation import RotationRecords
    from infra.database.records.rotation_facts import RotationFacts
    from infra.openbao.values import ValueStore
    from infra.rotators.places import TargetPlaces
    from infra.rotators.rotator import AlternatingRotator, Rotator
    from infra.secret_store.reader import SecretReader

# Within two minutes an attempt reaches a target and asks it, and reads and writes values.
REACHED_WITHIN_SECONDS: Final = 20.0
DONE_WITHIN_SECONDS: Final = 70.0

# How long a target that does not answer is asked to refuse the replaced value. After that the
# version is kept, and the operation says so: nothing depends on it any more.
_RETIRE_FOR: Final = timedelta(hours=1)

# How long a target that refuses is asked to take the new value back. Nobody has seen that value,
# and what the target is asked does not change any more: only its own side can be mended.
_TAKE_BACK_FOR: Final = timedelta(minutes=15)

# An overdue rotation gives a target up that still does not answer after this many attempts.
_LAST_ATTEMPTS: Final = 5

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retired:
    """What became of the replaced version; `kept_because` is None when the policy was followed."""

    kept_because: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotated:
    """A rotation that is over."""

    operation: SecretOperation
    unacknowledged: list[str]
    kept_because: str | None

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


class SecretRotationActivities:
    """Reads and writes values for one rotation, and asks its target."""

    def __init__(
        self,
        records: "RotationRecords",
        reader: "SecretReader",
        values: "ValueStore",
        rotators: "Mapping[RotatorKind, Rotator]",
        places: "TargetPlaces",
    ) -> None:
        self._records = records
        self._reader = reader
        self._values = values
        self._rotators = rotators
        self._places = places

    @activity.defn
    async def begin_rotation(self, operation: SecretOperation) -> None:
        """Note which version is current, and make a pending one without a value."""
        await _in_one_piece(self._records.begin(operation))

    @activity.defn
    async def create_value(self, operation: SecretOperation) -> None:
        """Make the new value and store it, unless an earlier attempt did."""
        await self._ask(self._create, operation)

    @activity.defn
    async def set_value(self, operation: SecretOperation) -> None:
        """Have the target accept the new value."""
        await self._ask(self._set, operation)

    @activity.defn
    async def test_value(self, operation: SecretOperation) -> None:
        """Use the new value at the target."""
        await self._ask(self._test, operation)

    @activity.defn
    async def finish_rotation(self, operation: SecretOperation) -> None:
        """Enable the pending version and point `current` at it; from here on there is no way back.

        An `ABORTED` is a cancel that came first, unless its metadata says that it is a failure.
        """
        await _in_one_piece(self._records.finish(operation))

    @activity.defn
    async def rotation_is_finished(self, operation: SecretOperation) -> bool:
        """Tell whether `finish_rotation` took effect, whatever was reported of it."""
        facts = await self._records.find(operation)
        return facts is not None and facts.is_finished

    @activity.defn
    async def await_consumers(self, operation: SecretOperation) -> WaitingConsumers:
        """Look who has not acknowledged the new version yet."""
        return await self._records.waiting_consumers(operation)

    @activity.defn
    async def retire_version(self, operation: SecretOperation) -> Retired:
        """Do with the replaced version what the policy says, or say why it is kept."""
        return await self._ask(self._retire, operation)

    @activity.defn
    async def record_rotated(self, rotated: Rotated) -> None:
        """The rotation is over."""
        await self._records.succeed(rotated.operation, rotated.unacknowledged, rotated.kept_because)

    @activity.defn
    async def record_value_awaited(self, operation: SecretOperation) -> str | None:
        """The rotation waits for a person; return the version that is handed in now."""
        await self._records.note_waiting(operation)
        return await self._records.handed_in(operation)

    @activity.defn
    async def record_handed_in(self, operation: SecretOperation) -> str | None:
        """Return the version that is handed in now."""
        return await self._records.handed_in(operation)

    @activity.defn
    async def record_value_taken(self, operation: SecretOperation) -> None:
        """The rotation tries again."""
        await self._records.note_waited(operation)

    @activity.defn
    async def take_value_back(self, operation: SecretOperation) -> None:
        """Have the target refuse the new value, however far the rotation came."""
        await self._ask(self._take_back, operation)

    @activity.defn
    async def give_version_up(self, operation: SecretOperation) -> None:
        """Destroy the pending version's value and end the version."""
        await _in_one_piece(self._give_up(operation))

    async def _ask(
        self,
        step: Callable[[SecretOperation], Coroutine[Any, Any, Result]],
        operation: SecretOperation,
    ) -> Result:
        with self._places.take(operation.workspace_id):
            return await _in_one_piece(step(operation))

    async def _create(self, operation: SecretOperation) -> None:
        facts = await self._facts(operation)
        if await self._read(operation, facts.pending) is not None:
            return
        current = await self._current(operation, facts)
        rotator = self._rotator(facts)
        if not facts.is_reached:
            async with _ends_within(REACHED_WITHIN_SECONDS):
                await rotator.reach(facts.rotation, current)
            await self._records.note_reached(operation)
        # Read before the value: what is handed in from here on is another version.
        handed_in = await self._records.handed_in(operation)
        try:
            async with _ends_within(DONE_WITHIN_SECONDS):
                value = await rotator.create(facts.rotation, current)
        except BulkheadError as error:
            if error.metadata.get("waiting_for") == WAITING_FOR_NEW_VALUE:
                error.metadata["version_id"] = handed_in
            raise
        await asyncio.to_thread(self._values.write, facts.pending, value)

    async def _set(self, operation: SecretOperation) -> None:
        facts = await self._facts(operation)
        pending = await self._pending(operation, facts)
        current = await self._current(operation, facts)
        await self._find_previous(operation, facts, pending)
        async with _ends_within(DONE_WITHIN_SECONDS):
            await self._rotator(facts).set(facts.rotation, pending, current)

    async def _find_previous(
        self, operation: SecretOperation, facts: "RotationFacts", pending: SecretValue
    ) -> None:
        """Note, before the target is told, which value it will not accept any more, if any."""
        rotator = self._alternating(facts)
        if facts.is_previous_known or rotator is None:
            return
        place = await self._records.previous(operation)
        previous = None if place is None else await self._read(operation, place)
        is_ended = False
        if previous is not None:
            async with _ends_within(REACHED_WITHIN_SECONDS):
                is_ended = await rotator.would_end(facts.rotation, pending, previous)
        await self._records.note_previous(operation, place if is_ended else None)

    async def _test(self, operation: SecretOperation) -> None:
        facts = await self._facts(operation)
        pending = await self._pending(operation, facts)
        async with _ends_within(DONE_WITHIN_SECONDS):
            await self._rotator(facts).test(facts.rotation, pending)

    async def _take_back(self, operation: SecretOperation) -> None:
        facts = await self._records.find(operation)
        if facts is None or facts.is_finished or not facts.is_reached:
            return
        pending = await self._read(operation, facts.pending)
        current = await self._read(operation, facts.current)
        if current is None:
            # There is nothing that the target could be left with, and nobody to ask it as.
            log.warning("the current value is gone", operation_id=operation.operation_id)
            await self._records.note_left_behind(operation, facts.pending, Reason.NOT_FOUND)
            return
        try:
            async with _ends_within(DONE_WITHIN_SECONDS):
                await self._put_previous_back(operation, facts, pending)
                await self._rotator(facts).unset(facts.rotation, pending, current)
        except BulkheadError as error:
            overdue = facts.is_overdue and (not error.retryable or _is_last_attempt())
            if not overdue and not await self._refuses_for_good(operation, error):
                raise
            await self._records.note_left_behind(operation, facts.pending, error.reason)

    async def _put_previous_back(
        self, operation: SecretOperation, facts: "RotationFacts", pending: SecretValue | None
    ) -> None:
        """Have the target accept again what the new value ended there."""
        rotator, place = self._alternating(facts), facts.previous
        if pending is None or place is None or rotator is None:
            return
        # Whoever has disabled it meanwhile wants it to open nothing.
        if not await self._records.is_enabled(operation, place):
            return
        previous = await self._read(operation, place)
        if previous is None:
            return
        try:
            await rotator.put_back(facts.rotation, pending, previous)
        except BulkheadError as error:
            if error.retryable:
                raise
            # The new value must go all the same.
            log.warning(
                "the previous value could not be put back",
                operation_id=operation.operation_id,
                reason=error.reason,
            )

    async def _refuses_for_good(self, operation: SecretOperation, error: BulkheadError) -> bool:
        since = await self._records.taking_back_since(operation)
        return (
            not error.retryable and since is not None and datetime.now(UTC) - since > _TAKE_BACK_FOR
        )

    async def _give_up(self, operation: SecretOperation) -> None:
        facts = await self._records.find(operation)
        if facts is None or facts.is_finished:
            return
        if not await asyncio.to_thread(self._values.seal, facts.pending):
            await asyncio.to_thread(self._values.destroy, facts.pending)
        await self._records.give_version_up(operation, facts.pending)

    async def _retire(self, operation: SecretOperation) -> Retired:
        facts = await self._facts(operation)
        if facts.retirement is Retirement.KEEP:
            return Retired()
        kept_because = await self._records.begin_retiring(operation)
        if kept_because is not None:
            return Retired(kept_because=kept_because)
        kept_because = await self._refuse_at_target(operation, facts)
        if kept_because is not None:
            await self._records.keep_after_all(operation)
            return Retired(kept_because=kept_because)
        if facts.retirement is Retirement.DESTROY:
            kept_because = await self._records.begin_destroying(operation)
            if kept_because is not None:
                return Retired(kept_because=kept_because)
            await asyncio.to_thread(self._values.destroy, facts.current)
            await self._records.complete_destroying(operation, facts.current)
        return Retired()

    async def _refuse_at_target(
        self, operation: SecretOperation, facts: "RotationFacts"
    ) -> str | None:
        """Have the target refuse the replaced value; return why it still accepts it, if it does."""
        if facts.is_refused:
            return None
        retired = await self._read(operation, facts.current)
        replacement = await self._read(operation, facts.pending)
        if retired is None or replacement is None:
            await self._records.note_left_behind(operation, facts.current, Reason.NOT_FOUND)
            gone = facts.current_number if retired is None else facts.pending_number
            return (
                f"The value of version {gone} is gone from the secret store, so that the target "
                f"could not be told to refuse version {facts.current_number}. Do that there."
            )
        if await self._is_current_again(operation, retired):
            return "Its value is `current` again, as another version."
        try:
            async with _ends_within(DONE_WITHIN_SECONDS):
                await self._rotator(facts).retire(facts.rotation, retired, replacement)
        except BulkheadError as error:
            asked_for = datetime.now(UTC) - activity.info().scheduled_time
            if error.retryable and asked_for < _RETIRE_FOR:
                raise
            return f"The target could not be told to refuse it: {error.message}"
        return None

    async def _is_current_again(self, operation: SecretOperation, retired: SecretValue) -> bool:
        place = await self._records.made_current_since(operation)
        value = None if place is None else await self._read(operation, place)
        return value is not None and value.data == retired.data

    async def _facts(self, operation: SecretOperation) -> "RotationFacts":
        facts = await self._records.find(operation)
        if facts is None:
            raise BulkheadError(Reason.ABORTED, "The rotation has not begun.")
        return facts

    async def _current(self, operation: SecretOperation, facts: "RotationFacts") -> SecretValue:
        found = await self._reader.read(
            operation.caller,
            operation.secret_id,
            facts.current.version_id,
            operation_id=operation.operation_id,
        )
        return found.value

    async def _pending(self, operation: SecretOperation, facts: "RotationFacts") -> SecretValue:
        value = await self._read(operation, facts.pending)
        if value is None:
            raise BulkheadError(
                Reason.CONFLICT, "The new value is gone from the secret store; rotate again."
            )
        return value

    async def _read(self, operation: SecretOperation, place: VersionPlace) -> SecretValue | None:
        return await self._reader.read_in_any_state(
            operation.caller, place, operation_id=operation.operation_id
        )

    def _rotator(self, facts: "RotationFacts") -> "Rotator":
        return self._rotators[facts.rotator]

    def _alternating(self, facts: "RotationFacts") -> "AlternatingRotator | None":
        if facts.rotator not in ALTERNATING_ROTATORS:
            return None
        return cast("AlternatingRotator", self._rotators[facts.rotator])


def _is_last_attempt() -> bool:
    return activity.info().attempt >= _LAST_ATTEMPTS


@asynccontextmanager
async def _ends_within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"The rotation's target did not answer within {seconds:.0f} seconds. The step is tried "
            "again.",
            metadata={"dependency": "rotation_target"},
        ) from None


async def _in_one_piece(work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise
