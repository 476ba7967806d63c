"""The level that keeps a queue on time, against the queue laid out over the lanes one by one."""

from __future__ import annotations

import heapq
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.policy.costs import RUN_OVERHEAD_S, Costs
from service.policy.pace import _EXACT, level_by_bisection, level_of_alike, look, sampled, stays_on_time
from service.policy.situation import Situation, Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = tuple(f"v{place:02}" for place in range(12))
SECONDS = {name: 0.030 * 0.75**place for place, name in enumerate(NAMES)}
COSTS = Costs(
    {name: (0.0, *(seconds * rows for rows in range(1, 5))) for name, seconds in SECONDS.items()},
    dict.fromkeys(NAMES, 1.0),
    {name: 0.9 - 0.01 * place for place, name in enumerate(NAMES)},
)
TURNS_S = [seconds + RUN_OVERHEAD_S for seconds in SECONDS.values()]
LOOKED_AT = next(length for length in range(1, 100) if len(sampled(length + 1)) <= length)
"""The longest queue of which every position is looked at."""


def waiting(due_s: float, candidates: tuple[str, ...] = NAMES, rows: int = 1) -> Waiting:
    return Waiting(due_s, 60.0, rows, candidates, None)


def situation(free_s: Sequence[float] = (0.0,), others_s: float = 0.0, lane_share: float = 1.0) -> Situation:
    return Situation(COSTS, 0.0, tuple(free_s), 8, others_s=others_s, lane_share=lane_share)


def level(dues_s: Sequence[float], found: Situation) -> int:
    result = level_of_alike([waiting(due_s) for due_s in dues_s], 0, TURNS_S, found)
    assert result is not None
    return result


def served(queue: Sequence[tuple[float, float, float]], free_s: Sequence[float]) -> list[int]:
    """Return who ends on time; of each its due moment, its turn of a lane, and the quickest that there is.

    In order, each on the lane that is free first; who could not be on time even by the quickest is passed over. The
    first one is on time, whatever it takes.
    """
    lanes, on_time = list(free_s), []
    heapq.heapify(lanes)
    for number, (due_s, turn_s, quickest_s) in enumerate(queue):
        if lanes[0] + quickest_s > due_s + 1e-9 and number:
            continue
        end_s = heapq.heapreplace(lanes, lanes[0] + turn_s) + turn_s
        if end_s <= due_s + 1e-9 or not number:
            on_time.append(number)
    return on_time


def best_level(dues_s: Sequence[float], free_s: Sequence[float]) -> int:
    """Return the first level at which everybody ends on time who does at the cheapest."""
    by_level = [served([(due_s, turn_s, TURNS_S[-1]) for due_s in dues_s], free_s) for turn_s in TURNS_S]
    return next(place for place, on_time in enumerate(by_level) if on_time == by_level[-1])


busy_lanes = st.lists(st.floats(0.0, 0.06) | st.just(0.0), max_size=5).map(lambda others: (0.0, *others))
slack = st.floats(TURNS_S[-1], 0.15) | st.floats(TURNS_S[-1], 0.02)


@settings(deadline=None)
@given(st.lists(slack, min_size=2, max_size=LOOKED_AT).map(sorted), busy_lanes)
def test_level_of_requests_alike_is_the_most_accurate_that_saves_all_that_can_be_saved(
    dues_s: list[float], free_s: tuple[float, ...]
) -> None:
    assert level(dues_s, situation(free_s)) == best_level(dues_s, free_s)


@settings(deadline=None)
@given(st.lists(st.floats(0.002, 0.2), min_size=2, max_size=12), busy_lanes)
def test_level_of_a_longer_queue_saves_it_all_where_due_moments_do_not_bunch_between_two_looks(
    gaps_s: list[float], free_s: tuple[float, ...]
) -> None:
    positions, dues_s = sampled(200)[: len(gaps_s)], list[float]()
    for position, due_s in zip(positions, accumulate(gaps_s), strict=True):
        dues_s += [due_s] * (position + 1 - len(dues_s))
    if len(served([(due_s, TURNS_S[-1], TURNS_S[-1]) for due_s in dues_s], free_s)) == len(dues_s):
        assert level(dues_s, situation(free_s)) == best_level(dues_s, free_s)


@settings(deadline=None)
@given(st.integers(2, 300), st.floats(0.01, 3.0), busy_lanes)
def test_level_of_a_long_queue_with_one_due_moment_saves_it_all_where_that_is_possible(
    queued: int, due_s: float, free_s: tuple[float, ...]
) -> None:
    dues_s = [due_s] * queued
    if len(served([(due_s, TURNS_S[-1], TURNS_S[-1]) for due_s in dues_s], free_s)) == queued:
        assert level(dues_s, situation(free_s)) == best_level(dues_s, free_s)


@settings(deadline=None)
@given(st.lists(slack, min_size=1, max_size=60).map(sorted), busy_lanes, st.floats(0.0, 0.05))
def test_level_is_no_more_accurate_when_everything_is_due_earlier_or_a_lane_is_busy_longer_or_more_wait(
    dues_s: list[float], free_s: tuple[float, ...], less_s: float
) -> None:
    queue = [0.2, *(0.2 + due_s for due_s in dues_s)]
    before = level(queue, situation(free_s))
    assert level([due_s - less_s for due_s in queue], situation(free_s)) >= before
    assert level(queue, situation([0.0, *(moment + less_s for moment in free_s[1:])])) >= before
    assert level([*queue, queue[-1]], situation(free_s)) >= before


@pytest.mark.parametrize("doomed", [1, 2])
def test_doomed_requests_do_not_pull_the_level_down(doomed: int) -> None:
    # All are due at once and one fits: at the cheapest too the second would be late.
    alone = [0.0014] + [0.1] * 2
    crowd = [0.0014] * (1 + doomed) + [0.1] * 2
    assert TURNS_S[-1] < 0.0014 < 2 * TURNS_S[-1]
    assert level(crowd, situation()) == level(alone, situation())


def test_a_lane_that_is_busy_beyond_the_due_moment_is_of_no_use_and_does_no_harm() -> None:
    dues_s = [0.02, 0.04, 0.05]
    assert level(dues_s, situation((0.0, 5.0))) == level(dues_s, situation((0.0,)))


@pytest.mark.parametrize(("others_s", "share"), [(0.04, 0.5), (10.0, 0.5), (10.0, 0.25)])
def test_work_of_others_lowers_the_level_up_to_their_share(others_s: float, share: float) -> None:
    dues_s = [0.1] * 8
    alone, beside = level(dues_s, situation((0.0, 0.0))), level(dues_s, situation((0.0, 0.0), others_s, share))
    left_s = max(0.1 - others_s / 2, 0.1 * share)
    assert beside == best_level([left_s] * 8, (0.0, 0.0)) > alone


def test_work_of_others_does_not_lower_the_level_of_the_request_that_runs_now() -> None:
    assert level([0.031, 5.0], situation((0.0, 3.0), others_s=100.0, lane_share=0.5)) == 0


def test_level_is_left_to_the_bisection_where_requests_ask_differently() -> None:
    for other in (waiting(0.2, NAMES[2:]), waiting(0.2, rows=2)):
        assert level_of_alike([waiting(0.1), waiting(0.15), other], 0, TURNS_S, situation()) is None
    equal = waiting(0.2, (*NAMES[:5], *NAMES[5:]))
    assert level_of_alike([waiting(0.1), equal], 0, TURNS_S, situation()) is not None


requests = st.builds(
    waiting,
    slack,
    st.sampled_from([NAMES, NAMES[:4], NAMES[3:], NAMES[5:6], (NAMES[2], NAMES[9])]),
    st.integers(1, 4),
)


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=_EXACT), busy_lanes)
def test_level_of_a_short_mixed_queue_is_the_most_accurate_that_saves_all_that_can_be_saved(
    queue: list[Waiting], free_s: tuple[float, ...]
) -> None:
    ladders = [COSTS.ladder(item.candidates, item.rows) for item in queue]
    steps = ladders[0].steps

    def on_time(accuracy: float) -> list[int]:
        turns_s = [
            (item.due_s, ladder.at(accuracy).cost_s + RUN_OVERHEAD_S, ladder.fastest.cost_s + RUN_OVERHEAD_S)
            for item, ladder in zip(queue, ladders, strict=True)
        ]
        return served(turns_s, free_s)

    # Who can be saved is asked of the cheapest of everybody, which the lowest level of the first may not allow.
    savable = on_time(0.0)
    allowed = [place for place, step in enumerate(steps) if on_time(step.accuracy) == savable]
    found = level_by_bisection(look(queue, 0, situation(free_s)), steps)
    assert found == (allowed[0] if allowed else len(steps) - 1)


@pytest.mark.parametrize("queued", [30, 60, 100, 300])
def test_level_of_a_long_mixed_queue_counts_those_between_two_looks(queued: int) -> None:
    due_s = queued / 2 * (TURNS_S[5] + TURNS_S[6]) / 2  # two lanes have the time for the sixth step, not for the fifth
    queue = [waiting(due_s)] * queued
    queue[1] = waiting(due_s, NAMES[5:])
    found = look(queue, 0, situation((0.0, 0.0)))
    assert not found.is_whole
    assert level_by_bisection(found, COSTS.ladder(NAMES, 1).steps) == 6
    assert not stays_on_time(found, 0.9 - 0.05)
    assert stays_on_time(found, 0.9 - 0.06)


def test_level_of_a_mixed_queue_is_lowered_by_the_work_of_others() -> None:
    queue = [waiting(0.1), *[waiting(0.1, NAMES[1:])] * 7]
    steps, alone = COSTS.ladder(NAMES, 1).steps, situation((0.0, 0.0))
    beside = replace(alone, others_s=10.0, lane_share=0.5)
    levels = [level_by_bisection(look(queue, 0, found), steps) for found in (alone, beside)]
    assert levels[0] < levels[1]


def test_doomed_requests_do_not_pull_the_level_of_a_mixed_queue_down() -> None:
    doomed = waiting(0.005, NAMES[:1])
    queue = [waiting(0.1), waiting(0.1, NAMES[1:])]
    steps = COSTS.ladder(NAMES, 1).steps
    for many in (1, 10, _EXACT - 2):
        crowd = [queue[0], *[doomed] * many, queue[1]]
        assert level_by_bisection(look(crowd, 0, situation()), steps) == level_by_bisection(
            look(queue, 0, situation()), steps
        )


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_a_queue_is_looked_at_from_the_first_to_the_last_at_growing_distances(length: int) -> None:
    positions = list(sampled(length))
    distances = [after - before for before, after in pairwise(positions)]
    assert (positions[0], positions[-1]) == (0, length - 1)
    assert all(distance >= 1 for distance in distances)
    assert distances[:-1] == sorted(distances[:-1])  # the last one ends where the queue does
    assert distances[:2] == [1] * min(2, length - 1)


def test_a_queue_ten_times_as_long_is_looked_at_a_few_times_more() -> None:
    counts = [len(sampled(10**power)) for power in range(1, 7)]
    growth = [after - before for before, after in pairwise(counts)]
    assert max(growth) <= 12
    assert counts[2] <= 24
