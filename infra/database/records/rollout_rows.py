"""What every change of a rollout does: take its lock, keep its counts, write its timeline.

Whoever changes a target holds the row of its rollout first. So the counts are those of the targets
in every transaction, and the lines of the timeline have no gaps.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import Reason
from domain.rollout import TargetState
from infra.database.statements import run_sql
from infra.database.tables import RolloutEventRow, RolloutRow, RolloutTargetRow

_RECOUNT = """
SELECT state, count(*) AS targets FROM rollout_targets WHERE rollout_id = %(rollout)s GROUP BY state
"""


_END = """
UPDATE rollout_targets SET state = %(state)s, waiting_for = NULL, next_try_at = NULL,
    last_error = e.error, completed_at = now()
FROM jsonb_to_recordset(%(errors)s) AS e (install_id text, error jsonb)
WHERE rollout_id = %(rollout)s AND rollout_targets.install_id = e.install_id
"""


async def lock_rollout(session: AsyncSession, rollout_id: str) -> RolloutRow:
    """Read a rollout's row; nobody else changes it or its targets before the transaction ends."""
    query = select(RolloutRow).where(RolloutRow.id == rollout_id)
    return (await session.exec(query.with_for_update(key_share=True))).one()


async def lock_target(
    session: AsyncSession, rollout: RolloutRow, install_id: str
) -> RolloutTargetRow:
    """Read a target whose rollout is held."""
    key = (rollout.workspace_id, rollout.id, install_id)
    return await session.get_one(RolloutTargetRow, key, with_for_update=True)


def change_state(rollout: RolloutRow, target: RolloutTargetRow, state: TargetState) -> None:
    """Give a target another state, and keep the counts."""
    if target.state is state:
        return
    counts = dict(rollout.counts)
    left = counts.get(target.state, 0) - 1
    if left > 0:
        counts[target.state] = left
    else:
        counts.pop(target.state, None)
    counts[state] = counts.get(state, 0) + 1
    rollout.counts = counts
    rollout.updated_at = datetime.now(UTC)
    target.state = state


async def recount(session: AsyncSession, rollout: RolloutRow) -> None:
    """Count the targets anew, after many of them were changed at once."""
    await session.flush()
    found = await run_sql(session, _RECOUNT, {"rollout": rollout.id})
    rollout.counts = {row.state: row.targets for row in found}
    rollout.updated_at = datetime.now(UTC)


async def end_targets(
    session: AsyncSession,
    rollout: RolloutRow,
    errors: Mapping[str, Mapping[str, Any]],
    state: TargetState,
) -> None:
    """Give many targets a state in which they stay, with the reasons by their installs' ids."""
    if errors:
        parameters = {"rollout": rollout.id, "state": state, "errors": recordset(errors)}
        await run_sql(session, _END, parameters)


def recordset(errors: Mapping[str, Mapping[str, Any]]) -> Jsonb:
    """Return errors by their installs' ids as statements take them."""
    return Jsonb([{"install_id": key, "error": error} for key, error in errors.items()])


async def add_event(
    session: AsyncSession,
    rollout: RolloutRow,
    kind: str,
    message: str,
    *,
    wave: int | None = None,
    install_id: str | None = None,
) -> None:
    """Add a line to the timeline of a rollout that is held."""
    await session.flush()
    newest = select(func.max(col(RolloutEventRow.sequence))).where(
        RolloutEventRow.rollout_id == rollout.id
    )
    last: int | None = (await session.exec(newest)).one()
    session.add(
        RolloutEventRow(
            workspace_id=rollout.workspace_id,
            rollout_id=rollout.id,
            sequence=(last or 0) + 1,
            kind=kind,
            wave=wave,
            install_id=install_id,
            message=message,
        )
    )


def error_of(
    reason: Reason | str, message: str, *, moved: bool | None = False, stuck: bool | None = None
) -> dict[str, Any]:
    """Return why a target failed or was left out, as its row has it.

    Args:
        reason: the cause.
        message: a sentence for the vendor, with nothing of what is the customer's.
        moved: the install has the new version all the same, and is taken back with its wave; None:
            that is not known yet.
        stuck: it could not be taken back, and is tried again when somebody asks for that; None: it
            was not tried.
    """
    error: dict[str, Any] = {"reason": str(reason), "message": message, "moved": moved}
    return error if stuck is None else {**error, "stuck": stuck}


def installs(count: int) -> str:
    """Return how many installs there are, in words for a timeline."""
    return "1 install" if count == 1 else f"{count} installs"
