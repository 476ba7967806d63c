from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.policy.costs import RUN_OVERHEAD_S, Costs, Ladder, Plan
from service.policy.situation import Waiting

SECONDS = {"full": 0.030, "slow": 0.035, "quantized": 0.009, "distilled": 0.002}
ACCURACY = {"full": 0.920, "slow": 0.915, "quantized": 0.910, "distilled": 0.860}
NAMES = tuple(SECONDS)
CASCADE = Plan("distilled+full", "distilled", "full", 0.5, 0.3, 0.905)


def costs(plans: tuple[Plan, ...] = (), ratios: dict[str, float] | None = None, batch_gain: float = 1.0) -> Costs:
    tables = {name: (0.0, *(seconds * rows**batch_gain for rows in range(1, 9))) for name, seconds in SECONDS.items()}
    found = dict.fromkeys(NAMES, 1.0) | (ratios or {})
    return Costs(tables, found, ACCURACY, {plan.name: plan for plan in plans})


def turns_s(found: Costs, rows: int, together: int) -> tuple[float, ...]:
    return found.turns_s(found.ladder(NAMES, rows), rows, together)


def names(ladder: Ladder) -> list[str]:
    return [step.name for step in ladder.steps]


def test_ladder_drops_candidates_that_are_not_cheaper_than_a_more_accurate_one() -> None:
    assert names(costs().ladder(NAMES, 1)) == ["full", "quantized", "distilled"]


def test_ladder_drops_a_candidate_that_costs_the_same_as_a_more_accurate_one() -> None:
    same = costs(ratios={"quantized": 0.030 / 0.009})
    assert names(same.ladder(NAMES, 1)) == ["full", "distilled"]


def test_thrifty_ladder_drops_steps_that_are_no_more_accurate_than_a_cheaper_one() -> None:
    ladder = costs((replace(CASCADE, accuracy=0.920),)).ladder(("full", CASCADE.name, "quantized", "distilled"), 1)
    assert names(ladder) == ["full", CASCADE.name, "quantized", "distilled"]
    assert names(ladder.thrifty) == [CASCADE.name, "quantized", "distilled"]
    plain = costs().ladder(NAMES, 1)
    assert plain.thrifty is plain


def test_ladder_takes_back_a_candidate_when_a_correction_makes_it_worth_its_time() -> None:
    assert names(costs(ratios={"full": 2.0}).ladder(NAMES, 1)) == ["full", "slow", "quantized", "distilled"]


def test_ladder_costs_are_for_the_rows_of_the_request() -> None:
    assert [step.cost_s for step in costs().ladder(NAMES, 3).steps] == pytest.approx([0.090, 0.027, 0.006])


def test_ladder_is_the_same_object_while_the_costs_are() -> None:
    found = costs()
    assert found.ladder(NAMES, 1) is found.ladder(NAMES, 1)
    assert found.ladder(NAMES, 2) is not found.ladder(NAMES, 1)


def test_plan_costs_what_it_takes_on_average_and_at_worst_both_stages() -> None:
    found = costs((CASCADE,), ratios={"full": 0.5})
    step = found.ladder(("full", CASCADE.name, "distilled"), 2).steps[1]
    assert step.name == CASCADE.name
    assert step.accuracy == CASCADE.accuracy
    assert step.cost_s == pytest.approx(2 * (0.002 + 0.3 * 0.015))
    assert step.worst_s == pytest.approx(2 * (0.002 + 0.015))


def test_variant_takes_at_worst_what_it_costs() -> None:
    ladder = costs().ladder(NAMES, 1)
    assert all(step.worst_s == step.cost_s for step in ladder.steps)


def test_plan_is_dropped_when_its_big_stage_is_so_slow_that_another_variant_is_cheaper() -> None:
    wanted = ("full", "quantized", CASCADE.name, "distilled")
    assert CASCADE.name in names(costs((CASCADE,), ratios={"full": 0.7}).ladder(wanted, 1))
    assert CASCADE.name not in names(costs((CASCADE,), ratios={"full": 2.0}).ladder(wanted, 1))


def test_longest_time_of_a_ladder_is_the_worst_case_of_any_step() -> None:
    found = costs((CASCADE,), ratios={"quantized": 3.0})
    assert found.ladder((CASCADE.name, "distilled"), 1).longest_s == pytest.approx(0.032)


def test_ladder_within_a_slack_has_no_plan_that_could_take_longer_and_so_hides_no_variant_that_fits() -> None:
    wanted = ("full", CASCADE.name, "quantized", "distilled")
    found = costs((replace(CASCADE, escalated_ratio=0.1, accuracy=0.915),))
    assert names(found.ladder(wanted, 1)) == ["full", CASCADE.name, "distilled"]
    assert found.ladder_within(wanted, 1, 0.032) is found.ladder(wanted, 1)
    assert names(found.ladder_within(wanted, 1, 0.031)) == ["full", "quantized", "distilled"]


@pytest.mark.parametrize(
    ("level", "name"),
    [(1.0, "full"), (0.92, "full"), (0.919, "quantized"), (0.86, "distilled"), (0.1, "distilled")],
)
def test_ladder_gives_the_most_accurate_step_not_above_a_level(level: float, name: str) -> None:
    ladder = costs().ladder(NAMES, 1)
    assert [ladder.at(level).name for _ in range(2)] == [name, name]  # from memory too


def test_gain_of_a_second_is_the_least_against_any_cheaper_step() -> None:
    gains_per_s = costs().ladder(NAMES, 1).gains_per_s
    assert gains_per_s["full"] == pytest.approx(0.01 / 0.021)  # against quantized; against distilled it is 0.06 / 0.028
    assert gains_per_s["quantized"] == pytest.approx(0.05 / 0.007)
    assert gains_per_s["distilled"] == math.inf


def test_turn_of_a_lane_is_a_run_and_its_overhead() -> None:
    expected = [seconds + RUN_OVERHEAD_S for seconds in (0.030, 0.009, 0.002)]
    assert turns_s(costs(), 1, 1) == pytest.approx(expected)


def test_turn_of_a_lane_is_a_share_of_a_run_where_sharing_is_cheaper() -> None:
    halved = turns_s(costs(batch_gain=0.5), 2, 4)
    assert halved == pytest.approx([(seconds * 8**0.5 + RUN_OVERHEAD_S) / 4 for seconds in (0.030, 0.009, 0.002)])
    assert turns_s(costs(batch_gain=1.2), 2, 4)[0] == pytest.approx(0.030 * 2**1.2 + RUN_OVERHEAD_S)


def test_turn_of_a_plan_is_a_share_of_its_first_run_and_second_stages_that_run_alone() -> None:
    found = costs((CASCADE,), ratios={"full": 0.5}, batch_gain=0.1)
    wanted = ("full", CASCADE.name, "distilled")
    ladder = found.ladder(wanted, 2)
    first_s = (0.002 * 8**0.1 + RUN_OVERHEAD_S) / 4
    second_s = CASCADE.escalated_ratio * (0.5 * 0.030 * 2**0.1 + RUN_OVERHEAD_S)
    assert found.turns_s(ladder, 2, together=4)[1] == pytest.approx(first_s + second_s)
    assert found.turns_s(ladder, 2, together=1)[1] == pytest.approx(ladder.steps[1].cost_s + RUN_OVERHEAD_S)


def test_fastest_time_is_that_of_the_cheapest_candidate_whatever_its_place() -> None:
    slow_small = costs(ratios={"distilled": 10.0})
    assert slow_small.fastest_s(Waiting(1.0, 1.0, 1, NAMES, None)) == pytest.approx(0.009)


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=8),
    st.integers(1, 8),
    st.floats(0.3, 1.2),
    st.floats(0.0, 1.0),
)
def test_ladder_descends_and_keeps_the_best_and_the_cheapest(
    seconds: list[float], rows: int, batch_gain: float, level: float
) -> None:
    tables = {
        f"v{place}": (0.0, *(one * count**batch_gain for count in range(1, 9))) for place, one in enumerate(seconds)
    }
    accuracy = {name: 0.9 - 0.1 * place for place, name in enumerate(tables)}
    found = Costs(tables, dict.fromkeys(tables, 1.0), accuracy)
    ladder = found.ladder(tuple(tables), rows)
    steps = ladder.steps
    assert steps[0].name == "v0"
    assert ladder.fastest.cost_s == min(found.of(name, rows) for name in tables)
    assert all(above.cost_s > below.cost_s and above.accuracy > below.accuracy for above, below in pairwise(steps))
    allowed = [step for step in steps if step.accuracy <= level] or [ladder.fastest]
    assert ladder.at(level) == allowed[0]
