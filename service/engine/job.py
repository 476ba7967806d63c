"""Jobs: the runs that lanes have taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.engine.backends.backend import Stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.policy.desk import Lane
    from service.policy.situation import Run

_WORTH_STOPPING_S: Final = 1e-4
"""What can break a run off costs half a microsecond, and shorter runs are over before anybody could."""


@dataclass(slots=True, eq=False)
class Job:
    """A run that a lane has taken; ``call`` is its call to another server, while one is under way.

    ``stop`` breaks a local run off, where it is long enough for that to be worth it.
    ``typical_s`` is what it would most likely take, as known when it was taken. ``is_given_up`` tells that the run
    hung, and that nobody waits for it or for its thread any more.
    """

    lane: Lane
    model: LoadedModel
    run: Run
    tickets: Sequence[Ticket]
    taken_s: float
    decision_s: float
    typical_s: float = 0.0
    stop: Stop | None = None
    call: Future[Any] | None = None
    is_given_up: bool = False

    @property
    def deadline_s(self) -> float:
        """The moment after which nobody wants the result."""
        return max(ticket.waiting.deadline_s for ticket in self.tickets)

    @property
    def is_broken_off(self) -> bool:
        """Whether a local run was broken off, so that how it ended tells nothing of its variant or its requests."""
        return self.stop is not None and self.stop.is_set

    def drop_if_unwanted(self) -> None:
        """Break the run off where all its requests have ended; the dispatcher's lock is held."""
        if all(ticket.is_over for ticket in self.tickets):
            self.break_off()

    def break_off(self) -> None:
        """End the run early, if it can be: nobody waits for it any more."""
        if self.call is not None:
            self.call.cancel()
        if self.stop is not None:
            self.stop.set()


def stop_for(lane: Lane, run: Run) -> Stop | None:
    """Return what may break a run off: of a local lane's thread, because who would do it computes the inline ones."""
    is_worth_it = run.predicted_s >= _WORTH_STOPPING_S and lane.number >= 0 and not lane.pool
    return Stop() if is_worth_it else None


def drop_unwanted(running: Iterable[Job], ticket: Ticket) -> None:
    """Break the run off that only this ticket, which has ended, still waited for; the dispatcher's lock is held."""
    for job in running:
        if ticket in job.tickets:
            job.drop_if_unwanted()
