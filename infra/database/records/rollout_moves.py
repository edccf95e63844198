"""The moves of a rollout that are made in its rows alone; see `domain.rollout_course.Move`."""

from datetime import datetime, timedelta
from typing import Any, Final

from psycopg.types.json import Jsonb
from sqlmodel import col, select

from domain.errors import Reason
from domain.rollout import RolloutState, TargetState
from domain.rollout_failures import is_of_checks, let_go_told
from infra.database.records.rollout_look import Look, enter, touch
from infra.database.records.rollout_plans import bind_anew
from infra.database.records.rollout_rows import (
    add_event,
    end_targets,
    error_of,
    installs,
    recount,
)
from infra.database.statements import run_sql
from infra.database.tables import RolloutTargetRow

# So many are named in a sentence.
_NAMED: Final = 5

# What becomes of a target whose operation is waited for no more. One that was to be taken back
# still has the version.
_LET_GO: Final = {
    TargetState.MOVING: TargetState.SKIPPED,
    TargetState.ROLLING_BACK: TargetState.FAILED,
}

_SKIP = """
UPDATE rollout_targets SET state = 'skipped', waiting_for = NULL, next_try_at = NULL,
    last_error = %(error)s, completed_at = now()
WHERE rollout_id = %(rollout)s AND state = ANY (%(states)s)
    AND (waiting_for IS NOT NULL OR NOT %(blocked)s)
"""

_KEEP_BAKING = """
UPDATE rollout_targets SET state = 'succeeded', waiting_for = NULL, next_try_at = NULL,
    completed_at = now()
WHERE rollout_id = %(rollout)s AND state = 'baking'
"""

# From when on they are looked at from their clusters' hosts; empty: no more.
_ASK = """
UPDATE rollout_targets SET waiting_for = NULL, next_try_at = %(at)s
WHERE rollout_id = %(rollout)s AND state = 'baking'
"""

# What failed without having the new version has undone what it did, unless it was deleted.
_WENT_BACK = """
SELECT count(*)::integer AS installs FROM rollout_targets WHERE rollout_id = %(rollout)s
    AND state = 'failed' AND operation_id IS NOT NULL AND rollback_operation_id IS NULL
    AND last_error ->> 'moved' = 'false' AND last_error ->> 'reason' <> 'NOT_FOUND'
"""

_JOIN_LATE_WAVE = """
UPDATE rollout_targets SET wave = %(wave)s
WHERE rollout_id = %(rollout)s AND state IN ('waiting', 'moving')
"""

# Whose operation has gone on for so long without an end waits for it, as everybody else does.
_CALL_STALLED = """
UPDATE rollout_targets SET waiting_for = 'operation' WHERE rollout_id = %(rollout)s
    AND state IN ('moving', 'rolling_back') AND waiting_for IS NULL AND next_try_at <= %(now)s
"""

_STALLED = """
SELECT install_id, state, waiting_for FROM rollout_targets WHERE rollout_id = %(rollout)s
    AND state IN ('moving', 'rolling_back') AND waiting_for IS NOT NULL
"""


async def await_approval(look: Look) -> None:
    """Let nothing begin before somebody approved the wave."""
    wave = look.strategy.wave_in_words(look.rollout.wave)
    message = f"{wave.capitalize()} waits for an approval."
    await enter(look, RolloutState.PLANNED, message)


async def pause(look: Look) -> None:
    """Let nothing new begin."""
    await enter(look, RolloutState.PAUSED, "Nothing new begins.")


async def go_on(look: Look) -> None:
    """Let installs move; the deadline counts from the first time."""
    rollout = look.rollout
    message = "Installs move." if rollout.started_at is None else "It goes on."
    if rollout.started_at is None:
        rollout.started_at = look.now
        rollout.deadline_at = look.now + timedelta(seconds=look.strategy.deadline_seconds)
    await enter(look, RolloutState.RUNNING, message)


async def bake(look: Look) -> None:
    """Look at what the wave moved for a while."""
    rollout = look.rollout
    rollout.bake_until = look.now + timedelta(seconds=look.strategy.bake_seconds)
    touch(rollout)
    if look.strategy.asks_services:
        soon = look.now + look.strategy.between_service_checks(look.counts.baking)
        await _ask(look, min(soon, rollout.bake_until))
    count = look.counts.waiting
    waiting = f", {count} {'waits' if count == 1 else 'wait'}" if count else ""
    message = f"{look.counts.baking} moved{waiting}; looked at for {look.strategy.bake_seconds} s."
    await add_event(look.session, rollout, "wave.baking", message, wave=rollout.wave)


async def _ask(look: Look, at: datetime | None) -> None:
    await look.session.flush()
    await run_sql(look.session, _ASK, {"rollout": look.rollout.id, "at": at})


async def pass_wave(look: Look) -> None:
    """Let what bakes count as good."""
    await pass_baking(look)
    look.rollout.bake_until = None
    touch(look.rollout)
    await add_event(
        look.session, look.rollout, "wave.passed", "The wave is good.", wave=look.rollout.wave
    )


async def pass_baking(look: Look) -> None:
    """Let each target that bakes keep the version."""
    await look.session.flush()
    await run_sql(look.session, _KEEP_BAKING, {"rollout": look.rollout.id})
    await recount(look.session, look.rollout)


async def next_wave(look: Look) -> None:
    """Have the next wave's turn."""
    look.rollout.wave += 1
    touch(look.rollout)


async def note_wave(look: Look) -> None:
    """Say in the timeline that a wave begins."""
    wave = look.rollout.wave
    canary = " as the canary" if wave == 0 and look.strategy.canary else ""
    message = f"{installs(look.counts.wave_pending)}{canary}."
    await add_event(look.session, look.rollout, "wave.started", message, wave=wave)


async def late_wave(look: Look) -> None:
    """Have a wave of those that could not be moved in their own."""
    rollout = look.rollout
    rollout.wave = rollout.waves
    rollout.waves += 1
    touch(rollout)
    await look.session.flush()
    parameters = {"rollout": rollout.id, "wave": rollout.wave}
    await run_sql(look.session, _JOIN_LATE_WAVE, parameters)
    await bind_anew(look)
    message = f"Tried again, because it could not be done before: {installs(look.counts.waiting)}."
    await add_event(look.session, rollout, "wave.started", message, wave=rollout.wave)


async def succeed(look: Look) -> None:
    """End a rollout of which nothing is left to do."""
    counts = look.rollout.counts
    if not counts.get(TargetState.SUCCEEDED):
        await end(look, RolloutState.FAILED, "No install could be moved.")
        return
    left = [
        f"{counts[state]} {state}"
        for state in (TargetState.FAILED, TargetState.SKIPPED)
        if counts.get(state)
    ]
    await end(look, RolloutState.SUCCEEDED, f"{', '.join(left)}." if left else None)


async def fail(look: Look) -> None:
    """End a rollout whose wave spent its budget; what was moved stays moved."""
    await pass_baking(look)
    await end(look, RolloutState.FAILED, await blame(look))


async def cancel(look: Look) -> None:
    """End a rollout that a person wants no more of; what was moved stays moved."""
    await pass_baking(look)
    await end(look, RolloutState.CANCELLED, "What was moved stays moved.")


async def give_up_waiting(look: Look) -> None:
    """Leave out who could not be moved, or taken back, in time."""
    message = "It could not be moved before the rollout's deadline."
    states = [TargetState.WAITING]
    await skip(look, states, Reason.DEADLINE_EXCEEDED, message, only_blocked=True)
    await let_go(look, Reason.DEADLINE_EXCEEDED)


async def fail_untried(look: Look) -> None:
    """End a rollout for which there was no canary: nobody moves before one did."""
    await end(look, RolloutState.FAILED, "No install could be the canary before the deadline.")


async def call_stalled(look: Look) -> None:
    """Say of operations that do not end that they are waited for."""
    await run_sql(look.session, _CALL_STALLED, {"rollout": look.rollout.id, "now": look.now})


async def let_go(look: Look, reason: Reason) -> None:
    """Wait no more for operations and checks that wait themselves.

    Who waits for an operation cancels it.
    """
    await look.session.flush()
    stalled = list(await run_sql(look.session, _STALLED, {"rollout": look.rollout.id}))
    for state, ends_as in _LET_GO.items():
        returns = state is TargetState.ROLLING_BACK
        errors = {
            row.install_id: error_of(
                reason,
                let_go_told(row.waiting_for),
                moved=returns or is_of_checks(row.waiting_for),
                stuck=True if returns else None,
            )
            for row in stalled
            if row.state == state
        }
        await end_targets(look.session, look.rollout, errors, ends_as)
    if stalled:
        message = f"Waited for no more, because nothing goes on there: {installs(len(stalled))}."
        wave = look.rollout.wave
        await add_event(look.session, look.rollout, "targets.let_go", message, wave=wave)
        await recount(look.session, look.rollout)


async def begin_rollback(look: Look) -> None:
    """Take back every target, or those of the wave that failed by itself."""
    rollout = look.rollout
    reason = None
    if rollout.rollback_requested_at is None:
        reason = await blame(look)
    rollout.reason = reason
    rollout.bake_until = None
    rollout.deadline_at = look.now + timedelta(seconds=look.strategy.deadline_seconds)
    what = "Every install that was moved is" if reason is None else f"{reason} The wave is"
    await enter(look, RolloutState.ROLLING_BACK, f"{what} taken back.")
    await _ask(look, None)
    # Turns that were given out are void; whoever takes one now finds that nothing may begin.
    await skip_rest(look)
    await let_go(look, Reason.ABORTED)


async def end_rollback(look: Look) -> None:
    """End a rollout of which nothing is left to take back."""
    rollout = look.rollout
    await pass_baking(look)
    back = await _what_came_back(look)
    if rollout.rollback_requested_at is not None:
        await end(look, RolloutState.ROLLED_BACK, back)
        return
    await end(look, RolloutState.FAILED, f"{rollout.reason or 'The wave failed.'} {back}")


async def _what_came_back(look: Look) -> str:
    """Return who has what it had before, as sentences."""
    counted = await run_sql(look.session, _WENT_BACK, {"rollout": look.rollout.id})
    by_themselves: int = counted.one().installs
    taken = look.rollout.counts.get(TargetState.ROLLED_BACK, 0)
    said = [f"Taken back: {installs(taken)}."] if taken else []
    if by_themselves:
        whose = "its operation" if by_themselves == 1 else "their operations"
        who = "itself" if by_themselves == 1 else "themselves"
        said.append(f"{installs(by_themselves)} went back by {who}, when {whose} failed.")
    return " ".join(said) or "Nothing was there to take back."


async def blame(look: Look) -> str:
    """Return which targets of the wave failed, as a sentence."""
    rollout = look.rollout
    query = (
        select(RolloutTargetRow.install_id)
        .where(
            RolloutTargetRow.rollout_id == rollout.id,
            RolloutTargetRow.wave == rollout.wave,
            RolloutTargetRow.state == TargetState.FAILED,
        )
        .order_by(col(RolloutTargetRow.position))
        .limit(_NAMED)
    )
    named = list(await look.session.exec(query))
    more = look.counts.wave_failed - len(named)
    names = ", ".join(named) + (f" and {more} more" if more else "")
    wave = look.strategy.wave_in_words(rollout.wave).capitalize()
    return (
        f"{wave} spent its error budget: {look.counts.wave_failed} of "
        f"{look.counts.wave_size} failed ({names})."
    )


async def end(look: Look, state: RolloutState, reason: str | None) -> None:
    """End a rollout; who had no turn has none any more, and nobody is waited for."""
    await skip_rest(look)
    await let_go(look, Reason.ABORTED)
    look.rollout.reason = reason
    look.rollout.completed_at = look.now
    look.rollout.bake_until = None
    await enter(look, state, reason or "Every install has the version.")


async def skip_rest(look: Look) -> None:
    """Leave out who had no turn."""
    await skip(
        look,
        [TargetState.PENDING, TargetState.WAITING],
        Reason.ABORTED,
        "The rollout ended before its turn.",
    )


async def skip(
    look: Look,
    states: list[TargetState],
    reason: Reason,
    message: str,
    *,
    only_blocked: bool = False,
) -> None:
    """Leave out the targets in some states, or of them only those in whose way something is."""
    await look.session.flush()
    parameters: dict[str, Any] = {
        "rollout": look.rollout.id,
        "states": [state.value for state in states],
        "error": Jsonb(error_of(reason, message)),
        "blocked": only_blocked,
    }
    await run_sql(look.session, _SKIP, parameters)
    await recount(look.session, look.rollout)
