"""Installs on clusters that a version does not fit: they are skipped, and take nobody's turn."""

import pytest

from domain.rollout import RolloutState, TargetState
from domain.rollout_strategy import Strategy
from tests.rollout_lab import Lab, Offer


async def _fits_one_customer(lab: Lab, offer: Offer) -> str:
    """Have the new version fit the cluster of one customer alone; return which."""
    fitting = offer.customers[0]
    await lab.sql(
        "UPDATE package_versions SET compatibility = jsonb_build_object('placement',"
        " jsonb_build_object('regions', jsonb_build_array("
        " (SELECT id FROM regions WHERE workspace_id = %s)))) WHERE id = %s",
        (fitting, offer.new),
    )
    return fitting


@pytest.mark.parametrize("canary", [0, 1])
async def test_a_target_that_a_version_does_not_fit_gets_no_turn(lab: Lab, canary: int) -> None:
    offer = lab.offer(9)
    fitting = await _fits_one_customer(lab, offer)
    strategy = Strategy(canary=canary, concurrency=1, bake_seconds=0, checks=())
    row = await lab.until(place := await lab.create(offer, strategy))
    assert row.state is RolloutState.SUCCEEDED
    targets = await lab.targets(place)
    of_others = [each for each in targets if each.customer_workspace_id != fitting]
    assert {each.state for each in of_others} == {TargetState.SKIPPED}
    assert {each.attempts for each in of_others} == {0}
    assert {each.attempts for each in targets if each not in of_others} == {1}


async def test_no_plan_is_made_where_a_version_does_not_fit(lab: Lab) -> None:
    offer = lab.offer(3)
    fitting = await _fits_one_customer(lab, offer)
    strategy = Strategy(canary=0, concurrency=1, bake_seconds=0, checks=())
    place = await lab.create(offer, strategy, plan_only=True)
    await lab.until(place, RolloutState.PLANNED)
    planned = {each.customer_workspace_id: each for each in await lab.targets(place)}
    assert planned[fitting].plan_digest is not None
    others = [each for customer, each in planned.items() if customer != fitting]
    assert {each.attempts for each in others} == {0}
    assert {(each.last_error or {})["message"] for each in others} == {
        "The version does not fit its cluster."
    }
