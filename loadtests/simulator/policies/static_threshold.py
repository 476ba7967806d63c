"""Static threshold: the longer the queue, the smaller the variant, by fixed queue lengths tuned by hand.

Source: the rule that operators write themselves, and the strongest simple one; serving systems call it load-based
downgrading (compare brownout, Klein et al., ICSE 2014, where a dimmer follows the load). With thresholds
t_1 <= t_2 <= ... the head runs on its most accurate candidate while at most t_1 requests wait, on the second while at
most t_2 do, and so on; the last beyond all. The request that is decided for counts as waiting.

``tune`` is the hand: from the best of three starts it tries thresholds from a geometric grid, one after the other,
keeping what raises expected accuracy on a tuning workload, until nothing does. A tuned table fits one budget, one
number of lanes and one trace; that is the weakness it is compared for. Judge it on a workload that it was not tuned
on, or be kind and tune it on the same one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.simulator.policies.heads import first_timely, run_alone, run_late
from loadtests.simulator.policy import Always, LatePolicy
from loadtests.simulator.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.workload import Workload
    from service.policy.situation import Run, Situation, Waiting

_GRID: Final = (0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
_MOST_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Chooses by queue length; ``lengths`` ascend, one fewer than there are candidates."""

    lengths: tuple[int, ...]

    def __call__(self, queue: Sequence[Waiting], situation: Situation) -> Run | None:
        """Run the first request that can be on time, on the variant that the queue's length allows."""
        place = first_timely(queue, situation)
        if place is None:
            return run_late(queue, situation)
        candidates = queue[place].candidates
        step = min(bisect_left(self.lengths, len(queue)), len(candidates) - 1)
        return run_alone(queue, place, candidates[step], situation)


def static_threshold(lengths: tuple[int, ...]) -> LatePolicy:
    """Return the policy with these thresholds.

    Raises:
        ValueError: They do not ascend.
    """
    if list(lengths) != sorted(lengths):
        raise ValueError(f"static threshold: lengths must ascend, got {lengths}")
    return LatePolicy("static-threshold", Always(Thresholds(lengths)))


def tune(workload: Workload, fleet: Fleet, *, seed: int = 0) -> LatePolicy:
    """Return the policy with the thresholds that a search by hand finds best on ``workload``."""
    steps = max(len(ladder.candidates()) for ladder in fleet.models) - 1
    starts = [tuple(4 * fleet.lanes * (place + 1) for place in range(steps)), (0,) * steps, (1,) * steps]
    scores: dict[tuple[int, ...], float] = {}

    def score(lengths: tuple[int, ...]) -> float:
        if lengths not in scores:
            policy = static_threshold(lengths)
            scores[lengths] = simulate(workload, fleet, policy, seed=seed).summary().expected_accuracy
        return scores[lengths]

    best = max(starts, key=score)
    for _ in range(_MOST_ROUNDS):
        before = best
        for place in range(steps):
            tried = [(*best[:place], length, *best[place + 1 :]) for length in _GRID]
            ascending = [lengths for lengths in tried if list(lengths) == sorted(lengths)]
            best = max([best, *ascending], key=score)
        if best == before:
            break
    return static_threshold(best)
