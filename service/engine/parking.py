"""Where requests wait for a variant that is not in memory, and how a variant is taken out from under those that run.

A request never fails because of an eviction. Between the moment at which a request was routed and the moment at which
a lane takes it, its variants may have been evicted; so whoever puts a ticket into a queue asks here first, under the
dispatcher's lock. A ticket that can also be answered by what is held loses the evicted candidates; one that cannot is
parked, its variant is asked for, and it goes into the queue when that is loaded. Its hard deadline holds meanwhile.

An evicted variant takes no new requests; it is used on until nothing in the queue depends on it and no run is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from service.domain.errors import Overloaded
from service.engine.ticket import settle

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping

    from service.engine.job import Job
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket

_RETRY_S = 1.0


class Loader(Protocol):
    """Who loads what is asked for; the calls return at once and are made with the dispatcher's lock held."""

    def bring(self, model: LoadedModel, variant: str) -> None:
        """Load a variant soon: somebody waits for it."""

    def note_demand(self, model: LoadedModel, variant: str) -> None:
        """Count that a request would have preferred an evicted variant."""


class Parking:
    """The parked tickets; ``changed`` is the dispatcher's lock, ``running`` its runs, ``push`` puts into a queue."""

    def __init__(
        self, changed: threading.Condition, running: Mapping[int, Job], push: Callable[[Ticket], None]
    ) -> None:
        """Start empty; nobody loads until ``loader`` is set."""
        self.loader: Loader | None = None
        self._changed = changed
        self._running = running
        self._push = push
        self._tickets: dict[LoadedModel, dict[Ticket, None]] = {}

    # These run with the dispatcher's lock held.

    def receives(self, ticket: Ticket) -> bool:
        """Do as ``holds_up`` for a newcomer.

        Raises:
            Overloaded: As many are parked as may wait in the model's queue.
        """
        model = ticket.model
        parked = len(self._tickets.get(model, ()))
        if parked >= model.policy.max_queued and model.evicted.issuperset(ticket.waiting.candidates):
            raise Overloaded(
                f"model '{model.info.name}' has {parked} requests waiting for a variant to be loaded "
                f"(at most {model.policy.max_queued})",
                _RETRY_S,
            )
        missed = "" if ticket.route.is_pinned or self.loader is None else model.missed(ticket.request.knobs)
        if missed and self.loader is not None:
            self.loader.note_demand(model, missed)
        return self.holds_up(ticket)

    def holds_up(self, ticket: Ticket) -> bool:
        """Park a ticket that only evicted variants can answer, else leave it what is held; tell whether it is parked.

        Asked only where the model has evicted variants, so that nothing else pays.
        """
        model = ticket.model
        if narrow(ticket, model.evicted):
            return False
        if ticket.kept is not None:
            settle(ticket)  # the answer of a cascade's first stage is better than a wait
            return True
        ticket.met_idle = False
        self._tickets.setdefault(model, {})[ticket] = None
        if self.loader is not None:
            rows, budget_s = ticket.waiting.rows, ticket.route.budget_s
            variants = [name for name in ticket.waiting.candidates if name not in model.plans]
            timely = (name for name in variants if ticket.costs.of(name, rows) <= budget_s)
            self.loader.bring(model, next(timely, variants[-1]))
        return True

    def avoid(self, model: LoadedModel, variants: Collection[str]) -> None:
        """Let those that wait use what else they may."""
        for ticket in (*model.queue, *self._tickets.get(model, ())):
            narrow(ticket, variants)

    def let_go(self, ticket: Ticket) -> bool:
        """Forget a ticket that has ended; return whether it was parked."""
        parked = self._tickets.get(ticket.model, {})
        if ticket not in parked:
            return False
        del parked[ticket]
        return True

    def take_all(self) -> list[Ticket]:
        """Take out every ticket."""
        return [ticket for model in list(self._tickets) for ticket in self._tickets.pop(model)]

    # These take it.

    def retire(self, model: LoadedModel, variant: str) -> None:
        """Let a variant take no new requests, and those that wait use what else they may."""
        with self._changed:
            model.evict(variant)
            for ticket in model.queue:
                narrow(ticket, model.evicted)

    def is_using(self, model: LoadedModel, variants: Collection[str]) -> bool:
        """Tell whether a run or a ticket in the queue depends on one of these variants."""
        with self._changed:
            if any(job.model is model and job.run.variant in variants for job in self._running.values()):
                return True
            queued = (ticket.waiting.candidates for ticket in model.queue)
            return any(model.without(candidates, variants) != candidates for candidates in queued)

    def is_busy_with(self, model: LoadedModel, variants: Collection[str]) -> bool:
        """Tell whether a run, or a ticket in the queue or parked, needs this model."""
        with self._changed:
            return bool(self._tickets.get(model)) or self.is_using(model, variants)

    def readmit(self, model: LoadedModel) -> None:
        """Put a model's tickets into its queue, since a variant of it was loaded; some may be parked again."""
        with self._changed:
            for ticket in self._tickets.pop(model, {}):
                if not self.holds_up(ticket):
                    self._push(ticket)
            self._changed.notify_all()

    def refuse(self, model: LoadedModel, variant: str, error: Exception) -> None:
        """End the tickets that only this variant could have answered, since it cannot be loaded."""
        refused = []
        with self._changed:
            for ticket in self._tickets.pop(model, {}):
                if not narrow(ticket, {variant}):
                    ticket.is_over = True
                    refused.append(ticket)
                elif not self.holds_up(ticket):
                    self._push(ticket)
            self._changed.notify_all()
        for ticket in refused:
            ticket.fail(error)


def narrow(ticket: Ticket, variants: Collection[str]) -> bool:
    """Leave a ticket the candidates that need none of these variants, if there are any; tell whether there are."""
    left = ticket.model.without(ticket.waiting.candidates, variants)
    if left and len(left) < len(ticket.waiting.candidates):
        ticket.waiting = replace(ticket.waiting, candidates=left)
        if ticket.is_queued:
            ticket.model.queue.renew(ticket)
    return bool(left)
