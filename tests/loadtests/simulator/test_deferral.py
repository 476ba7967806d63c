from __future__ import annotations

import numpy as np
import pytest

from loadtests.simulator.fleet import Balancer, Fleet, Machine
from loadtests.simulator.ladder import Ladder
from loadtests.simulator.result import Outcome, Result
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import Workload, make_workload
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant

EXACT = Machine(is_exact=True)
FIGURES = {"full": (0.03, 0.92), "mid": (0.009, 0.915), "tiny": (0.002, 0.86)}


def served(workload: Workload, gain: float, *, defers: bool, lanes: int = 1, gateways: int = 1) -> Result:
    """Serve with variants of which each further row adds the share ``gain`` of the first."""
    variants = tuple(
        Variant(name, name, accuracy, Profile(tuple(cell(rows, seconds, gain) for rows in range(1, 17))), 0, 0, "")
        for name, (seconds, accuracy) in FIGURES.items()
    )
    ladder = Ladder("m", variants, policy=ModelPolicy(safety_margin_ratio=0.0, defers=defers))
    fleet = Fleet((ladder,), gateways=gateways, lanes=lanes, balancer=Balancer.TWO_CHOICES, machine=EXACT)
    return simulate(workload, fleet)


def cell(rows: int, seconds: float, gain: float) -> LatencyCell:
    return LatencyCell(rows, *(seconds * (1.0 - gain + gain * rows),) * 3)


def poisson(requests: int, load: float) -> Workload:
    return make_workload(np.cumsum(np.random.default_rng(1).exponential(0.03 / load, requests)))


def on_time_accuracy(result: Result) -> float:
    accuracy = np.array([accuracy for _, accuracy in FIGURES.values()])
    return float((accuracy[result.variant] * result.is_on_time).mean())


def test_waiting_for_fuller_batches_raises_on_time_accuracy_where_they_gain_much() -> None:
    workload = poisson(4000, 5.0)
    eager, deferred = (served(workload, 0.15, defers=defers) for defers in (False, True))
    assert on_time_accuracy(deferred) > max(0.915, on_time_accuracy(eager) + 0.0005)
    assert deferred.is_on_time.mean() >= eager.is_on_time.mean()
    assert deferred.busy_s.sum() < 0.9 * eager.busy_s.sum()


def test_nothing_changes_where_batching_gains_nothing() -> None:
    workload = poisson(1000, 5.0)
    eager, deferred = (served(workload, 1.0, defers=defers) for defers in (False, True))
    for name in ("outcome", "variant", "batch", "start_s", "finish_s"):
        assert np.array_equal(getattr(eager, name), getattr(deferred, name), equal_nan=name.endswith("_s"))


def test_a_timer_starts_the_last_requests_which_wait_for_company_in_time() -> None:
    workload = make_workload(np.arange(200) / 80.0, 0.1)
    result = served(workload, 0.1, defers=True)
    start_s = result.start_s[-1]
    free_s = result.finish_s[result.start_s < start_s].max()
    assert start_s > max(free_s, workload.arrival_s[-1]) + 1e-3
    assert result.is_on_time.all()


@pytest.mark.parametrize(("lanes", "gateways"), [(2, 1), (1, 3)])
def test_every_request_ends_where_lanes_and_gateways_wait(lanes: int, gateways: int) -> None:
    result = served(poisson(1500, 8.0), 0.15, defers=True, lanes=lanes, gateways=gateways)
    assert np.isin(result.outcome, (Outcome.ANSWERED, Outcome.SHED, Outcome.EXPIRED)).all()
    assert result.is_on_time.mean() > 0.97
