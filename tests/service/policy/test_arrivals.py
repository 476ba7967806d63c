"""What is expected to come, and how it moves the level before the queue alone would."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.arrivals import RecentRate, turn_kept_up_s
from service.policy.costs import RUN_OVERHEAD_S, Costs
from service.policy.desk import Standing
from service.policy.pace import level_of_alike
from service.policy.situation import Situation, Waiting

NAMES = ("full", "pruned", "small")
SECONDS = (0.010, 0.004, 0.001)
COSTS = Costs(
    {name: (0.0, seconds) for name, seconds in zip(NAMES, SECONDS, strict=True)},
    dict.fromkeys(NAMES, 1.0),
    dict(zip(NAMES, (0.92, 0.90, 0.86), strict=True)),
)
TURNS_S = [seconds + RUN_OVERHEAD_S for seconds in SECONDS]
BUDGET_S = 0.1


def rate(hz: float, *, until_s: float = 0.0) -> RecentRate:
    """Return what is seen after a second of arrivals at one pace, the last of them at a moment."""
    seen = RecentRate()
    for number in reversed(range(int(hz))):
        seen.arrived(until_s - number / hz, BUDGET_S)
    return seen


def level(queued: int, recent: RecentRate | None, slack_s: float = BUDGET_S) -> int:
    situation = Situation(COSTS, 0.0, (0.0, 0.0), 1, recent=recent)
    found = level_of_alike([Waiting(slack_s, 60.0, 1, NAMES, None)] * queued, 0, TURNS_S, situation)
    assert found is not None
    return found


@pytest.mark.parametrize("hz", [200.0, 5000.0])
def test_a_steady_pace_is_seen_as_it_is(hz: float) -> None:
    assert rate(hz).hz(0.0) == pytest.approx(hz, rel=0.15)


def test_an_arrival_is_forgotten_to_a_third_in_a_quarter_of_its_budget() -> None:
    seen = RecentRate()
    assert seen.hz(0.0) == 0.0
    seen.arrived(1.0, BUDGET_S)
    assert seen.hz(1.0) == pytest.approx(4 / BUDGET_S)
    assert seen.hz(1.0 + BUDGET_S / 4) == pytest.approx(4 / BUDGET_S / math.e)


def test_moments_may_come_in_any_order() -> None:
    one, other = RecentRate(), RecentRate()
    for seen, moments_s in ((one, (1.0, 0.999)), (other, (1.0, 1.0))):
        for moment_s in moments_s:
            seen.arrived(moment_s, BUDGET_S)
    assert one.hz(1.0) == other.hz(1.0)


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(-1.0, math.inf)), max_size=30), st.floats(0.0, 20.0))
def test_no_budget_however_odd_makes_a_rate_that_is_none(arrivals: list[tuple[float, float]], now_s: float) -> None:
    seen = RecentRate()
    for moment_s, budget_s in arrivals:
        seen.arrived(moment_s, budget_s)
    assert 0.0 <= seen.hz(now_s) < math.inf


@pytest.mark.parametrize(("other_s", "gap_s"), [(60.0, 0.001), (0.005, 0.025), (0.0004, 0.002)])
def test_arrivals_with_other_budgets_count_as_what_they_are(other_s: float, gap_s: float) -> None:
    seen = RecentRate()
    for number in range(-40, 1):  # 20 a second of both
        seen.arrived(number / 20 - gap_s, other_s)
        seen.arrived(number / 20, BUDGET_S)
    assert seen.hz(0.0) < 2 * 4 / BUDGET_S
    assert level(4, seen) == level(4, None)


def test_a_first_request_without_a_limit_leaves_nothing_behind() -> None:
    seen = RecentRate()
    seen.arrived(0.0, math.inf)
    seen.arrived(1.0, BUDGET_S)
    assert seen.hz(1.0) == pytest.approx(4 / BUDGET_S)


def test_a_standing_counts_arrivals_by_their_budgets() -> None:
    standing = Standing()
    standing.arrived(2.0, 2.0 + BUDGET_S)
    assert standing.recent.hz(2.0) == pytest.approx(4 / BUDGET_S)


def test_turn_leaves_room_for_those_who_will_have_come_by_half_of_the_last_slack() -> None:
    situation = Situation(COSTS, 0.0, (0.0, 0.0), 1, recent=rate(1000.0))
    coming = situation.recent.hz(0.0) * BUDGET_S / 2 if situation.recent else 0.0
    assert turn_kept_up_s(10, BUDGET_S, 0.02, situation) == pytest.approx(
        (2 * 1.5 * BUDGET_S - 0.02) / (10 + coming + 2)
    )


def test_who_has_far_more_time_than_those_who_came_last_is_not_hurried_by_them() -> None:
    busy = rate(2000.0)
    assert level(4, busy, slack_s=600 * BUDGET_S) == level(4, None, slack_s=600 * BUDGET_S)


def test_few_that_wait_at_the_start_of_a_burst_get_less_than_the_queue_alone_would_allow() -> None:
    assert level(4, None) == 0
    assert level(4, rate(800.0)) == 1
    assert level(4, rate(2000.0)) == 2


def test_calm_arrivals_change_nothing() -> None:
    assert [level(queued, rate(100.0)) for queued in (2, 4, 8)] == [level(queued, None) for queued in (2, 4, 8)]


def test_a_burst_that_is_over_is_forgotten() -> None:
    assert level(4, rate(2000.0, until_s=-BUDGET_S)) == 0


def test_where_no_turn_keeps_up_the_queue_alone_decides() -> None:
    assert level(4, rate(20_000.0)) == level(4, None)


@given(st.integers(2, 60), st.floats(0.002, 0.2), st.floats(1.0, 4000.0))
def test_who_is_expected_never_raises_the_level(queued: int, slack_s: float, hz: float) -> None:
    assert level(queued, rate(hz), slack_s) >= level(queued, None, slack_s)
