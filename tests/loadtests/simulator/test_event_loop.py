from __future__ import annotations

import numpy as np
import pytest

from loadtests.simulator.event_loop import LoopCosts
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


def test_a_run_gets_longer_by_what_the_loop_did_during_the_one_before() -> None:
    fleet = Fleet((LADDER,), lanes=1, machine=machine(0.001, 1e-9, stolen_ratio=0.5))
    found = simulate(make_workload([0.0, 0.002, 0.004], 1.0), fleet)
    assert found.finish_s[0] == pytest.approx(0.011)
    assert found.finish_s[1] == pytest.approx(0.011 + COMPUTE_S + 0.5 * 0.002, abs=1e-6)


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
    fleet = Fleet((TWO,), lanes=2, machine=machine(0.0005, 0.0005, before_s=1e-4, stolen_ratio=0.3))
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
