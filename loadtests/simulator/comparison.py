"""Policies beside each other on one workload, with the oracle's bound as the limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtests.simulator.oracle import upper_bound
from loadtests.simulator.policies import (
    always_full,
    always_smallest,
    best_fixed,
    infaas,
    proteus,
    random_choice,
    slackfit,
    static_threshold,
)
from loadtests.simulator.policy import OURS
from loadtests.simulator.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.policy import Policy
    from loadtests.simulator.result import Summary
    from loadtests.simulator.workload import Workload


@dataclass(frozen=True, slots=True)
class Ready:
    """Makes a policy that needs no tuning."""

    policy: Policy

    def __call__(self, workload: Workload, fleet: Fleet, seed: int) -> Policy:
        """Return the policy."""
        del workload, fleet, seed
        return self.policy


POLICIES: dict[str, Callable[[Workload, Fleet, int], Policy]] = {
    "always-full-plain": Ready(always_full.PLAIN),
    "always-full": Ready(always_full.POLICY),
    "always-smallest": Ready(always_smallest.POLICY),
    "best-fixed": lambda workload, fleet, seed: best_fixed.best_fixed(workload, fleet, seed=seed),
    "random": Ready(random_choice.POLICY),
    "static-threshold": lambda workload, fleet, seed: static_threshold.tune(workload, fleet, seed=seed),
    "infaas": Ready(infaas.POLICY),
    "proteus": Ready(proteus.POLICY),
    "slackfit": Ready(slackfit.POLICY),
    "tiergate": Ready(OURS),
}
"""How each policy is made; some are tuned on the very workload that they are judged on, which is kind to them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All policies at one load, and the oracle's bound on their expected accuracy."""

    load: float
    summaries: tuple[Summary, ...]
    bound: float | None

    def document(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {"load": self.load, "oracle_bound": self.bound, "policies": [asdict(item) for item in self.summaries]}


def at_load(arrival_s: NDArray[np.float64], load: float, fleet: Fleet) -> NDArray[np.float64]:
    """Return arrivals with time scaled so that the most accurate variants would need ``load`` of all lanes.

    With several models their mean compute time counts.
    """
    full_s = float(np.mean([ladder.real(ladder.variants[0]).at(1).p50_s for ladder in fleet.models]))
    rate_hz = load * fleet.gateways * fleet.lanes / (full_s * fleet.machine.ratio)
    span_s = float(arrival_s[-1] - arrival_s[0])
    if span_s <= 0.0:
        raise ValueError("a trace of one moment has no rate that could be scaled")
    scaled: NDArray[np.float64] = (arrival_s - arrival_s[0]) * (len(arrival_s) / rate_hz / span_s)
    return scaled


def compare(
    workload: Workload, fleet: Fleet, names: Sequence[str], *, load: float, seed: int = 0, bounds: bool = True
) -> Comparison:
    """Simulate policies by name, under the same luck.

    Raises:
        ValueError: There is no policy of that name.
    """
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise ValueError(f"no policy is called {', '.join(unknown)}; there are {', '.join(POLICIES)}")
    summaries = tuple(
        simulate(workload, fleet, POLICIES[name](workload, fleet, seed), seed=seed).summary() for name in names
    )
    return Comparison(load, summaries, upper_bound(workload, fleet, seed=seed) if bounds else None)
