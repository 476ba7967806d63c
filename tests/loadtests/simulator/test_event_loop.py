from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.simulator.event_loop import LoopCosts, LoopThread
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.ladder import make_ladder
from loadtests.simulator.oracle import upper_bound
from loadtests.simulator.policies import infaas, proteus
from loadtests.simulator.policy import OURS, Policy
from loadtests.simulator.result import Outcome
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload

COMPUTE_S = 0.010
LADDER = make_ladder("m", {"only": (COMPUTE_S, 0.9)})
TWO = make_ladder("m", {"full": (0.010, 0.9), "small": (0.002, 0.8)})


def machine(read_s: float, reply_s: float, **more: float | bool) -> Machine:
    return Machine(per_run_s=0.0, is_exact=True, loop=LoopCosts(read_s, reply_s, **more))  # type: ignore[arg-type]


def test_a_lone_request_takes_reading_waking_computing_and_writing() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.001, 0.002, before_s=0.004))
    found = simulate(make_workload([0.0], 1.0), fleet)
    assert found.finish_s == pytest.approx([0.001 + 0.004 + COMPUTE_S + 0.002])


def test_requests_are_read_one_after_the_other() -> None:
    fleet = Fleet((LADDER,), lanes=4, machine=machine(0.003, 1e-9))
    found = simulate(make_workload(np.zeros(4), 1.0), fleet)
    assert found.start_s == pytest.approx([0.003, 0.006, 0.009, 0.012])
    assert found.finish_s == pytest.approx(found.start_s + COMPUTE_S)


def test_answers_wait_for_the_loop_behind_what_it_reads() -> None:
    fleet = Fleet((LADDER,), lanes=2, machine=machine(0.009, 0.001))
    found = simulate(make_workload([0.0, 0.015], 1.0), fleet)  # the second is being read until 0.024
    assert found.finish_s[0] == pytest.approx(0.024 + 0.001)


@pytest.mark.parametrize("policy", [OURS, infaas.POLICY])
def test_a_run_that_ends_while_the_loop_works_is_over_when_that_has_paused(policy: Policy) -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.004, 1e-9))
    found = simulate(make_workload([0.0, 0.012], 1.0), fleet, policy)  # the second is being read until 0.016
    assert found.start_s == pytest.approx([0.004, 0.016])
    assert found.finish_s == pytest.approx([0.016, 0.026])
    assert found.busy_s.sum() == pytest.approx(2 * COMPUTE_S + 0.002)


def test_a_lane_finds_all_that_the_loop_has_read_when_it_gets_the_interpreter() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.002, 1e-9))
    # The first run ends at 0.012, the first of the pile is read at 0.0125, the last one at 0.0165.
    found = simulate(make_workload([0.0, 0.0105, 0.0105, 0.0105], [1.0, 0.5, 0.2, 0.018]), fleet)
    assert found.start_s[1:].min() == pytest.approx(0.0165)
    assert found.start_s[3] == pytest.approx(0.0165)  # the most urgent, though read last


def test_a_loop_with_a_standing_queue_gives_way_to_lanes() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.01, 1e-9))
    found = simulate(make_workload([0.0] + [0.0101] * 8, 1.0), fleet)  # 70 ms to be read when the first run ends
    assert found.start_s[1] == pytest.approx(0.0201)


def test_a_loop_that_turned_somebody_away_gives_way_to_lanes() -> None:
    thread = LoopThread()
    thread.take(0.0, 0.010)
    assert thread.held_until_s(0.004) == 0.010
    thread.turns.press(0.002)
    assert thread.held_until_s(0.004) == 0.004


def test_where_late_work_is_a_crowd_the_door_lets_no_more_of_it_in() -> None:
    overload = make_workload(0.0025 * np.arange(400), 0.03, 60.0)  # four times what the lane can do
    with_door = simulate(overload, Fleet((LADDER,), lanes=1, machine=machine(1e-6, 1e-6)))
    without = simulate(overload, Fleet((LADDER,), lanes=1, machine=Machine(per_run_s=0.0, is_exact=True)))
    late, all_late = ((found.outcome == Outcome.ANSWERED) & ~found.is_on_time for found in (with_door, without))
    assert 64 <= late.sum() < 80  # the crowd itself
    assert (with_door.outcome == Outcome.SHED).sum() > 200
    assert all_late.sum() > 250
    assert with_door.is_on_time.sum() >= without.is_on_time.sum() - 2


def test_what_a_gateway_learns_holds_the_wait_for_the_interpreter() -> None:
    pairs = np.repeat(0.1 * np.arange(40), 2) + np.tile([0.0, 0.0125], 40)
    budgets_s = [0.5, 0.001] * 40 + [0.0115]
    workload = make_workload([*pairs, 4.0], budgets_s, budgets_s)
    for is_learning, variant in ((False, 0), (True, 1)):
        # Each pair's first run ends at 14 ms, when the second, which is hopeless, is being read until 16.5 ms.
        learning = replace(machine(0.004, 1e-9), is_learning=is_learning)
        assert simulate(workload, Fleet((TWO,), lanes=2, machine=learning)).variant[-1] == variant


def test_time_unread_is_missing_from_the_budget_unless_it_is_known() -> None:
    arrivals, budget_s = np.zeros(8), 0.020
    blind = Fleet((TWO,), lanes=8, machine=machine(0.002, 1e-9))
    knowing = Fleet((TWO,), lanes=8, machine=machine(0.002, 1e-9, knows_unread=True))
    one, other = (simulate(make_workload(arrivals, budget_s), fleet) for fleet in (blind, knowing))
    assert (one.variant == 0).all()  # each thinks that it has 20 ms
    assert one.is_on_time.tolist() == [True] * 4 + [False] * 4
    assert other.variant.tolist() == [0] * 4 + [1] * 4
    assert other.is_on_time.all()


@pytest.mark.parametrize("policy", [OURS, infaas.POLICY, proteus.POLICY])
@pytest.mark.parametrize("rate_hz", [50.0, 400.0])
def test_every_request_ends_once_and_none_beats_the_bound(policy: Policy, rate_hz: float) -> None:
    fleet = Fleet((TWO,), lanes=2, machine=machine(0.0005, 0.0005, before_s=1e-4))
    workload = make_workload(np.cumsum(np.random.default_rng(0).exponential(1 / rate_hz, 400)), 0.03)
    found = simulate(workload, fleet, policy)
    answered = found.outcome == Outcome.ANSWERED
    assert (found.finish_s[answered] >= workload.arrival_s[answered] + 0.001).all()
    assert np.isnan(found.finish_s[found.outcome == Outcome.SHED]).all()
    assert found.summary().expected_accuracy <= upper_bound(workload, fleet) + 1e-9


def test_a_loop_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="read_s and reply_s must be above 0"):
        LoopCosts(0.0, 0.001)


def test_refusals_take_the_loop_s_time_too() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.001, 0.003))
    hopeless = make_workload(np.zeros(3), 0.001, 0.002)  # no variant is so fast: refused as they are read
    patient = make_workload([0.0, 0.0, 0.0, 0.0005], [0.001] * 3 + [1.0], [0.002] * 3 + [1.0])
    assert (simulate(hopeless, fleet).outcome == Outcome.INFEASIBLE).all()
    # Read at 1, 2 and 3 ms, each refusal written when the loop comes to it; the last is read among them.
    assert simulate(patient, fleet).start_s[3] == pytest.approx(0.004)
    assert simulate(patient, fleet).finish_s[3] == pytest.approx(0.014 + 0.003)


def test_bound_knows_that_requests_are_read_in_order() -> None:
    fleet = Fleet((LADDER,), lanes=8, machine=machine(0.004, 1e-6))
    workload = make_workload(np.zeros(8), 0.0205)
    assert upper_bound(workload, fleet) == pytest.approx(0.9 * 2 / 8)
    assert simulate(workload, fleet).is_on_time.sum() <= 2
