"""What one replica does at a rate: measured in the simulator, once for a grid of rates, and looked up between them.

A Service spreads connections over its replicas without a look at their load, so each of R replicas sees a Poisson
stream of its own at the R-th part of the rate. Its figures settle within tens of budgets, far sooner than an autoscaler
looks; so a second of the day is what the simulator says of that rate, and nothing is carried from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtests.arrivals import poisson
from loadtests.simulator.fleet import Fleet, Machine
from loadtests.simulator.result import Outcome
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadtests.simulator.ladder import Ladder
    from loadtests.simulator.policy import Policy

SIGNALS = ("queueDepth", "budgetMissedRatio", "laneBusyRatio", "accuracyGivenUp")
"""What autoscaling may go by, as the chart's values name it; all are means over the replicas."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica's ladder, policy and lanes, and what its clients ask for."""

    ladder: Ladder
    policy: Policy
    budget_s: float
    timeout_s: float
    lanes: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """Figures by rate, each of shape (rates,); all are shares or requests, of what is offered."""

    rates_hz: NDArray[np.float64]
    figures: dict[str, NDArray[np.float64]]

    def at(self, figure: str, rate_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a figure at rates between those measured; beyond the last one, the last one's."""
        return np.asarray(np.interp(rate_hz, self.rates_hz, self.figures[figure]))


def measure(replica: Replica, rates_hz: NDArray[np.float64], requests: int, seed: int = 0) -> Response:
    """Return the response of a replica at these rates, each simulated for so many requests."""
    rows = [_figures(replica, float(rate_hz), requests, seed) for rate_hz in rates_hz]
    return Response(rates_hz, {name: np.array([row[name] for row in rows]) for name in rows[0]})


def _figures(replica: Replica, rate_hz: float, requests: int, seed: int) -> dict[str, float]:
    fleet = Fleet((replica.ladder,), 1, replica.lanes, machine=Machine())
    times = poisson(rate_hz, requests / rate_hz, np.random.default_rng([seed, 8]))
    load = make_workload(times, replica.budget_s, replica.timeout_s)
    result = simulate(load, fleet, replica.policy, seed=seed)
    summary = result.summary()
    # A request waits until it runs, or until it is given up.
    ends_s = np.where(np.isnan(result.start_s), load.arrival_s + replica.timeout_s, result.start_s)
    waits_s = np.where(result.outcome == Outcome.SHED, 0.0, ends_s - load.arrival_s)
    best = max(variant.accuracy for variant in replica.ladder.variants)
    return {
        "attainment": summary.attainment,
        "accuracy": summary.expected_accuracy,
        "queueDepth": rate_hz * float(waits_s.mean()),
        "budgetMissedRatio": 1.0 - summary.attainment,
        "laneBusyRatio": min(1.0, summary.busy_ratio),
        "accuracyGivenUp": best - summary.expected_accuracy,
    }
