"""INFaaS-like: on arrival, the most accurate variant that some worker can still answer with in time.

Source: Romero, Li, Yadwadkar, Kozyrakis: "INFaaS: Automated Model-less Inference Serving", USENIX ATC 2021.

What the paper does. Users state a latency and an accuracy requirement. For each query, on arrival, a controller looks
at the running instances of the model's variants and takes the one of least cost that meets the requirements and is not
overloaded; the query then waits at that worker's queue for an instance that batches adaptively. Overloaded instances
are replicated or swapped for faster variants by an autoscaler over seconds, which here has nothing to do: lanes are
given, and every variant is loaded on each of them, which is kinder than the paper's loading times.

What is done here. Cost is the accuracy lost against the best candidate, as in the version of INFaaS that Proteus
(ASPLOS 2024) compares with, because with lanes given there is no other bill. A variant meets the latency requirement
at a lane if the lane's remaining work and its queue, at predicted times, leave enough of the budget. The least loaded
lane is asked. Lanes serve in order of arrival, and give those at the head that have the same variant one run while the
first of them stays in time. Two points are decided in the policy's favour, as the paper drops nothing: a query that no
variant could answer in time is refused on arrival, and one that cannot be in time when its lane comes to it is
dropped; computing them would only make others late.

When it is wrong: the choice is made against the load on arrival. A burst finds short queues, commits them to accurate
variants, and what was committed cannot be taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.simulator.policy import EarlyPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.policy import Arrival, LaneView, Placed, Site
    from service.policy.costs import Costs


class Greedy:
    """Places each request at the least loaded lane."""

    def __init__(self, site: Site) -> None:
        """Start in a gateway."""
        self._site = site

    def place(self, arrival: Arrival, lanes: Sequence[LaneView]) -> tuple[int, str] | None:
        """Return the least loaded lane and the most accurate variant that is in time there."""
        costs, waiting = self._site.costs[arrival.model], arrival.waiting
        starts_s = [self._start_s(lane, arrival.now_s) for lane in lanes]
        number = min(range(len(lanes)), key=starts_s.__getitem__)
        start_s = starts_s[number]
        for name in waiting.candidates:
            if start_s + costs.of(name, waiting.rows) <= waiting.due_s:
                return number, name
        return None

    def batch(self, lane: LaneView, now_s: float) -> tuple[int, int]:
        """Drop what cannot be in time any more; run the head, and those of its variant that keep it in time."""
        return drop_and_batch(lane.queue, self._site, now_s)

    def _start_s(self, lane: LaneView, now_s: float) -> float:
        queued_s = sum(self._site.costs[item.model].of(item.variant, item.waiting.rows) for item in lane.queue)
        return max(now_s, lane.free_s if lane.is_busy else now_s) + queued_s


def drop_and_batch(queue: Sequence[Placed], site: Site, now_s: float) -> tuple[int, int]:
    """Return how many at the head cannot be in time, and how many after these share the next run."""
    dropped = 0
    for item in queue:
        if now_s + site.costs[item.model].of(item.variant, item.waiting.rows) <= item.waiting.due_s:
            break
        dropped += 1
    left = queue[dropped:]
    return dropped, _batch(left, site.costs[left[0].model], site.max_rows[left[0].model], now_s) if left else 0


def _batch(queue: Sequence[Placed], costs: Costs, max_rows: int, now_s: float) -> int:
    # Those that are not cheaper together than apart run apart: a full batch would only make its first members wait.
    head, rows, count = queue[0], queue[0].waiting.rows, 1
    for item in queue[1:]:
        together = rows + item.waiting.rows
        if (item.model, item.variant) != (head.model, head.variant) or together > max_rows:
            break
        together_s = costs.of(head.variant, together)
        apart_s = costs.of(head.variant, rows) + costs.of(head.variant, item.waiting.rows)
        if now_s + together_s > head.waiting.due_s or together_s >= apart_s:
            break
        rows, count = together, count + 1
    return count


POLICY = EarlyPolicy("infaas", Greedy)
