"""Who moves in which wave, and what an approval is bound to."""

from hypothesis import given
from hypothesis import strategies as st

from domain.rollout_plan import (
    PlannedTarget,
    assign_waves,
    plan_digest_of,
    sizes_of_waves,
    spread_order,
)
from domain.rollout_strategy import Check, Selector, Share, Strategy

SHARES = st.one_of(
    st.builds(Share, count=st.integers(1, 300)), st.builds(Share, percent=st.integers(1, 100))
)
STRATEGIES = st.builds(
    Strategy, canary=st.integers(0, 100), waves=st.lists(SHARES, min_size=1, max_size=8).map(tuple)
)


@given(st.integers(1, 5000), STRATEGIES)
def test_every_target_is_in_one_wave_and_no_wave_is_empty(targets: int, strategy: Strategy) -> None:
    sizes = sizes_of_waves(targets, strategy)
    assert sum(sizes) == targets
    assert all(sizes)


@given(st.integers(1, 400), STRATEGIES)
def test_waves_follow_the_order_and_the_canary_comes_first(
    targets: int, strategy: Strategy
) -> None:
    order = [f"inst_{number}" for number in range(targets)]
    places = assign_waves(order, strategy)
    waves = [places[install].wave for install in order]
    assert waves == sorted(waves)
    assert [places[install].position for install in order] == list(range(targets))
    if strategy.canary:
        assert waves.count(0) == min(strategy.canary, targets)


def test_a_percentage_is_of_what_is_no_canary() -> None:
    strategy = Strategy(canary=2, waves=(Share(percent=10), Share(percent=50)))
    assert sizes_of_waves(102, strategy) == [2, 10, 50, 40]


def test_an_order_does_not_tell_the_age_and_is_the_same_each_time() -> None:
    order = [f"inst_{number:04}" for number in range(50)]
    spread = spread_order(order, "roll_1")
    assert spread != order
    assert spread == spread_order(list(reversed(order)), "roll_1")
    assert spread != spread_order(order, "roll_2")


@given(st.permutations(range(6)))
def test_a_digest_does_not_depend_on_the_order_of_targets(order: list[int]) -> None:
    targets = [
        PlannedTarget(install_id=f"inst_{number}", wave=number % 2, plan_digest=f"d{number}")
        for number in range(6)
    ]
    digest = plan_digest_of({"version": "v"}, targets)
    assert plan_digest_of({"version": "v"}, [targets[number] for number in order]) == digest


def test_a_digest_changes_with_a_plan_a_wave_and_an_input() -> None:
    target = PlannedTarget(install_id="inst_1", wave=0, plan_digest="d")
    digests = {
        plan_digest_of({"version": "v"}, [target]),
        plan_digest_of({"version": "w"}, [target]),
        plan_digest_of(
            {"version": "v"}, [PlannedTarget(install_id="inst_1", wave=1, plan_digest="d")]
        ),
        plan_digest_of(
            {"version": "v"}, [PlannedTarget(install_id="inst_1", wave=0, plan_digest="e")]
        ),
        plan_digest_of({"version": "v"}, []),
    }
    assert len(digests) == 5


def test_a_strategy_and_a_selector_are_stored_as_they_are() -> None:
    check = Check.from_json({"kind": "job", "image": "busybox", "command": ["true"]})
    strategy = Strategy(error_budget=Share(percent=10), checks=(check,), waves=(Share(count=3),))
    assert Strategy.from_json(strategy.to_json()) == strategy
    assert Strategy.from_json({}) == Strategy()
    selector = Selector(regions=("reg_1",), labels={"tier": "gold"})
    assert Selector.from_json(selector.to_json()) == selector


def test_waves_are_numbered_from_one_behind_the_canary() -> None:
    tried, at_once = Strategy(canary=2), Strategy(canary=0)
    assert [tried.wave_in_words(wave) for wave in range(3)] == ["the canary", "wave 1", "wave 2"]
    assert [at_once.wave_in_words(wave) for wave in range(2)] == ["wave 1", "wave 2"]
