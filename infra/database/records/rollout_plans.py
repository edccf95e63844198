"""What an approval of a rollout is bound to."""

from sqlmodel import select

from domain.rollout import Gate
from domain.rollout_plan import PlannedTarget, plan_digest_of
from infra.database.records.rollout_look import Look, touch
from infra.database.records.rollout_rows import add_event, installs
from infra.database.statements import run_sql
from infra.database.tables import RolloutTargetRow

_LEAVE_UNPLANNED = """
UPDATE rollout_targets SET waiting_for = NULL, next_try_at = NULL,
    last_error = jsonb_build_object('reason', 'DEADLINE_EXCEEDED', 'moved', false,
        'message', 'Its plan could not be made in time: ' || waiting_for || '.')
WHERE rollout_id = %(rollout)s AND state = 'pending' AND plan_digest IS NULL
    AND last_error IS NULL AND waiting_for IS NOT NULL
"""


async def settle_plan(look: Look) -> None:
    """Bind the rollout to what it would do, so that it can be approved.

    Who could not be asked by now is no part of it.
    """
    await run_sql(look.session, _LEAVE_UNPLANNED, {"rollout": look.rollout.id})
    planned, targets = await _bind(look)
    if look.rollout.plan_only:
        message = f"A plan is made for {planned} of {installs(targets)}."
        await add_event(look.session, look.rollout, "rollout.planned", message)


async def bind_anew(look: Look) -> None:
    """Where each wave is approved, have an approval count only for those who are in it now."""
    if look.strategy.gate is Gate.EACH_WAVE:
        await _bind(look)


async def _bind(look: Look) -> tuple[int, int]:
    """Write the digest of what the rollout would do; return how many have a plan, of how many."""
    await look.session.flush()
    rollout = look.rollout
    query = select(
        RolloutTargetRow.install_id, RolloutTargetRow.wave, RolloutTargetRow.plan_digest
    ).where(RolloutTargetRow.rollout_id == rollout.id)
    targets = [
        PlannedTarget(install_id=install_id, wave=wave, plan_digest=digest)
        for install_id, wave, digest in await look.session.exec(query)
    ]
    inputs = {
        "product_id": rollout.product_id,
        "package_version_id": rollout.package_version_id,
        "selector": rollout.selector,
        "strategy": rollout.strategy,
    }
    rollout.plan_digest = plan_digest_of(inputs, targets)
    touch(rollout)
    return sum(each.plan_digest is not None for each in targets), len(targets)
