"""The door: who is turned away, and what that does for goodput, on a simulated event loop and lane."""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass

import numpy as np
import pytest

from service.domain.inference import Criticality
from service.policy.door import LEAST_WAIT_S, Turns

BUDGET_S = 0.010
READ_S, ANSWER_S, REFUSE_S, COMPUTE_S = 180e-6, 150e-6, 11e-6, 300e-6
AFTER_S = 0.0005
CAPACITY_HZ = 1 / (READ_S + ANSWER_S)


def turns_after(last_s: float, pause_s: float = 0.0) -> Turns:
    """Return turns of which one took ``last_s``, and the next began ``pause_s`` later, at 10 s."""
    turns = Turns()
    turns.begin(10.0 - pause_s - last_s)
    turns.end(10.0 - pause_s)
    turns.begin(10.0)
    return turns


def test_what_is_read_may_have_waited_for_the_turn_before_and_this_one() -> None:
    turns = turns_after(last_s=0.004)
    assert turns.waited_s(10.003) == pytest.approx(0.007)
    assert turns.came_s(10.003) == pytest.approx(9.998)


def test_nothing_waited_for_a_loop_that_slept() -> None:
    turns = turns_after(last_s=0.004, pause_s=0.5)
    assert turns.waited_s(10.003) == pytest.approx(0.003)
    assert turns.came_s(10.003) == pytest.approx(10.0)


def test_work_after_the_reading_counts_as_part_of_the_turn() -> None:
    turns = Turns()
    turns.begin(9.990)
    turns.end(9.992)
    turns.work(9.998)
    turns.begin(9.9981)
    assert turns.waited_s(9.9981) == pytest.approx(0.008)


def test_answers_after_a_sleep_are_a_turn_of_their_own() -> None:
    turns = Turns()
    turns.begin(5.0)
    turns.end(5.001)
    turns.resume(9.0)
    turns.work(9.004)
    turns.begin(9.0041)
    assert turns.waited_s(9.0041) == pytest.approx(0.004)


def test_request_that_comes_between_turns_comes_now() -> None:
    turns = turns_after(last_s=0.004)
    turns.end(10.1)
    assert turns.came_s(11.0) == 11.0


def test_what_a_new_connection_waited_is_added() -> None:
    turns = turns_after(last_s=0.004)
    turns.more_s = 0.020
    assert turns.waited_s(10.001) == pytest.approx(0.025)
    assert turns.came_s(10.001) == pytest.approx(9.978)


def standing(turn_s: float) -> Turns:
    """Return turns that were all so long, without a pause, but for a short last one; the next begins at 10 s."""
    turns, count = Turns(), max(20, int(0.5 / turn_s))
    for number in range(count):
        began_s = 9.9999 - (count - number) * turn_s
        turns.begin(began_s)
        turns.end(began_s + turn_s)
    turns.begin(9.9999)
    turns.end(10.0)
    turns.begin(10.0)
    return turns


def longest_wait_s(turns: Turns, budget_s: float, criticality: Criticality) -> float:
    """Return the longest wait with which such a request enters."""
    waits = [turns.waited_s(10.0 + step / 10_000) for step in range(5000)]
    moments = [10.0 + step / 10_000 for step in range(5000)]
    pairs = zip(waits, moments, strict=True)
    return max((wait for wait, moment in pairs if turns.may_enter(moment, budget_s, criticality)), default=0.0)


@pytest.mark.parametrize(
    ("criticality", "budget_s", "longest_s"),
    [
        (Criticality.CRITICAL, 0.01, 0.005),
        (Criticality.NORMAL, 0.01, 0.00125),
        (Criticality.CRITICAL, 0.109, 0.075),
        (Criticality.NORMAL, 0.109, 0.0625),
        (Criticality.SHEDDABLE, 0.109, 0.03125),
    ],
)
def test_less_important_requests_are_turned_away_first_by_a_queue_that_stands(
    criticality: Criticality, budget_s: float, longest_s: float
) -> None:
    turns = standing(longest_s * 1.5)
    assert longest_wait_s(turns, budget_s, criticality) == pytest.approx(longest_s, abs=0.0003)


def test_few_clients_with_large_inputs_are_all_let_in() -> None:
    turns, decode_s = Turns(), 0.006  # eight of them, closed-loop, each within the default budget of 100 ms
    for turn in range(20):
        began_s = 10.0 + turn * 8 * decode_s
        turns.begin(began_s)
        assert all(turns.may_enter(began_s + place * decode_s, 0.1, Criticality.NORMAL) for place in range(8))
        turns.end(began_s + 8 * decode_s)


@pytest.mark.parametrize("criticality", list(Criticality))
@pytest.mark.parametrize(("budget_s", "longest_s"), [(0.001, 0.05), (0.2, 0.2)])
def test_burst_or_stall_turns_away_only_what_has_no_budget_left(
    criticality: Criticality, budget_s: float, longest_s: float
) -> None:
    turns = turns_after(0.0, pause_s=1.0)
    assert longest_wait_s(turns, budget_s, criticality) == pytest.approx(longest_s, abs=0.0003)


@pytest.mark.parametrize("stall_s", [0.02, 0.05, 0.09])
def test_one_turn_that_the_machine_held_up_turns_nobody_away_in_time(stall_s: float) -> None:
    assert turns_after(stall_s).may_enter(10.0, 0.1, Criticality.NORMAL)


def test_old_first_bytes_are_turned_away_by_a_queue_that_stands_alone() -> None:
    for turns, enters in ((turns_after(0.0, pause_s=1.0), True), (standing(0.07), False)):
        turns.more_s = 2.0
        assert turns.may_enter(10.001, 0.1, Criticality.NORMAL) is enters


def test_long_turns_are_forgotten_when_the_loop_has_slept() -> None:
    turns = standing(0.05)
    turns.end(10.05)
    turns.begin(10.5)
    assert turns.may_enter(10.53, 0.1, Criticality.SHEDDABLE)


def test_no_budget_is_so_small_that_an_idle_loop_turns_it_away() -> None:
    assert turns_after(0.0, pause_s=1.0).may_enter(10.0 + LEAST_WAIT_S / 2, 1e-6, Criticality.SHEDDABLE)


@dataclass
class Loop:
    """An event loop with one lane, as a gateway has them; ``has_door`` or everybody comes in."""

    has_door: bool

    def goodput_hz(self, rate_hz: float, seconds: float = 2.0) -> float:
        """Return the answers within the budget a second."""
        times = np.cumsum(np.random.default_rng(0).exponential(1 / rate_hz, int(rate_hz * seconds))).tolist()
        turns, queue, done = Turns(), list[tuple[float, int, float]](), list[tuple[float, int]]()
        now_s = lane_s = 0.0
        position = good = 0
        while position < len(times) or queue or done:
            while queue and (start_s := max(lane_s, queue[0][2])) <= now_s:  # what the lane has begun meanwhile
                due_s, index, _ = queue.pop(0)
                if not self.has_door or start_s + COMPUTE_S <= due_s:
                    lane_s = start_s + COMPUTE_S
                    heapq.heappush(done, (lane_s, index))
            while done and done[0][0] <= now_s:
                turns.resume(now_s)
                now_s += ANSWER_S
                turns.work(now_s)
                good += now_s - times[heapq.heappop(done)[1]] <= BUDGET_S
            end = position
            while end < len(times) and times[end] <= now_s:
                end += 1
            if end == position:
                moments = [times[position]] if position < len(times) else []
                moments += [done[0][0]] if done else []
                moments += [max(lane_s, queue[0][2])] if queue else []
                now_s = max(now_s + 5e-6, min(moments, default=now_s))
                continue
            for index in range(position, end):
                if not turns.is_open:
                    turns.begin(now_s)
                if self.has_door and not turns.may_enter(now_s, BUDGET_S, Criticality.NORMAL):
                    now_s += REFUSE_S
                    continue
                due_s = turns.came_s(now_s) + BUDGET_S - AFTER_S
                now_s += READ_S
                insort(queue, (due_s, index, now_s))
            turns.end(now_s)
            position = end
        return float(good / times[-1])


def test_door_keeps_goodput_beyond_capacity_as_far_as_refusals_leave_time() -> None:
    peak_hz = max(Loop(has_door=True).goodput_hz(share * CAPACITY_HZ) for share in (0.7, 0.8, 0.9, 1.0))
    assert peak_hz > 0.85 * CAPACITY_HZ
    for multiple in (2, 3, 5):
        rate_hz = multiple * peak_hz
        left = 1 - REFUSE_S * (rate_hz - peak_hz)  # the share of its time that the loop has for others
        assert Loop(has_door=True).goodput_hz(rate_hz) > 0.95 * left * peak_hz


def test_goodput_collapses_without_a_door() -> None:
    assert Loop(has_door=False).goodput_hz(2 * CAPACITY_HZ) < 0.1 * CAPACITY_HZ


def test_door_turns_nearly_nobody_away_below_capacity() -> None:
    rate_hz = 0.75 * CAPACITY_HZ
    assert Loop(has_door=True).goodput_hz(rate_hz) > 0.97 * rate_hz
