"""Whom to give up where not all can be saved: a run takes 1 ms and 0.1 ms more for each request, on one lane."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.costs import RUN_OVERHEAD_S, Costs, Plan
from service.policy.scheduling import Situation, Waiting, choose_run
from service.policy.triage import first_to_serve

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS: Final = 16
NAMES: Final = ("full", "distilled")
TABLES: Final = {
    "full": (0.0, *(0.020 * rows for rows in range(1, MOST_ROWS + 1))),
    "distilled": (0.0, *(0.001 + 0.0001 * rows for rows in range(1, MOST_ROWS + 1))),
}
GOOD_S: Final = TABLES["distilled"][15]
"""A run of fifteen: sixteen would take 3 % less of the lane for each."""


def waiting(due_s: float, **fields: object) -> Waiting:
    return Waiting(due_s, 60.0, 1, NAMES, None, **fields)  # type: ignore[arg-type] # the tests' own names


def situation(lanes: int = 1, **fields: float) -> Situation:
    costs = Costs(TABLES, dict.fromkeys(TABLES, 1.0), {"full": 0.92, "distilled": 0.86})
    return Situation(costs, 0.0, (0.0,) * lanes, MOST_ROWS, **fields)  # type: ignore[arg-type] # as above


def stream(first_s: float, gap_s: float, count: int) -> list[Waiting]:
    """Return requests that are due one after the other."""
    return [waiting(first_s + number * gap_s) for number in range(count)]


def served_first(queue: Sequence[Waiting], found: Situation | None = None, head: int = 0) -> int:
    found = found or situation()
    return first_to_serve(queue, head, found.costs.ladder(NAMES, 1), found)


def on_time(queue: Sequence[Waiting], *, gives_up: bool) -> int:
    """Return how many a lane serves in time that runs as many as the first one's slack has room for, one by one."""
    left, now_s, saved, costs = list(queue), 0.0, 0, situation().costs
    while left := [item for item in left if item.due_s >= now_s + costs.of("distilled", 1)]:
        found = replace(situation(), now_s=now_s, lanes_free_s=(now_s,))
        place = served_first(left, found) if gives_up else 0
        slack_s = left[place].due_s - now_s
        count = max(size for size in range(1, MOST_ROWS + 1) if size == 1 or TABLES["distilled"][size] <= slack_s)
        count = min(count, len(left) - place)
        now_s, saved = now_s + costs.of("distilled", count) + RUN_OVERHEAD_S, saved + count
        del left[place : place + count]
    return saved


def test_those_whose_slack_keeps_every_run_small_are_given_up_where_that_saves_more() -> None:
    queue = stream(0.0011, 0.0002, 200)
    place = served_first(queue)
    assert queue[place - 1].due_s < GOOD_S <= queue[place].due_s
    assert on_time(queue, gives_up=True) > 2 * on_time(queue, gives_up=False)


def test_the_run_that_is_chosen_begins_with_the_first_that_is_not_given_up() -> None:
    queue = stream(0.0011, 0.0002, 200)
    run = choose_run(queue, situation())
    assert run is not None
    assert run.members == tuple(range(served_first(queue), served_first(queue) + len(run.members)))
    assert (run.variant, len(run.members)) == ("distilled", 15)


def test_nobody_is_given_up_where_all_can_be_saved() -> None:
    assert served_first(stream(0.0011, 0.0013, 50)) == 0


def test_nobody_is_given_up_where_the_first_has_time_for_a_good_run() -> None:
    assert served_first(stream(GOOD_S, 0.00001, 400)) == 0
    assert served_first(stream(GOOD_S - 0.0004, 0.00001, 400)) > 0


def test_one_with_little_time_before_a_queue_with_much_is_served() -> None:
    assert served_first([waiting(0.0011), *stream(0.050, 0.001, 20)]) == 0


@pytest.mark.parametrize("count", [44, 60, 100, 280])
def test_one_with_little_time_is_served_where_those_behind_have_time_for_good_runs(count: int) -> None:
    queue = [waiting(0.0011), *[waiting(0.050)] * count]
    assert served_first(queue) == 0
    assert on_time(queue, gives_up=True) == count + 1


def test_nobody_is_given_up_where_runs_are_not_shared_for_so_little() -> None:
    tables = {name: tuple(0.0007 * rows for rows in range(MOST_ROWS + 1)) for name in NAMES}
    found = replace(situation(), costs=Costs(tables, dict.fromkeys(NAMES, 1.0), {"full": 0.92, "distilled": 0.86}))
    assert found.costs.sizes(found.costs.ladder(NAMES, 1), 1, MOST_ROWS).good_s > 0.0007
    assert served_first(stream(0.0008, 0.0001, 200), found) == 0


def test_less_important_and_late_ones_behind_are_no_reason() -> None:
    critical = [waiting(due_s, criticality=0) for due_s in (0.00118, 0.00156, 0.0034, 0.00369, 0.00387, 0.00517)]
    late = [waiting(due_s, criticality=0) for due_s in (-0.003, -0.002, -0.001)]
    assert served_first(critical) == served_first([*critical, waiting(0.004), *late]) == 0


def test_nobody_is_given_up_for_requests_that_are_lost_as_well() -> None:
    assert served_first(stream(0.0011, 0.00001, 30)) == 0  # none of them has time for a good run


def test_nobody_is_given_up_where_larger_runs_hardly_save_time() -> None:
    each_s = 10 * RUN_OVERHEAD_S
    tables = {name: tuple(each_s * rows for rows in range(MOST_ROWS + 1)) for name in NAMES}
    found = replace(situation(), costs=Costs(tables, dict.fromkeys(NAMES, 1.0), {"full": 0.92, "distilled": 0.86}))
    assert found.costs.sizes(found.costs.ladder(NAMES, 1), 1, MOST_ROWS).good_s == pytest.approx(2 * each_s)
    assert served_first([*[waiting(1.1 * each_s)] * 3, *[waiting(2.05 * each_s)] * 20], found) == 0


def test_what_other_lanes_can_do_counts() -> None:
    queue = stream(0.0011, 0.0002, 40)
    assert served_first(queue) > 0
    assert served_first(queue, situation(lanes=16)) == 0
    assert served_first(queue, replace(situation(), lanes_free_s=(0.0, *[1.0] * 15))) > 0


def test_what_other_lanes_are_busy_with_counts() -> None:
    queue = stream(0.0011, 0.00025, 60)
    assert served_first(queue, situation(lanes=4)) == 0
    assert served_first(queue, replace(situation(), lanes_free_s=(0.0, *[0.001] * 3))) > 0


def test_what_other_models_take_counts() -> None:
    queue = stream(0.0011, 0.0007, 40)
    assert served_first(queue, situation(lanes=2)) == 0
    assert served_first(queue, situation(lanes=2, others_s=1.0, lane_share=0.5)) > 0


@pytest.mark.parametrize(
    "fields", [{"criticality": 2}, {"batch_key": "other"}, {"may_share": False}, {"rows": 2}, {"kept_level": 0.9}]
)
def test_nobody_is_given_up_for_requests_of_another_kind(fields: dict[str, object]) -> None:
    tight = stream(0.0011, 0.0002, 4)
    others = [replace(item, **fields) for item in stream(0.0030, 0.0002, 200)]  # type: ignore[arg-type] # as above
    assert served_first([*tight, *others]) == 0


@pytest.mark.parametrize("odd", range(1, 20))
def test_who_is_served_first_asks_as_the_head_does(odd: int) -> None:
    queue = stream(0.0011, 0.00016, 200)
    queue[odd] = replace(queue[odd], candidates=NAMES[1:])
    assert served_first(queue) != odd


def test_nobody_is_given_up_for_cascades() -> None:
    plan = Plan("cascade", "distilled", "full", 0.1, 0.01, 0.91)
    queue = [replace(item, candidates=("full", "cascade")) for item in stream(0.0011, 0.0002, 200)]
    found = replace(situation(), costs=replace(situation().costs, plans={"cascade": plan}))
    assert first_to_serve(queue, 0, found.costs.ladder(("full", "cascade"), 1), found) == 0


def test_one_that_shares_no_run_is_not_given_up() -> None:
    queue = stream(0.0011, 0.0002, 200)
    assert served_first([replace(queue[0], may_share=False), *queue[1:]]) == 0


@pytest.mark.parametrize("count", range(20, 640, 31))
@pytest.mark.parametrize("gap_s", [0.0002, 0.0006, 0.001, 0.0013])
def test_late_ones_behind_change_nothing(count: int, gap_s: float) -> None:
    queue = stream(0.0011, gap_s, count)
    assert served_first([*queue, *stream(-0.5, 0.0001, 1000 - count)]) == served_first(queue)


@given(
    gaps=st.lists(st.sampled_from([0.00002, 0.0001, 0.0002, 0.0005, 0.002]), min_size=1, max_size=120),
    first_s=st.floats(0.0011, 0.004),
)
def test_serving_by_it_saves_about_as_many_as_serving_in_order_or_more(gaps: list[float], first_s: float) -> None:
    queue, due_s = [], first_s
    for gap_s in gaps:
        queue.append(waiting(due_s))
        due_s += gap_s
    assert on_time(queue, gives_up=True) >= 0.8 * on_time(queue, gives_up=False) - 2
