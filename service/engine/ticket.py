"""Tickets: one admitted request on its way.

A ticket waits in its model's deadline queue, runs on a lane, and ends exactly once, with outputs or with an error, on
the event loop that it came from.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.domain.inference import InferenceRequest
    from service.engine.loaded import LoadedModel
    from service.policy.routing import Route
    from service.policy.scheduling import Waiting


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
