"""What a free lane runs now: the most accurate level at which the whole queue stays on time.

On CPUs batching gains little, so a burst is survived by spending less on each request, not by larger batches. A rule
that looks at the first request's slack alone spends all of it on an accurate variant and lets those behind be late.
So the decision looks at the queue:

1. The queue comes ordered by criticality, then by due moment (earliest deadline first). Requests that even their
   fastest candidate cannot finish by its due moment are set aside as late; they run only when nothing else waits.
2. For each accuracy level, from the top: let every request use its most accurate candidate not above the level, give
   the requests in order to the lane that is free next, and see whether all finish by their due moments. The first
   level that passes is the level to work at; when none passes, the fastest variant is.
3. The head runs now on its candidate at that level. Requests behind it that accept the same variant and have the
   same input shape join while sharing a run is cheaper than a run each, nobody in the batch gets late, and the other
   idle lanes keep their share.

The level is found again at every decision, so the choice moves down as a burst builds and up as it drains. Only the
first ``LOOKAHEAD`` timely requests are looked at: those behind are not decided now. Work ahead is counted at each
lane's expected free moment, work not yet arrived is not counted at all; this is where forecasts would enter.

The idea that the slack of a queue, not the load on arrival, should choose the model is SlackFit's (SuperServe, NSDI
2025), which looks at the head only; scaling accuracy to keep up with demand is Proteus's (ASPLOS 2024), which plans for
seconds ahead; earliest-deadline-first with predictable run times is Clockwork's (OSDI 2020).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOOKAHEAD: Final = 64
"""Queued requests, of those that can still be on time, that one decision looks at."""

_RUN_OVERHEAD_S: Final = 60e-6
"""What starting one more run costs besides its compute: measured, a hand-over to a lane and back."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One queued request as scheduling sees it; moments are seconds on the caller's clock.

    ``candidates`` are variant names, most accurate first. Requests with equal ``batch_key`` can share a run.
    """

    due_s: float
    deadline_s: float
    rows: int
    candidates: tuple[str, ...]
    batch_key: object
    may_share: bool = True


@dataclass(frozen=True, slots=True)
class Costs:
    """Predicted compute seconds by variant and rows, on this machine now."""

    tables: Mapping[str, tuple[float, ...]]
    ratios: Mapping[str, float]
    accuracy: Mapping[str, float]

    def of(self, variant: str, rows: int) -> float:
        """Return the predicted compute time of a run."""
        return self.tables[variant][rows] * self.ratios[variant]

    def fastest(self, waiting: Waiting) -> str:
        """Return the candidate with the smallest predicted time, the more accurate one on a tie."""
        rows = waiting.rows
        return min(waiting.candidates, key=lambda name: self.of(name, rows))

    def fastest_s(self, waiting: Waiting) -> float:
        """Return the predicted time of the fastest candidate."""
        rows = waiting.rows
        return min(self.tables[name][rows] * self.ratios[name] for name in waiting.candidates)

    def at_level(self, waiting: Waiting, level: float) -> float:
        """Return the time on the most accurate candidate not above ``level``; on the fastest where all are above."""
        for name in waiting.candidates:
            if self.accuracy[name] <= level:
                return self.of(name, waiting.rows)
        return self.fastest_s(waiting)


@dataclass(frozen=True, slots=True)
class Run:
    """What to run: a variant and the positions in the queue that share the run."""

    variant: str
    members: tuple[int, ...]
    predicted_s: float
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a decision depends on besides the queue.

    ``lanes_free_s`` is when each lane is expected to be free; the deciding lane is free now. ``idle_lanes`` counts
    the lanes without work, the deciding one included. ``max_rows`` bounds one run.
    """

    costs: Costs
    now_s: float
    lanes_free_s: tuple[float, ...]
    idle_lanes: int
    max_rows: int


ChooseRun = Callable[["Sequence[Waiting]", Situation], "Run | None"]
"""What a scheduling policy is: a function from a queue in service order and the situation to the next run."""


def choose_run(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    """Decide what the free lane runs now; ``None`` when nothing in the queue can meet its hard deadline.

    ``queue`` is in service order and holds nothing that has expired.
    """
    costs, now_s = situation.costs, situation.now_s
    on_time = (item for item in enumerate(queue) if now_s + costs.fastest_s(item[1]) <= item[1].due_s)
    timely = list(islice(on_time, LOOKAHEAD))
    if not timely:
        return _late_run(queue, situation)
    variant = _level_variant(timely, situation)
    members = _share(timely, variant, situation)
    rows = sum(queue[index].rows for index in members)
    return Run(variant, members, costs.of(variant, rows))


def _late_run(queue: Sequence[Waiting], situation: Situation) -> Run | None:
    for index, item in enumerate(queue):
        variant = situation.costs.fastest(item)
        predicted_s = situation.costs.of(variant, item.rows)
        if situation.now_s + predicted_s <= item.deadline_s:
            return Run(variant, (index,), predicted_s, is_late=True)
    return None


def _level_variant(timely: Sequence[tuple[int, Waiting]], situation: Situation) -> str:
    costs, first = situation.costs, timely[0][1]
    for variant in first.candidates:
        if situation.now_s + costs.of(variant, first.rows) > first.due_s:
            continue
        if len(timely) == 1 or _stays_on_time(timely, costs.accuracy[variant], situation):
            return variant
    return costs.fastest(first)


def _stays_on_time(timely: Sequence[tuple[int, Waiting]], level: float, situation: Situation) -> bool:
    free = [max(situation.now_s, moment) for moment in situation.lanes_free_s]
    heapq.heapify(free)
    for _, item in timely:
        finish_s = free[0] + situation.costs.at_level(item, level)
        if finish_s > item.due_s:
            return False
        heapq.heapreplace(free, finish_s)
    return True


def _share(timely: Sequence[tuple[int, Waiting]], variant: str, situation: Situation) -> tuple[int, ...]:
    costs = situation.costs
    index, first = timely[0]
    members, rows, tightest_s = [index], first.rows, first.due_s
    fair_share = -(-len(timely) // max(1, situation.idle_lanes)) if first.may_share else 1
    for index, item in timely[1:]:
        if len(members) >= fair_share:
            break
        together = rows + item.rows
        if not _can_join(item, first, variant) or together > situation.max_rows:
            continue
        together_s = costs.of(variant, together)
        apart_s = costs.of(variant, rows) + costs.of(variant, item.rows) + _RUN_OVERHEAD_S
        if situation.now_s + together_s > min(tightest_s, item.due_s) or together_s > apart_s:
            break
        members.append(index)
        rows, tightest_s = together, min(tightest_s, item.due_s)
    return tuple(members)


def _can_join(item: Waiting, first: Waiting, variant: str) -> bool:
    return item.may_share and item.batch_key == first.batch_key and variant in item.candidates
