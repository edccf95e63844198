"""One look at a rollout, and what each of its moves does with the row."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.rollout import RolloutState
from domain.rollout_obstacles import Wanted
from domain.rollout_strategy import Strategy
from infra.database.queries.rollout_sight import ReturnCounts, TargetCounts
from infra.database.records.rollout_rows import add_event
from infra.database.tables import RolloutRow


@dataclass(slots=True)
class Look:
    """One look at a rollout: its row is held by the session's transaction.

    Attributes:
        session: the transaction.
        rollout: the row.
        strategy: of the rollout.
        wanted: what its targets shall become.
        now: the moment.
        checked_at: when what bakes was last looked at.
        counts: of the targets, as the move at hand found them.
        stopped: an emergency stop covers the whole rollout.
        returns: of those that shall return, while a rollback goes on.
    """

    session: AsyncSession
    rollout: RolloutRow
    strategy: Strategy
    wanted: Wanted
    now: datetime
    checked_at: datetime | None
    counts: TargetCounts
    stopped: bool = False
    returns: ReturnCounts | None = None


async def enter(look: Look, state: RolloutState, message: str) -> None:
    """Give a rollout another state, and say so in its timeline."""
    look.rollout.state = state
    touch(look.rollout)
    wave = look.rollout.wave
    await add_event(look.session, look.rollout, f"rollout.{state}", message, wave=wave)


def touch(rollout: RolloutRow) -> None:
    """Note that a rollout is another one than before."""
    rollout.version += 1
    rollout.updated_at = datetime.now(UTC)
