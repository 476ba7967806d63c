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

from typing import TYPE_CHECKING

from service.policy.crowd import Newcomer, Prospect, is_crowded, prospect

if TYPE_CHECKING:
    from service.domain.inference import Criticality
    from service.engine.dispatcher import Dispatcher
    from service.engine.loaded import LoadedModel
    from service.engine.registry import Registry
    from service.policy.latency import Handover


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
        if self._lost:
            self._settle()
        return is_crowded(self._dispatcher.desk)

    def prospect(self, name: str, budget_s: float, waited_s: float, criticality: Criticality) -> Prospect:
        """Tell what a newcomer for a model, of a budget and having waited so long, may hope for at the lanes.

        A model that is not known, or has variants elsewhere, is not judged: its lanes are not looked at.
        """
        name, _, pinned = name.partition("--")
        model = self._registry.find(name)
        if model is None or model.standing.pools:
            return Prospect.TIMELY
        now_s = self._dispatcher.clock()
        costs = model.costs(now_s)
        backends = (pinned,) if pinned in model.backends else model.backends
        needs_s = min([costs.of(variant, 1) for variant in backends], default=0.0)
        due_s = now_s + budget_s - self._handover.set_aside_s(budget_s, is_pressed=True)
        after_s = now_s + budget_s - self._handover.set_aside_s(budget_s)  # its like before it may have come unpressed
        newcomer = Newcomer(model, criticality, due_s, needs_s, waited_s, after_s)
        return prospect(self._dispatcher.desk, newcomer, now_s)

    def give_way(self, now_s: float) -> bool:
        """Let a lane that should be done by now have the interpreter; tell whether there was one."""
        return self._dispatcher.giving_way.give(now_s)

    def lose(self, name: str, count: int = 1) -> None:
        """Count requests that were turned away, as soon as nobody else holds the lanes' lock."""
        model = self._registry.find(name.partition("--")[0])
        if model is not None:
            self._lost[model] = self._lost.get(model, 0) + count
        self._settle()

    def _settle(self) -> None:
        if not self._dispatcher.deciding.acquire(blocking=False):
            return
        try:
            for item, lost in self._lost.items():
                item.standing.losses.turned_away(lost)
        finally:
            self._dispatcher.deciding.release()
        self._lost.clear()
