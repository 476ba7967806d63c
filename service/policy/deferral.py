"""When a free lane should wait for a fuller batch.

A lane that takes what waits as soon as it is free keeps batches small: at moderate load a run often has one member.
Where a batch of b takes t(b), much less than b runs of one, that wastes what batching would gain, and under load the
level (``policy.pace``) has to go down although a better one could be kept up with fuller runs. Symphony (Chen et al.,
arXiv 2308.07470) therefore defers: a batch starts within a window that closes when its first request would become late.
Clipper (NSDI 2017) waits a fixed time for the same reason. Here the wait has a purpose that can be reckoned. With
arrivals at rate r (1/s) and m lanes, a step of the ladder is kept up for good by batches of b if

    r * (t(b) + overhead) / b  <=  0.95 m

Step by step from the most accurate one, let b be the smallest batch that keeps it up. Where that is more than the n
that would run now, and b - n more requests are expected by the moment at which a batch of b must start,

    n + r * (latest - now) >= b,    latest = soonest due moment - t(b) - margin,

the lane waits for them, until then and never beyond ``latest``; every arrival decides anew. If no step calls for it,
the run starts now. Requests that ask differently, that wait behind a full batch, or that belong to another model end
the waiting: a lane is idle for one kind of work only while there is no other.

It is wrong where the rate is: ``ArrivalRate`` forgets with a time constant of 1.5 s (a third of that was a little
worse), so the first requests of a burst are served as they were before it, and those after it may wait for company that
does not come. That costs slack, not the deadline: but slack spent is missing when a burst begins, and then the level
goes down. So models without a variant that gains much are never deferred (``gains_by_batching``), and policies ask for
it (``defers``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.policy.costs import RUN_OVERHEAD_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.policy.costs import Ladder
    from service.policy.situation import Run, Situation, Waiting

_REMEMBERED_S: Final = 1.5
"""The time constant with which arrivals are forgotten."""

_KEPT_UP: Final = 0.95
"""The part of the lanes that may be filled for good; more, and a queue grows without end by chance alone."""

_WAKE_S: Final = 1e-3
"""Kept free between the latest start and what the deadline allows: a timer fires late, and the lane has to wake up."""

_GAINS_BELOW: Final = 0.3
"""A full batch must take less than this share of as many single runs. Where batching gains less, waiting for company
cost as often as it helped in simulation."""


@dataclass(slots=True)
class ArrivalRate:
    """Arrivals per second, each forgotten exponentially; the caller holds a lock."""

    _count: float = 0.0
    _counted_s: float = -math.inf

    def arrived(self, now_s: float) -> None:
        """Count an arrival; moments may come in any order."""
        self._count = self._at(now_s) + 1.0
        self._counted_s = max(self._counted_s, now_s)

    def hz(self, now_s: float) -> float:
        """Return the rate now."""
        return self._at(now_s) / _REMEMBERED_S

    def _at(self, now_s: float) -> float:
        return self._count * math.exp(min(0.0, self._counted_s - now_s) / _REMEMBERED_S)


def gains_by_batching(tables: Mapping[str, Sequence[float]], max_rows: int) -> bool:
    """Tell whether any variant takes clearly less for a full batch than for as many runs; tables are by rows."""
    return any(table[max_rows] < _GAINS_BELOW * max_rows * table[1] for table in tables.values())


def deferred_until_s(queue: Sequence[Waiting], run: Run, ladder: Ladder, situation: Situation) -> float:
    """Return the moment before which ``run`` should not start, later than now only where waiting is worth it."""
    head, now_s, batch = run.members[0], situation.now_s, len(run.members)
    first = queue[head]
    due_s = _soonest_due_s(queue, head, situation)
    if run.plan or not first.may_share or due_s <= now_s:
        return now_s
    highest = run.variant if situation.price_per_s or situation.accuracy_loss else ladder.steps[0].name
    is_allowed = False
    for step in ladder.steps:
        is_allowed = is_allowed or step.name == highest
        wanted = _smallest_kept_up(step.name, first.rows, situation) if is_allowed else 0
        if wanted > batch:
            latest_s = due_s - situation.costs.of(step.name, wanted * first.rows) - _WAKE_S
            expected_s = now_s + (wanted - batch) / situation.arrival_rate_hz
            if now_s < expected_s <= latest_s:
                return min(latest_s, max(expected_s, now_s + _WAKE_S))
    return now_s


def _soonest_due_s(queue: Sequence[Waiting], head: int, situation: Situation) -> float:
    """Return when the first of what waits is due; what is late anyway, which comes last, does not count.

    Where what waits is more than a batch for each lane, or asks differently, it is now.
    """
    first, soonest_s, now_s = queue[head], math.inf, situation.now_s
    most = situation.max_rows // first.rows * len(situation.lanes_free_s)
    for offset in range(len(queue) - head):
        item = queue[head + offset]
        if now_s + situation.costs.fastest_s(item) > item.due_s:
            break
        is_alike = item.candidates == first.candidates and item.rows == first.rows
        if offset >= most or not is_alike or not item.may_share or item.batch_key != first.batch_key:
            return now_s
        soonest_s = min(soonest_s, item.due_s)
    return soonest_s


def _smallest_kept_up(name: str, rows: int, situation: Situation) -> int:
    """Return the smallest batch by which a variant keeps up with the arrivals; 0 where there is none."""
    costs = situation.costs
    if name in costs.plans:
        return 0
    spare = _KEPT_UP * len(situation.lanes_free_s) / situation.arrival_rate_hz
    for batch in range(1, situation.max_rows // rows + 1):
        if costs.of(name, batch * rows) + RUN_OVERHEAD_S <= spare * batch:
            return batch
    return 0
