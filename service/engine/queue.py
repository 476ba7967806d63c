"""Tickets, and the deadline queue in which they wait.

A ticket is one admitted request on its way: it waits in its model's queue, runs on a lane, and ends exactly once,
with outputs or with an error, on the event loop that it came from. The queue keeps service order: by criticality, then
by due moment, then by arrival, and what is known to be late behind everything else, so that a backlog of late work
hides no request that can still be on time. Nothing here locks; the lanes hold their lock around every call.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from service.domain.inference import InferenceRequest
    from service.engine.loaded import LoadedModel
    from service.policy.routing import Route
    from service.policy.scheduling import Waiting

_ORDER = attrgetter("order")


@dataclass(slots=True, eq=False)
class Outcome:
    """What running a ticket gave; moments on the engine's clock."""

    variant: str
    outputs: tuple[NDArray[Any], ...]
    started_s: float
    compute_s: float
    predicted_s: float
    batch_size: int
    is_late: bool
    is_fallback: bool


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request.

    ``fastest_s`` is the predicted time of its fastest candidate, ``fits_idle`` are the candidates that would keep the
    budget on an idle machine, ``failed_on`` lists the variants that failed on it. ``is_over`` tells, under the lanes'
    lock, that its end is decided: it must not wait again.
    """

    request: InferenceRequest
    model: LoadedModel
    route: Route
    waiting: Waiting
    arrived_s: float
    fastest_s: float
    fits_idle: frozenset[str]
    loop: asyncio.AbstractEventLoop
    thread: int
    done: asyncio.Future[Outcome]
    order: tuple[bool, int, float, int] = (False, 0, 0.0, 0)
    is_queued: bool = False
    met_idle: bool = False
    is_over: bool = False
    failed_on: list[str] = field(default_factory=list)

    @property
    def criticality(self) -> int:
        """The request's criticality; lower is served first."""
        return int(self.request.knobs.criticality)

    @property
    def is_late(self) -> bool:
        """Whether the queue has set it aside as late."""
        return self.order[0]

    def fail(self, error: Exception) -> None:
        """End the ticket with an error, from any thread; a ticket that has ended stays as it is."""

        def set_error() -> None:
            if not self.done.done():
                self.done.set_exception(error)

        _on_loop(self, set_error)


def deliver(results: Sequence[tuple[Ticket, Outcome]]) -> None:
    """End tickets that ran together, from any thread, with one wake-up of their event loop."""

    def set_results() -> None:
        for ticket, outcome in results:
            if not ticket.done.done():
                ticket.done.set_result(outcome)

    _on_loop(results[0][0], set_results)


def _on_loop(ticket: Ticket, action: Callable[[], object]) -> None:
    if threading.get_ident() == ticket.thread:
        action()
        return
    # A loop that has closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        ticket.loop.call_soon_threadsafe(action)


class DeadlineQueue:
    """The waiting tickets of one model in service order, and how much work they are at the least."""

    def __init__(self) -> None:
        """Start empty."""
        self._tickets: list[Ticket] = []
        self._arrivals = 0
        # By criticality: all tickets, those not set aside as late, and the work of these.
        self._counts = [0, 0, 0]
        self._timely = [0, 0, 0]
        self._work_s = [0.0, 0.0, 0.0]

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    @property
    def head(self) -> Ticket:
        """The ticket that is served first."""
        return self._tickets[0]

    @property
    def least_important(self) -> Ticket:
        """The ticket that is missed least: of the lowest criticality, the one that is served last."""
        return max(self._tickets, key=lambda ticket: (ticket.criticality, ticket.order))

    @property
    def lowest_criticality(self) -> int:
        """The criticality of ``least_important``, 0 where nothing waits."""
        return max((number for number, count in enumerate(self._counts) if count), default=0)

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait; a ticket that comes back keeps its due moment."""
        self._arrivals += 1
        ticket.order = (False, ticket.criticality, ticket.waiting.due_s, self._arrivals)
        ticket.is_queued = True
        insort(self._tickets, ticket, key=_ORDER)
        self._counts[ticket.criticality] += 1
        self._timely[ticket.criticality] += 1
        self._work_s[ticket.criticality] += ticket.fastest_s

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out; return whether it was waiting."""
        if not ticket.is_queued:
            return False
        ticket.is_queued = False
        self._tickets.remove(ticket)
        self._counts[ticket.criticality] -= 1
        if not ticket.is_late:
            self._forget_timely(ticket)
        return True

    def set_late_aside(self, now_s: float) -> None:
        """Move first tickets that even their fastest candidate cannot finish by the due moment behind all others."""
        start = 0
        for criticality in range(len(self._timely)):
            while self._timely[criticality]:
                ticket = self._tickets[start]
                if now_s + ticket.fastest_s <= ticket.waiting.due_s:
                    break
                self._forget_timely(self._tickets.pop(start))
                ticket.order = (True, *ticket.order[1:])
                insort(self._tickets, ticket, key=_ORDER)
            start += self._timely[criticality]

    def take(self, positions: tuple[int, ...]) -> list[Ticket]:
        """Take out the tickets at these positions, in order."""
        taken = [self._tickets[position] for position in positions]
        for ticket in taken:
            self.remove(ticket)
        return taken

    def take_all(self) -> list[Ticket]:
        """Take out every ticket."""
        return self.take(tuple(range(len(self._tickets))))

    def waiting(self, most: int) -> list[Waiting]:
        """Return the first ``most`` tickets as scheduling sees them."""
        return [ticket.waiting for ticket in self._tickets[:most]]

    def work_s(self, criticality: int) -> float:
        """Return the compute, at the fastest variants, of the timely tickets at least as important."""
        return max(0.0, sum(self._work_s[: criticality + 1]))

    def work_before_s(self, criticality: int, due_s: float) -> float:
        """Return the compute, at the fastest variants, of the timely tickets that are served before such a newcomer."""
        end = bisect_left(self._tickets, (False, criticality, due_s, self._arrivals + 1), key=_ORDER)
        return sum(ticket.fastest_s for ticket in self._tickets[:end])

    def _forget_timely(self, ticket: Ticket) -> None:
        self._timely[ticket.criticality] -= 1
        self._work_s[ticket.criticality] -= ticket.fastest_s
