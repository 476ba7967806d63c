"""Tickets: one admitted request on its way.

A ticket waits in its model's deadline queue, runs on a lane, and ends exactly once, with outputs or with an error, on
the event loop that it came from.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.domain.errors import DeadlineExceeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.domain.inference import InferenceRequest
    from service.domain.observer import RunReport
    from service.engine.loaded import LoadedModel
    from service.engine.prompt import PromptFuture
    from service.policy.costs import Costs, Plan
    from service.policy.routing import Route
    from service.policy.situation import Waiting


@dataclass(slots=True, eq=False)
class Outcome:
    """What running a ticket gave; moments on the engine's clock. ``runs`` are those that it took."""

    variant: str
    outputs: tuple[NDArray[Any], ...]
    started_s: float
    compute_s: float
    predicted_s: float
    batch_size: int
    is_late: bool
    is_fallback: bool
    is_cascaded: bool = False
    plan: Plan | None = None
    runs: tuple[RunReport, ...] = ()


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request.

    ``costs`` are the predictions of its arrival, ``fastest_s`` is the time of its fastest candidate by them,
    ``failed_on`` lists the variants that failed on it. ``kept`` is the answer of a cascade's first stage, and ``plan``
    the cascade, while the second stage is awaited. ``timer`` ends it at its hard deadline, once it waits for longer
    than a turn of the event loop. ``is_over`` tells, under the lanes' lock, that its end is decided: it must not wait
    again.
    """

    request: InferenceRequest
    model: LoadedModel
    route: Route
    waiting: Waiting
    costs: Costs
    arrived_s: float
    fastest_s: float
    thread: int
    done: PromptFuture[Outcome]
    timer: asyncio.TimerHandle | None = None
    order: tuple[bool, int, float, int] = (False, 0, 0.0, 0)
    is_queued: bool = False
    met_idle: bool = False
    is_over: bool = False
    failed_on: list[str] = field(default_factory=list)
    kept: Outcome | None = None
    plan: Plan | None = None

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

        self.call_on_loop(set_error)

    def call_on_loop(self, action: Callable[[], object]) -> None:
        """Call on the event loop that the ticket came from, from any thread; at once where that is this one's."""
        if threading.get_ident() == self.thread:
            action()
            return
        # A loop that has closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self.done.get_loop().call_soon_threadsafe(action)

    def settle_after(self, left_s: float, settle: Callable[[Ticket], None]) -> None:
        """Settle the ticket in so many seconds, instead of what its timer was for; on its event loop."""
        if self.done.done():
            return
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.done.get_loop().call_later(left_s, settle, self)


def expired(ticket: Ticket) -> DeadlineExceeded:
    """Return the error of a request whose hard deadline has passed."""
    waited_ms = (ticket.waiting.deadline_s - ticket.arrived_s) * 1e3
    return DeadlineExceeded(
        f"model '{ticket.request.model}' could not answer within the deadline of {waited_ms:.3f} ms"
    )


def settle(ticket: Ticket) -> None:
    """End a ticket with the answer of its cascade's first stage."""
    if ticket.kept is not None:
        deliver([(ticket, ticket.kept)])


def give_up(ticket: Ticket, error: Exception) -> None:
    """End a ticket with what it has, or else with an error."""
    if ticket.kept is not None:
        settle(ticket)
    else:
        ticket.fail(error)


def deliver(results: Sequence[tuple[Ticket, Outcome]]) -> None:
    """End tickets that ran together, from any thread, with one wake-up of their event loop.

    Where another thread ran them, their answers are made and written at that, not a turn of the loop later.
    """
    is_elsewhere = threading.get_ident() != results[0][0].thread

    def set_results() -> None:
        for ticket, outcome in results:
            if ticket.done.done():
                continue
            if is_elsewhere:
                ticket.done.end(outcome)
            else:
                ticket.done.set_result(outcome)  # a task may be running, and no other one can go on within it

    results[0][0].call_on_loop(set_results)
