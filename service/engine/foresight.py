"""Who would be late anyway: what the door can know of the lanes at the price of a glance.

Late work waits until nothing else does. Under overload that time does not come: whoever is let in and cannot be on
time is read, decoded and queued for nobody, and keeps a connection of its client's, until its hard deadline passes or
another one displaces it. So once more late work waits than the lanes will soon have time for, a newcomer that would be
late behind what is queued is turned away unparsed. A burst, or a few clients too many, leave less than that, and are
answered late.

Asked on the event loop's thread, under overload for each request, and without the lanes' lock: a lane that holds it may
itself be waiting for the interpreter. What is read may be a moment old; it decides nothing but who is let in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.policy.limits import earliest_start_s

if TYPE_CHECKING:
    from service.domain.inference import Criticality
    from service.engine.dispatcher import Dispatcher
    from service.engine.loaded import LoadedModel
    from service.engine.registry import Registry
    from service.policy.latency import Handover

_MOST_LATE_S: Final = 0.05
_MOST_LATE: Final = 64
"""Of late work for each lane, seconds and requests: both must be exceeded."""


class Foresight:
    """Looks at a dispatcher's queues; ``handover`` tells what has to be left for the time after a run."""

    def __init__(self, dispatcher: Dispatcher, registry: Registry, handover: Handover) -> None:
        """Look when asked."""
        self._dispatcher = dispatcher
        self._registry = registry
        self._handover = handover
        self._lost: dict[LoadedModel, int] = {}

    def is_crowded(self) -> bool:
        """Tell whether more late work waits than the lanes will soon have time for."""
        desk = self._dispatcher.desk
        if not desk.models:
            return False
        count, late_s = 0, 0.0
        for model in tuple(desk.models):
            count += model.queue.late_count
            late_s += model.queue.late_work_s
        return count > _MOST_LATE * len(desk.lanes) and late_s > _MOST_LATE_S * len(desk.lanes)

    def is_late(self, name: str, budget_s: float, waited_s: float, criticality: Criticality) -> bool:
        """Tell whether a newcomer for a model would be late at the lanes.

        Nobody is late for a model that is not known, or has variants elsewhere: their lanes are not looked at.
        """
        name, _, pinned = name.partition("--")
        model = self._registry.find(name)
        if model is None or model.standing.pools:
            return False
        desk, now_s = self._dispatcher.desk, self._dispatcher.clock()
        queued_s = 0.0
        for item in tuple(desk.models):
            queued_s += item.queue.work_s(criticality)
        busy_s = [max(0.0, lane.free_s - now_s) if lane.is_busy else 0.0 for lane in desk.lanes]
        costs = model.costs(now_s)
        backends = (pinned,) if pinned in model.backends else model.backends
        needs_s = min([costs.of(variant, 1) for variant in backends], default=0.0)
        needs_s += waited_s + self._handover.set_aside_s(budget_s, is_pressed=True)
        return earliest_start_s(busy_s, queued_s) + needs_s > budget_s

    def lose(self, name: str, count: int = 1) -> None:
        """Count requests that were turned away, as soon as nobody else holds the lanes' lock."""
        model = self._registry.find(name.partition("--")[0])
        if model is not None:
            self._lost[model] = self._lost.get(model, 0) + count
        if not self._dispatcher.deciding.acquire(blocking=False):
            return
        try:
            for item, lost in self._lost.items():
                for _ in range(lost):
                    item.standing.losses.arrived()
                    item.standing.losses.lost()
        finally:
            self._dispatcher.deciding.release()
        self._lost.clear()
