"""Jobs: the runs that lanes have taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.policy.desk import Lane
    from service.policy.situation import Run


@dataclass(slots=True, eq=False)
class Job:
    """A run that a lane has taken; ``call`` is its call to another server, while one is under way.

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
    call: Future[Any] | None = None
    is_given_up: bool = False

    @property
    def deadline_s(self) -> float:
        """The moment after which nobody wants the result."""
        return max(ticket.waiting.deadline_s for ticket in self.tickets)

    def drop_if_unwanted(self) -> None:
        """Cancel the call where all its requests have ended; the dispatcher's lock is held."""
        if self.call is not None and all(ticket.is_over for ticket in self.tickets):
            self.call.cancel()
