"""What a rollout's next move depends on: counts of its targets, and facts about installs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.install import Consent
from domain.rollout import TERMINAL, RolloutState
from domain.rollout_obstacles import TargetFacts
from domain.rollout_strategy import Strategy
from infra.database.statements import run_sql
from infra.database.tables import RolloutRow, RolloutTargetRow

# A turn that was given out is a target that waits for nothing until `next_try_at`: whoever took it
# begins before that, or it is given out again. Of a target that moves it is the moment until which
# its wave waits for it; one that cannot be undone has failed then, as who waits for it will write,
# and until that is written nothing goes on. Of one that bakes it is the moment of its next look
# from the host of its cluster, if there is one; only where it shall return it is a turn.
_COUNTS = """
SELECT
    count(*) FILTER (WHERE CASE WHEN state IN ('moving', 'rolling_back')
        THEN coalesce(next_try_at > %(now)s, true) OR state = 'moving' AND waiting_for = 'undo'
        WHEN state = 'baking' AND NOT %(returns)s THEN false
        ELSE waiting_for IS NULL AND next_try_at > %(now)s END) AS begun,
    count(*) FILTER (WHERE state IN ('moving', 'rolling_back') AND next_try_at > %(now)s
        AND waiting_for IS NOT NULL) AS stalled,
    count(*) FILTER (WHERE state IN ('moving', 'rolling_back') AND next_try_at <= %(now)s
        AND NOT (state = 'moving' AND waiting_for IS NOT DISTINCT FROM 'undo')) AS parked,
    count(*) FILTER (WHERE state = 'baking') AS baking,
    count(*) FILTER (WHERE state = 'baking' AND next_try_at <= %(now)s) AS to_ask,
    count(*) FILTER (WHERE state = 'baking' AND next_try_at IS NOT NULL) AS unasked,
    count(*) FILTER (WHERE state = 'waiting' AND waiting_for IS NOT NULL
        OR state = 'moving' AND next_try_at <= %(now)s
            AND waiting_for IS DISTINCT FROM 'undo') AS waiting,
    count(*) FILTER (WHERE state = 'waiting' AND next_try_at <= %(now)s) AS due,
    count(*) FILTER (WHERE state = 'pending' AND wave > %(wave)s) AS later,
    count(*) FILTER (WHERE state = 'pending' AND plan_digest IS NULL AND last_error IS NULL
        AND (next_try_at IS NULL OR next_try_at <= %(now)s)) AS unplanned,
    count(*) FILTER (WHERE state = 'pending' AND plan_digest IS NULL AND last_error IS NULL
        AND waiting_for IS NULL AND (next_try_at IS NULL OR next_try_at <= %(now)s)) AS untried,
    count(*) FILTER (WHERE state = 'pending' AND plan_digest IS NULL AND last_error IS NULL
        AND waiting_for IS NOT NULL) AS unreachable,
    count(*) FILTER (WHERE wave = %(wave)s) AS wave_size,
    count(*) FILTER (WHERE wave = %(wave)s AND state = 'pending') AS wave_pending,
    count(*) FILTER (WHERE wave = %(wave)s AND state IN ('baking', 'succeeded')) AS wave_moved,
    count(*) FILTER (WHERE wave = %(wave)s AND state = 'failed') AS wave_failed,
    min(next_try_at) FILTER (WHERE (state IN ('waiting', 'moving', 'rolling_back')
        OR state = 'pending' AND waiting_for IS NOT NULL) AND next_try_at > %(now)s) AS next_try_at,
    min(next_try_at) FILTER (WHERE state = 'baking' AND next_try_at > %(now)s) AS next_ask_at,
    coalesce(sum(attempts), 0)::integer AS turns
FROM rollout_targets WHERE rollout_id = %(rollout)s
"""

# What has the new version by an operation of this rollout, and was not asked to return yet. One
# that could not be taken back is stuck until somebody asks for that again.
_HAS_MOVED = """
    rollout_id = %(rollout)s AND operation_id IS NOT NULL
    AND CASE WHEN last_error ->> 'stuck' = 'true'
        THEN state = 'failed' AND completed_at < %(asked)s::timestamptz
        ELSE rollback_operation_id IS NULL AND (state IN ('baking', 'succeeded')
            OR state IN ('failed', 'skipped') AND last_error ->> 'moved' = 'true') END
    AND (%(wave)s::integer IS NULL OR wave = %(wave)s)
"""

_TO_TAKE_BACK = f"""
SELECT count(*) FILTER (WHERE next_try_at IS NULL OR next_try_at <= %(now)s) AS due,
    count(*) FILTER (WHERE next_try_at > %(now)s AND waiting_for IS NOT NULL) AS waiting,
    min(next_try_at) AS next_try_at
FROM rollout_targets WHERE {_HAS_MOVED}
"""  # noqa: S608 - both parts are ours

_DUE_TO_MOVE = """
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE rollout_id = %(rollout)s
    AND (state = 'pending' AND wave = %(wave)s OR state = 'waiting' AND next_try_at <= %(now)s)
ORDER BY wave, position LIMIT %(limit)s
"""

_LATER = """
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE rollout_id = %(rollout)s AND state = 'pending' AND wave > %(wave)s
ORDER BY wave, position LIMIT %(limit)s
"""

_DUE_TO_RETURN = f"""
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE {_HAS_MOVED} AND (next_try_at IS NULL OR next_try_at <= %(now)s)
ORDER BY wave DESC, position LIMIT %(limit)s
"""  # noqa: S608 - the same

_DUE_TO_PLAN = """
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE rollout_id = %(rollout)s AND state = 'pending' AND plan_digest IS NULL
    AND last_error IS NULL AND (next_try_at IS NULL OR next_try_at <= %(now)s)
ORDER BY wave, position LIMIT %(limit)s
"""

_TO_ASK = """
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE rollout_id = %(rollout)s AND state = 'baking' AND next_try_at <= %(now)s
ORDER BY next_try_at, position LIMIT %(limit)s
"""

_UNTAKEN = """
SELECT install_id, customer_workspace_id, cluster_id FROM rollout_targets
WHERE rollout_id = %(rollout)s AND waiting_for IS NULL AND next_try_at > %(now)s
    AND state NOT IN ('moving', 'rolling_back') AND (state <> 'baking' OR %(baking)s)
ORDER BY wave, position LIMIT %(limit)s
"""

_WAVE = """
SELECT count(*) AS size, count(*) FILTER (WHERE state = 'failed') AS failed
FROM rollout_targets WHERE rollout_id = %(rollout)s AND wave = %(wave)s
"""

# One row for each install that is there. A grant is looked for by who gave it to whom: one that was
# revoked and given again is one. A stop of the vendor's own workspace holds what its rollouts do at
# its customers' too.
_FACTS = """
SELECT t.install_id, c.host, c.state AS cluster_state, i.observed_at, i.active_operation_id,
    i.held_at IS NOT NULL AS held, i.hold_until, i.update_window, i.pinned_semver,
    g.consent, g.consented_version_id, g.id IS NOT NULL OR t.customer = %(vendor)s AS granted,
    i.current_version_id, coalesce(stop_of_install(t.customer, t.install_id),
        CASE WHEN stop_in_force() THEN covering_stop(%(vendor)s, '{}', '{}', i.product_id) END
    ) AS stop_id
FROM unnest(%(customers)s::text[], %(installs)s::text[]) AS t (customer, install_id)
JOIN installs i ON i.workspace_id = t.customer AND i.id = t.install_id
JOIN clusters c ON c.workspace_id = t.customer AND c.id = i.cluster_id
LEFT JOIN grants g ON g.workspace_id = t.customer AND g.install_id = t.install_id
    AND g.vendor_workspace_id = %(vendor)s AND g.revoked_at IS NULL
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetCounts:
    """A rollout's targets, counted; see `CourseSight`."""

    begun: int
    stalled: int
    parked: int
    baking: int
    to_ask: int
    unasked: int
    waiting: int
    due: int
    later: int
    unplanned: int
    untried: int
    unreachable: int
    wave_size: int
    wave_pending: int
    wave_moved: int
    wave_failed: int
    next_try_at: datetime | None
    next_ask_at: datetime | None
    turns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReturnCounts:
    """Targets that shall return: those that can be tried now, and those that wait."""

    due: int
    waiting: int
    next_try_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A target whose turn may have come."""

    install_id: str
    customer_workspace_id: str
    cluster_id: str


def candidate_of(row: RolloutTargetRow) -> Candidate:
    """Return a target as one whose turn may have come."""
    return Candidate(
        install_id=row.install_id,
        customer_workspace_id=row.customer_workspace_id,
        cluster_id=row.cluster_id,
    )


async def count_targets(session: AsyncSession, rollout: RolloutRow, now: datetime) -> TargetCounts:
    """Count a rollout's targets."""
    parameters = {
        "rollout": rollout.id,
        "wave": rollout.wave,
        "now": now,
        "returns": rollout.state is RolloutState.ROLLING_BACK,
    }
    found = await run_sql(session, _COUNTS, parameters)
    return TargetCounts(**found.one()._mapping)  # noqa: SLF001 - public by its documentation


async def count_returns(
    session: AsyncSession,
    rollout_id: str,
    wave: int | None,
    now: datetime,
    *,
    asked_at: datetime | None,
) -> ReturnCounts:
    """Count the targets that have the new version and shall return.

    Args:
        session: in the vendor's workspace.
        rollout_id: the rollout.
        wave: of which wave; None: of every one.
        now: the moment.
        asked_at: when a person asked for it; what failed to return before is tried again.
    """
    parameters = {"rollout": rollout_id, "wave": wave, "now": now, "asked": asked_at}
    found = await run_sql(session, _TO_TAKE_BACK, parameters)
    return ReturnCounts(**found.one()._mapping)  # noqa: SLF001 - the same


async def is_given_up(session: AsyncSession, rollout: RolloutRow) -> bool:
    """Tell whether a rollout brings its version no further, so that no look changes anything.

    It has ended, or is being taken back, or somebody asked for that, or its wave spent its budget.
    """
    if rollout.state in TERMINAL or rollout.state is RolloutState.ROLLING_BACK:
        return True
    if rollout.cancel_requested_at is not None or rollout.rollback_requested_at is not None:
        return True
    parameters = {"rollout": rollout.id, "wave": rollout.wave}
    wave = (await run_sql(session, _WAVE, parameters)).one()
    failures: int = wave.failed
    return failures > Strategy.from_json(rollout.strategy).error_budget.within(wave.size)


async def due_to_move(
    session: AsyncSession, rollout_id: str, wave: int, now: datetime, limit: int
) -> Sequence[Candidate]:
    """Read targets of the wave, and stragglers of earlier ones, that may move now."""
    return await _candidates(
        session, _DUE_TO_MOVE, rollout=rollout_id, wave=wave, now=now, limit=limit
    )


async def later_targets(
    session: AsyncSession, rollout_id: str, wave: int, limit: int
) -> Sequence[Candidate]:
    """Read targets whose wave has not come, the next ones first."""
    return await _candidates(session, _LATER, rollout=rollout_id, wave=wave, limit=limit)


async def due_to_return(
    session: AsyncSession,
    rollout_id: str,
    wave: int | None,
    now: datetime,
    limit: int,
    *,
    asked_at: datetime | None,
) -> Sequence[Candidate]:
    """Read targets that may be taken back now, the last ones first; see `count_returns`."""
    return await _candidates(
        session,
        _DUE_TO_RETURN,
        rollout=rollout_id,
        wave=wave,
        now=now,
        limit=limit,
        asked=asked_at,
    )


async def due_to_plan(
    session: AsyncSession, rollout_id: str, now: datetime, limit: int
) -> Sequence[Candidate]:
    """Read targets whose plan is still to be made."""
    return await _candidates(session, _DUE_TO_PLAN, rollout=rollout_id, now=now, limit=limit)


async def targets_to_ask(
    session: AsyncSession, rollout_id: str, now: datetime, limit: int
) -> Sequence[Candidate]:
    """Read targets that bake and are to be looked at from their clusters' hosts now."""
    return await _candidates(session, _TO_ASK, rollout=rollout_id, now=now, limit=limit)


async def untaken_turns(
    session: AsyncSession, rollout: RolloutRow, now: datetime, limit: int
) -> Sequence[Candidate]:
    """Read targets to which a turn was given that nobody has taken yet.

    While a wave bakes a turn is a look. Whether one was taken is not known: all are read.
    """
    baking = rollout.state is RolloutState.ROLLING_BACK or rollout.bake_until is not None
    return await _candidates(
        session, _UNTAKEN, rollout=rollout.id, now=now, limit=limit, baking=baking
    )


async def facts_of(
    session: AsyncSession, vendor_workspace_id: str, candidates: Sequence[Candidate]
) -> Mapping[str, TargetFacts]:
    """Read what is known of installs, by their ids; those that are gone are not there.

    The session is the sweeper's, or one in the workspace of the one customer that is asked about.
    """
    found = await run_sql(
        session,
        _FACTS,
        {
            "vendor": vendor_workspace_id,
            "customers": [each.customer_workspace_id for each in candidates],
            "installs": [each.install_id for each in candidates],
        },
    )
    return {row.install_id: _facts(row) for row in found}


def _facts(row: Any) -> TargetFacts:  # noqa: ANN401 - the driver's row
    return TargetFacts(
        host=row.host,
        cluster_state=ClusterState(row.cluster_state),
        observed_at=row.observed_at,
        active_operation_id=row.active_operation_id,
        held=row.held,
        hold_until=row.hold_until,
        window=row.update_window,
        pinned_semver=row.pinned_semver,
        consent=None if row.consent is None else Consent(row.consent),
        consented_version_id=row.consented_version_id,
        granted=row.granted,
        current_version_id=row.current_version_id,
        stop_id=row.stop_id,
    )


async def _candidates(session: AsyncSession, sql: str, **parameters: object) -> Sequence[Candidate]:
    found = await run_sql(session, sql, parameters)
    return [
        Candidate(
            install_id=row.install_id,
            customer_workspace_id=row.customer_workspace_id,
            cluster_id=row.cluster_id,
        )
        for row in found
    ]
