"""What is held, evicted and swapped, for any sizes, uses and budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.policy.memory import (
    Holdable,
    choose_filling,
    choose_first,
    choose_leaving,
    choose_swap,
    decayed,
    held_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


def item(variant: str, size: int, accuracy: float = 0.9, compute_s: float = 0.01, model: str = "m") -> Holdable:
    return Holdable(model, variant, f"{model}/{variant}", size, accuracy, compute_s)


FULL, MIDDLE, SMALL = item("full", 60, 0.95, 0.03), item("middle", 20, 0.94, 0.01), item("small", 10, 0.9, 0.002)
LADDER = (FULL, MIDDLE, SMALL)


def held(items: Sequence[Holdable], *names: str, **uses: float) -> list[Holdable]:
    """Return the items, those named in memory."""
    return [replace(it, is_held=it.variant in names, uses=uses.get(it.variant, 0.0)) for it in items]


def names(weights: frozenset[Hashable]) -> set[str]:
    return {str(weight).partition("/")[2] for weight in weights}


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (math.inf, {"full", "middle", "small"}),
        (90, {"full", "middle", "small"}),
        (89, {"full", "small"}),
        (69, {"middle", "small"}),
        (29, {"small"}),
        (9, set()),
    ],
)
def test_the_first_choice_is_the_fastest_then_the_most_accurate_that_fits(room: float, expected: set[str]) -> None:
    assert names(choose_first(LADDER, room)) == expected


def test_every_model_gets_one_before_any_gets_two() -> None:
    others = [replace(it, model="other", weights=f"other/{it.variant}") for it in LADDER]
    assert choose_first([*LADDER, *others], 75) == {"m/small", "other/small", "m/middle", "other/middle"}
    assert choose_first([*LADDER, *others], 20) == {"m/small", "other/small"}


def test_what_routing_may_not_choose_is_held_last() -> None:
    beaten = replace(FULL, is_routable=False)
    assert names(choose_first([beaten, MIDDLE, SMALL], 70)) == {"middle", "small"}
    assert names(choose_first([beaten, MIDDLE, SMALL], 90)) == {"full", "middle", "small"}


def test_equal_weights_count_once() -> None:
    twin = replace(FULL, model="other")
    assert choose_first([FULL, twin], 60) == {"m/full"}
    assert held_bytes([replace(FULL, is_held=True), replace(twin, is_held=True)]) == 60


def test_the_least_used_makes_room() -> None:
    items = held(LADDER, "middle", "small", middle=5.0, small=7.0)
    assert choose_leaving(items, FULL, 90) == ()
    assert choose_leaving(items, FULL, 80) == ("m/middle",)
    assert choose_leaving(items, FULL, 60) == ("m/middle", "m/small")
    assert choose_leaving(items, FULL, 59) is None


def test_what_a_larger_one_makes_needless_stays() -> None:
    items = held([*LADDER, item("huge", 90)], "full", "small", full=5.0, small=1.0)
    assert choose_leaving(items, items[3], 100) == ("m/full",)


def test_another_model_keeps_its_last_one_and_where_that_is_too_much_its_smallest() -> None:
    coming = item("big", 50, model="other")
    items = held(LADDER, "full", "small", full=9.0, small=1.0)
    assert choose_leaving(items, coming, 110) == ("m/full",), "the fastest stays, though it is used less"
    assert choose_leaving(items, coming, 59) is None
    assert choose_leaving(held(LADDER, "full"), coming, 109) is None, "it is the last one"


def test_the_fastest_leaves_only_for_a_request_that_cannot_do_without() -> None:
    items = [replace(FULL, demand=1e6), *held(LADDER[1:], "small")]
    assert choose_leaving(items, items[0], 60) == ("m/small",)
    assert choose_swap(items, 60, 0.0) is None


def test_a_model_whose_fastest_is_large_may_be_left_with_its_smallest() -> None:
    quick = item("quick", 40, compute_s=0.001)
    items = held([quick, SMALL], "quick", "small", quick=9.0)
    coming = item("big", 50, model="other")
    assert choose_leaving(items, coming, 60) == ("m/quick",)


def test_demand_swaps_only_where_it_outweighs_what_is_lost_twice_over() -> None:
    items = held(LADDER, "middle", "small", middle=1000.0, small=50.0)
    # Of the middle one's 1000, those that would prefer the full one gain 0.01 each; the others lose 0.04 each.
    assert choose_swap([replace(items[0], demand=887.0), *items[1:]], 80, 0.0) is None
    swap = choose_swap([replace(items[0], demand=889.0), *items[1:]], 80, 0.0)
    assert swap is not None
    assert (swap.coming.variant, swap.leaving) == ("full", ("m/middle",))


def test_swaps_are_few() -> None:
    items = [replace(FULL, demand=1e6), *held(LADDER[1:], "middle", "small")]
    assert choose_swap(items, 80, 100.0, (70.0, 80.0, 90.0, 99.0)) is None
    assert choose_swap(items, 80, 100.0, (39.0, 80.0, 90.0, 99.0)) is not None


def test_little_demand_swaps_nothing() -> None:
    assert choose_swap([replace(FULL, demand=0.5), *held(LADDER[1:], "middle", "small")], 80, 0.0) is None


def test_free_room_is_filled_with_the_best_that_fits() -> None:
    assert choose_filling(held(LADDER, "small"), 70) == FULL
    assert choose_filling(held(LADDER, "small"), 69) == MIDDLE
    assert choose_filling(held(LADDER, "small"), 29) is None


def test_counts_halve_in_a_minute() -> None:
    assert decayed(8.0, 120.0) == 2.0


@st.composite
def situations(draw: st.DrawFn) -> list[Holdable]:
    """Draw up to three models of up to four variants, some of which share weights across models."""
    items = []
    for model in range(draw(st.integers(1, 3))):
        for number in range(draw(st.integers(1, 4))):
            shared = draw(st.booleans())
            items.append(
                Holdable(
                    model=f"m{model}",
                    variant=f"v{number}",
                    weights=f"w{number}" if shared else f"m{model}/v{number}",
                    size_bytes=10 * (number + 1) if shared else draw(st.integers(1, 60)),
                    accuracy=draw(st.sampled_from([0.8, 0.85, 0.9, 0.95])),
                    compute_s=draw(st.sampled_from([0.001, 0.01, 0.1])),
                    is_routable=draw(st.booleans()),
                    uses=draw(st.integers(0, 1000)),
                    demand=draw(st.integers(0, 1000)),
                )
            )
    return items


def hold(items: Sequence[Holdable], weights: frozenset[Hashable]) -> list[Holdable]:
    return [replace(it, is_held=it.weights in weights, demand=it.demand * (it.weights not in weights)) for it in items]


@given(situations(), st.integers(0, 300))
def test_the_first_choice_keeps_the_budget_and_covers_every_model_that_it_can(items: list[Holdable], room: int) -> None:
    after = hold(items, choose_first(items, room))
    assert held_bytes(after) <= room
    smallest = {}
    for it in sorted(items, key=lambda it: (it.is_routable, -it.size_bytes)):
        smallest[it.model] = it.size_bytes  # the smallest that routing may choose, where there is one
    if sum(smallest.values()) <= room:
        assert {it.model for it in after if it.is_held} == set(smallest)


@given(situations(), st.integers(1, 300), st.data())
def test_evictions_make_enough_room_and_no_more_and_leave_no_other_model_with_nothing(
    items: list[Holdable], budget: int, data: st.DataObject
) -> None:
    before = hold(items, choose_first(items, budget))
    absent = [it for it in before if not it.is_held]
    assume(absent)
    coming = data.draw(st.sampled_from(absent))
    leaving = choose_leaving(before, coming, budget)
    if leaving is None:
        return
    after = hold(before, frozenset(it.weights for it in before if it.is_held) - set(leaving))
    sizes = {it.weights: it.size_bytes for it in before}
    assert held_bytes(after) + coming.size_bytes <= budget
    assert all(held_bytes(after) + coming.size_bytes + sizes[weights] > budget for weights in leaving)
    had = {it.model for it in before if it.is_held} - {coming.model}
    assert {it.model for it in after if it.is_held} >= had


@given(situations(), st.integers(1, 300))
def test_a_swap_does_not_pay_back_under_the_same_traffic(items: list[Holdable], budget: int) -> None:
    before = hold(items, choose_first(items, budget))
    swap = choose_swap(before, budget, 0.0)
    if swap is None or not swap.leaving:
        return
    # What was answered by those that left would prefer them now, less what asks for the newcomer, and gets it.
    coming = swap.coming
    lower = [it for it in before if it.is_held and it.model == coming.model and it.accuracy <= coming.accuracy]
    instead = max((it for it in lower if it.variant != coming.variant), key=lambda it: it.accuracy, default=None)
    after = []
    for it in before:
        rest = max(0.0, it.uses - coming.demand) if it is instead else it.uses
        if it.weights in swap.leaving:
            after.append(replace(it, is_held=False, demand=rest, uses=0.0))
        elif it.weights == coming.weights:
            after.append(replace(it, is_held=True, uses=it.demand, demand=0.0))
        else:
            after.append(replace(it, demand=0.0))
    back = choose_swap(after, budget, 0.0)
    assert back is None or swap.coming.weights not in back.leaving
