"""What simple policies share: whom to serve next when only the head of the queue is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.policy.situation import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.costs import Costs
    from service.policy.situation import Situation, Waiting


def fastest(costs: Costs, waiting: Waiting) -> tuple[float, str]:
    """Return the smallest predicted time among a request's candidates, and that candidate."""
    return min((costs.of(name, waiting.rows), name) for name in waiting.candidates)


def first_timely(queue: Sequence[Waiting], situation: Situation) -> int | None:
    """Return the place of the first request that can still be on time, ``None`` where there is none."""
    for place, item in enumerate(queue):
        if situation.now_s + fastest(situation.costs, item)[0] <= item.due_s:
            return place
    return None


def run_late(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    """Return a run, on the fastest variant, of the first request that can still meet its hard deadline."""
    for place, item in enumerate(queue):
        predicted_s, variant = fastest(situation.costs, item)
        if situation.now_s + predicted_s <= item.deadline_s:
            return Run(variant, (place,), predicted_s, is_late=True)
    return None


def run_alone(queue: Sequence[Waiting], place: int, variant: str, situation: Situation) -> Run:
    """Return a run of one request."""
    return Run(variant, (place,), situation.costs.of(variant, queue[place].rows))
