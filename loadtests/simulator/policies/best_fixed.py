"""Best fixed: the gateway pinned to the one variant that does best on this very workload, known in hindsight.

Source: the "best single model" against which model selection is judged since Clipper (Crankshaw et al., NSDI 2017,
"Clipper: A Low-Latency Online Prediction Serving System"). Nobody who deploys one variant can do better, and nobody
can know it beforehand: beating it shows that changing the variant with the load is worth something.

With several models the same place on the ladder is used in each, counted from the most accurate candidate; a request
with fewer candidates gets its last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtests.simulator.policy import LatePolicy
from loadtests.simulator.simulation import simulate

if TYPE_CHECKING:
    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.workload import Workload
    from service.policy.costs import Costs


@dataclass(frozen=True, slots=True)
class AtPlace:
    """Keeps the candidate at one place, 0 being the most accurate."""

    place: int

    def __call__(self, candidates: tuple[str, ...], costs: Costs) -> tuple[str, ...]:
        """Return the candidate at the place, the last one where there are fewer."""
        del costs
        return (candidates[min(self.place, len(candidates) - 1)],)


def best_fixed(workload: Workload, fleet: Fleet, *, seed: int = 0) -> LatePolicy:
    """Return the fixed policy with the highest expected accuracy on ``workload``, the more accurate on a tie."""
    places = range(max(len(ladder.candidates()) for ladder in fleet.models))
    policies = [LatePolicy("best-fixed", narrow=AtPlace(place)) for place in places]
    return max(policies, key=lambda policy: simulate(workload, fleet, policy, seed=seed).summary().expected_accuracy)
