"""Always full: what a model server without variants does.

Source: none needed; the baseline of every paper on accuracy scaling. Two forms, because "always full" may mean two
things:

* ``POLICY``: the gateway pinned to its most accurate variant. Requests are served by earliest deadline, those that
  cannot be on time are set aside, runs are shared where that is cheaper. This is the stronger form, and the one that a
  user gets from the gateway by pinning.
* ``PLAIN``: an ordinary server. Every request is computed alone, in order of its due moment (with one budget for all:
  in order of arrival), late or not, until its hard deadline passes. In overload nearly everything it computes is late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.simulator.policies.heads import run_alone
from loadtests.simulator.policy import Always, LatePolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.costs import Costs
    from service.policy.situation import Run, Situation, Waiting


def most_accurate(candidates: tuple[str, ...], costs: Costs) -> tuple[str, ...]:
    """Keep the most accurate candidate."""
    del costs
    return candidates[:1]


def choose_oldest(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    """Run the request that is due first, on time or not; ``None`` where none can meet its hard deadline."""
    possible = [
        place
        for place, item in enumerate(queue)
        if situation.now_s + situation.costs.of(item.candidates[0], item.rows) <= item.deadline_s
    ]
    if not possible:
        return None
    place = min(possible, key=lambda place: queue[place].due_s)
    return run_alone(queue, place, queue[place].candidates[0], situation)


POLICY = LatePolicy("always-full", narrow=most_accurate)
PLAIN = LatePolicy("always-full-plain", Always(choose_oldest), narrow=most_accurate)
