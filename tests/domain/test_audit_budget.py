"""Equal events fill no audit log, and are counted in it nevertheless."""

from domain.audit_budget import FULL_LINES, AuditBudget


def test_the_first_events_have_a_line_each_and_then_each_doubling_has_one() -> None:
    budget = AuditBudget(clock=lambda: 0.0)
    told = [count for _ in range(5000) if (count := budget.take("token")) is not None]
    assert told == [*range(1, FULL_LINES + 1), 32, 64, 128, 256, 512, 1024, 2048, 4096]


def test_events_that_come_at_once_are_counted_each() -> None:
    budget = AuditBudget(clock=lambda: 0.0)
    assert [budget.take("flood", 400) for _ in range(5)] == [400, 800, 1200, None, None]
    assert budget.take("another") == 1


def test_an_hour_later_it_begins_anew() -> None:
    now = [0.0]
    budget = AuditBudget(clock=lambda: now[0])
    assert budget.take("token", 1000) == 1000
    now[0] = 3599.0
    assert budget.take("token") is None
    now[0] = 3600.0
    assert budget.take("token") == 1
