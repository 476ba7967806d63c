"""Proteus-like: a plan, solved every few seconds, of which variant each lane hosts and which share it gets.

Source: Ahmad, Guan, Friedman, Williams, Sitaraman, Woo: "Proteus: A High-Throughput Inference-Serving System with
Accuracy Scaling", ASPLOS 2024, and its published artifact (github.com/UMass-LIDS/Proteus).

What the paper does. A controller measures demand (an exponentially weighted mean over windows) and solves a mixed
integer program every period:

    maximise    sum_v A_v y_v                    accuracy of what is served
    subject to  sum_{v of m} y_v = demand_m      all of each model's demand is served
                y_v <= n_v p_v                   no variant serves more than its hosts can
                sum_v n_v = devices, n_v whole   each device hosts one variant

p_v is the throughput of the largest batch whose time is within half the latency objective (the other half is for
waiting). If no plan serves all demand, what it asks for is lowered until one does. Queries are assigned to devices at
random in proportion to y_v. A device drops queries that cannot be in time, and batches as many as keep the first one
in time, waiting for more while that is possible.

What is done here. The same program over lanes, by ``scipy.optimize.milp``; the lowering of demand is a first program
that finds the most that can be served. Points decided in the policy's favour: a new plan costs nothing to put into
effect (no loading times, and a queue keeps what it was given); a plan is also made as soon as demand over the last
tenth of a period exceeds what the present one can serve; a lane does not wait for a fuller batch (waiting is for
accelerators, where batches gain much); and the period is 1 s, where the paper has 30 s: the best of 1, 2, 5, 10 and
30 s on both traces and all loads tried.

When it is wrong: between two plans it cannot answer a burst, and a lane that hosts one variant cannot help out with
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from loadtests.simulator.policies.infaas import drop_and_batch
from loadtests.simulator.policy import EarlyPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.policy import Arrival, LaneView, Site

_WEIGHT: Final = 0.5
"""Of the last window in the measured demand."""
_SHARE_OF_BUDGET: Final = 0.5


class Planner:
    """Hosts one variant on each lane, by plan."""

    def __init__(self, site: Site, period_s: float = 1.0) -> None:
        """Start without a plan; the first arrival makes one."""
        self._site = site
        self._period_s = period_s
        self._window_s = period_s / 10.0
        self._counts = np.zeros(len(site.costs))
        self._recent = np.zeros(len(site.costs))
        self._demand_hz = np.zeros(len(site.costs))
        self._served_hz = np.zeros(len(site.costs))
        self._planned_s = self._window_from_s = -np.inf
        self._hosts: list[tuple[int, str]] = []
        self._shares: list[tuple[list[int], NDArray[np.float64]]] = []

    def place(self, arrival: Arrival, lanes: Sequence[LaneView]) -> tuple[int, str] | None:
        """Return a lane that hosts a variant of the model, at random by the plan's shares."""
        self._count(arrival)
        numbers, edges = self._shares[arrival.model]
        if not numbers:
            return None
        number = numbers[int(np.searchsorted(edges, self._site.chance.random(), side="right"))]
        del lanes
        return number, self._hosts[number][1]

    def batch(self, lane: LaneView, now_s: float) -> tuple[int, int]:
        """Drop the first ones that cannot be in time, then run as many as keep the first in time."""
        return drop_and_batch(lane.queue, self._site, now_s)

    def _count(self, arrival: Arrival) -> None:
        now_s, budget_s = arrival.now_s, arrival.waiting.due_s - arrival.now_s
        self._counts[arrival.model] += 1
        self._recent[arrival.model] += 1
        if now_s >= self._planned_s + self._period_s:
            seen_hz = self._counts / self._period_s
            is_first = not self._hosts
            self._demand_hz = seen_hz if is_first else _WEIGHT * seen_hz + (1 - _WEIGHT) * self._demand_hz
            self._plan(now_s, budget_s)
        elif now_s >= self._window_from_s + self._window_s:
            burst_hz = self._recent / self._window_s
            if np.any(burst_hz > self._served_hz):
                self._demand_hz = np.maximum(self._demand_hz, burst_hz)
                self._plan(now_s, budget_s)
            self._window_from_s, self._recent = now_s, np.zeros(len(self._recent))

    def _plan(self, now_s: float, budget_s: float) -> None:
        self._planned_s = self._window_from_s = now_s
        self._counts, self._recent = np.zeros(len(self._counts)), np.zeros(len(self._recent))
        options = [(model, name) for model, costs in enumerate(self._site.costs) for name in costs.tables]
        rates_hz = np.array([self._throughput_hz(model, name, budget_s) for model, name in options])
        accuracy = np.array([self._site.costs[model].accuracy[name] for model, name in options])
        of_model = np.array([[float(owner == model) for owner, _ in options] for model in range(len(self._counts))])
        hosts, served_hz = solve(rates_hz, accuracy, (of_model, np.maximum(self._demand_hz, 1e-3)), self._site.lanes)
        self._hosts = [options[place] for place, count in enumerate(hosts) for _ in range(count)]
        each_hz = [served_hz[place] / count for place, count in enumerate(hosts) for _ in range(count)]
        capacity_hz = of_model @ (hosts * rates_hz)
        self._served_hz = capacity_hz
        self._shares = [self._share(model, np.array(each_hz)) for model in range(len(self._counts))]

    def _share(self, model: int, each_hz: NDArray[np.float64]) -> tuple[list[int], NDArray[np.float64]]:
        numbers = [number for number, (owner, _) in enumerate(self._hosts) if owner == model]
        weights = each_hz[numbers] if numbers else np.ones(0)
        if numbers and weights.sum() <= 0:
            weights = np.ones(len(numbers))
        edges = np.cumsum(weights) / weights.sum() if numbers else weights
        return numbers, edges[:-1]

    def _throughput_hz(self, model: int, name: str, budget_s: float) -> float:
        costs, machine = self._site.costs[model], self._site.machine
        fitting = [
            rows / (costs.of(name, rows) + machine.per_run_s)
            for rows in range(1, self._site.max_rows[model] + 1)
            if costs.of(name, rows) <= budget_s * _SHARE_OF_BUDGET
        ]
        if fitting:
            return max(fitting)
        return 1.0 / (costs.of(name, 1) + machine.per_run_s) if costs.of(name, 1) <= budget_s else 0.0


def solve(
    rates_hz: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    demand: tuple[NDArray[np.float64], NDArray[np.float64]],
    lanes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how many lanes host each of the V variants, and how much of the demand, per second, each serves.

    ``demand`` is which variants belong to each model, (M, V) of 0 and 1, and what each model is asked for, (M,).
    """
    of_model, demand_hz = demand
    kinds = len(rates_hz)
    whole = np.concatenate([np.ones(kinds), np.zeros(kinds)])  # n_v are whole numbers, y_v are not
    bounds = Bounds(0.0, np.concatenate([np.full(kinds, lanes), np.full(kinds, np.inf)]))
    constraints: list[Any] = [
        LinearConstraint(np.concatenate([np.ones(kinds), np.zeros(kinds)]), lanes, lanes),
        LinearConstraint(np.hstack([-np.diag(rates_hz), np.eye(kinds)]), -np.inf, 0.0),
        LinearConstraint(np.hstack([np.zeros_like(of_model), of_model]), 0.0, demand_hz),
    ]
    served = np.concatenate([np.zeros(kinds), np.ones(kinds)])
    most = milp(-served, integrality=whole, bounds=bounds, constraints=constraints)
    if most.x is None:
        raise RuntimeError(f"proteus: no plan was found: {most.message}")
    all_served = LinearConstraint(served, (1 - 1e-9) * float(served @ most.x) - 1e-9, np.inf)
    gain = np.concatenate([np.zeros(kinds), accuracy])
    plan = milp(-gain, integrality=whole, bounds=bounds, constraints=[*constraints, all_served])
    # The solver's tolerance may leave the second program without the first one's plan; then that one holds.
    values = most.x if plan.x is None else plan.x
    return np.rint(values[:kinds]).astype(np.int64), np.maximum(values[kinds:], 0.0)


POLICY = EarlyPolicy("proteus", Planner)
