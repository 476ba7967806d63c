from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.policy.costs import Costs, Plan, Step
from service.policy.price import Losses, shortage_price_per_s
from service.policy.scheduling import Run, Situation, Waiting, choose_run

SECONDS = {"full": 0.030, "quantized": 0.009, "pruned": 0.005, "distilled": 0.002}
ACCURACY = {"full": 0.920, "quantized": 0.915, "pruned": 0.900, "distilled": 0.860}
CHEAPEST = Step("distilled", 0.002, 0.002, 0.860)
PLAN = Plan("pruned+full", "pruned", "full", 0.5, 0.1, 0.918)
IDLE = Situation(
    Costs({name: (0.0, seconds) for name, seconds in SECONDS.items()}, dict.fromkeys(SECONDS, 1.0), ACCURACY),
    now_s=0.0,
    lanes_free_s=(0.0,),
    max_rows=1,
)


def waiting(due_s: float = 0.1, candidates: tuple[str, ...] = tuple(SECONDS)) -> Waiting:
    return Waiting(due_s, 60.0, 1, candidates, None)


def chosen(found: Situation, queue: list[Waiting] | None = None) -> str:
    run = choose_run(queue or [waiting()], found)
    assert isinstance(run, Run)
    return run.plan or run.variant


def test_losses_are_zero_until_one_is_lost() -> None:
    losses = Losses()
    for _ in range(100):
        losses.arrived()
    assert losses.ratio == 0.0


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_losses_settle_at_the_share_of_arrivals_that_is_lost(share: float) -> None:
    losses, every, seen = Losses(), round(1 / share), []
    for number in range(20_000):
        losses.arrived()
        if number % every == 0:
            losses.lost()
        seen.append(losses.ratio)
    assert sum(seen[-every * 10 :]) / (every * 10) == pytest.approx(share, rel=0.02)


def test_losses_forget_about_two_thirds_over_three_thousand_arrivals() -> None:
    losses = Losses()
    for _ in range(10_000):
        losses.arrived()
    losses.ratio = 0.3
    for _ in range(3000):
        losses.arrived()
    assert losses.ratio == pytest.approx(0.3 * 0.368, rel=0.01)


def test_losses_take_the_first_after_few_arrivals_for_no_habit() -> None:
    losses = Losses()
    losses.arrived()
    losses.lost()
    assert 0.0 < losses.ratio < 0.01


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 5000)), max_size=200))
def test_losses_stay_a_share_whatever_happens(events: list[int | None]) -> None:
    losses = Losses()
    for count in events:
        if count is None:
            losses.arrived()
        else:
            losses.lost(count)
        assert 0.0 <= losses.ratio <= 1.0


def test_shortage_costs_nothing_without_losses() -> None:
    assert shortage_price_per_s(CHEAPEST, 0.0, filled=1.0) == 0.0


def test_shortage_makes_a_second_worth_the_requests_that_it_would_save() -> None:
    assert shortage_price_per_s(CHEAPEST, 1.0, filled=1.0) == pytest.approx(0.86 / 0.002)
    assert shortage_price_per_s(CHEAPEST, 0.5, filled=0.5) == pytest.approx(0.25 * 0.86 / 0.002)


def test_shortage_survives_a_cheapest_step_that_costs_nothing() -> None:
    assert shortage_price_per_s(replace_cost(0.0), 1.0, 1.0) < float("inf")


def replace_cost(cost_s: float) -> Step:
    return CHEAPEST._replace(cost_s=cost_s)


@settings(deadline=None)
@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_shortage_grows_with_losses_and_with_how_full_the_time_is(
    one: float, other: float, filled: float, fuller: float
) -> None:
    less, more = sorted((one, other))
    empty, full = sorted((filled, fuller))
    assert shortage_price_per_s(CHEAPEST, less, empty) <= shortage_price_per_s(CHEAPEST, more, full)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (0.0, "full"),
        (0.004, "full"),
        (0.0051, "quantized"),
        (0.0201, "pruned"),
        (0.0601, "distilled"),
        (1.0, "distilled"),
    ],
)
def test_objective_cost_takes_the_cheapest_within_the_loss(loss: float, name: str) -> None:
    assert chosen(replace(IDLE, accuracy_loss=loss)) == name


def test_objective_cost_measures_the_loss_from_the_best_candidate_not_from_what_fits() -> None:
    assert chosen(replace(IDLE, accuracy_loss=0.0051), [waiting(0.008)]) == "pruned"


def test_objective_cost_goes_below_its_floor_rather_than_being_late() -> None:
    burst = [waiting(0.05)] * 20
    assert chosen(replace(IDLE, accuracy_loss=0.0051), burst) == "distilled"


@pytest.mark.parametrize(
    ("price_per_s", "name"),
    [(0.0, "full"), (0.2, "full"), (0.3, "quantized"), (3.0, "quantized"), (4.0, "pruned"), (20.0, "distilled")],
)
def test_price_is_paid_only_for_what_gains_it(price_per_s: float, name: str) -> None:
    assert chosen(replace(IDLE, price_per_s=price_per_s)) == name


@settings(deadline=None)
@given(st.floats(0.0, 50.0))
def test_price_chooses_what_maximises_accuracy_less_the_price_of_its_seconds(price_per_s: float) -> None:
    worth = {name: ACCURACY[name] - price_per_s * SECONDS[name] for name in SECONDS}
    assert worth[chosen(replace(IDLE, price_per_s=price_per_s))] == pytest.approx(max(worth.values()), abs=1e-12)


def test_price_judges_each_step_by_its_own_gain_when_a_plan_does_not_fit() -> None:
    costs = replace(IDLE.costs, plans={PLAN.name: PLAN}, _ladders={})
    names = ("full", PLAN.name, "quantized", "pruned", "distilled")
    found = replace(IDLE, costs=costs, price_per_s=0.3)
    assert chosen(found, [waiting(0.1, names)]) == PLAN.name
    # 32 ms are enough for the full variant but not for both stages; the full one gains 5 thousandths for 21 ms.
    assert chosen(found, [waiting(0.032, names)]) == "quantized"


def test_shortage_spares_time_only_where_the_queue_fills_it() -> None:
    short = replace(IDLE, shortage=0.01)
    assert chosen(short, [waiting(10.0)]) == "full"
    assert chosen(short, [waiting(1.0)] * 10) != "full"
    assert chosen(replace(short, shortage=0.0), [waiting(1.0)] * 10) == "full"


@pytest.mark.parametrize("count", [0, 1, 50, 4000])
def test_many_that_were_turned_away_count_like_as_many_one_by_one(count: int) -> None:
    together, one_by_one = Losses(), Losses()
    for losses in (together, one_by_one):
        for _ in range(100):
            losses.arrived()
        losses.lost(3)
    together.turned_away(count)
    for _ in range(count):
        one_by_one.arrived()
        one_by_one.lost()
    for losses in (together, one_by_one):
        losses.arrived()
    assert together.ratio == pytest.approx(one_by_one.ratio)
