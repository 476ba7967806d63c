"""Runs that are calls to other servers: their lanes, their cancelling, and what happens when no server is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.domain.errors import ModelNotReady
from service.engine.parking import narrow
from service.engine.ticket import give_up

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from concurrent.futures import Future

    from service.engine.job import Job
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.engine.waking import Waking
    from service.policy.desk import Desk


class Calls:
    """The calls under way; ``changed`` is the dispatcher's lock, ``desk`` and ``running`` what it guards."""

    def __init__(self, changed: Waking, desk: Desk[LoadedModel], running: Mapping[int, Job]) -> None:
        """Start without remote variants."""
        self._changed = changed
        self._desk = desk
        self._running = running

    def add_pool(self, name: str, lanes: int) -> None:
        """Add the lanes of a remote variant, before there are threads for them; none is usable yet."""
        self._desk.add_pool(name, lanes)
        self._changed.add_pool(name)

    def attach(self, job: Job, call: Future[Any]) -> None:
        """Note a job's call: it is cancelled where all who wait for it have ended."""
        with self._changed:
            job.call = call
            job.drop_if_unwanted()

    def drop_unwanted(self, ticket: Ticket) -> None:
        """Cancel the call that only this ticket, which has ended, still waited for; the lock is held."""
        if ticket.model.standing.pools:
            for job in self._running.values():
                if ticket in job.tickets:
                    job.drop_if_unwanted()

    def set_usable(self, pool: str, usable: int, models: Collection[LoadedModel], variant: str) -> None:
        """Say how many calls to a remote variant may be under way; with none it leaves routing until there are some.

        What waits in a queue for nothing else is refused then, what can be answered otherwise goes on.
        """
        stranded: list[Ticket] = []
        with self._changed:
            self._desk.pools[pool].usable = usable
            queued = [item for item in self._desk.models if item.standing.pools.get(variant) == pool]
            for model in {*models, *queued}:
                if usable:
                    model.offer(variant)
                    continue
                model.withdraw(variant)
                stranded += [ticket for ticket in model.queue if not narrow(ticket, (variant,))]
            for ticket in stranded:
                ticket.is_over = True
                self._desk.remove(ticket)
            self._changed.notify_all()
        for ticket in stranded:
            give_up(ticket, ModelNotReady(f"variant '{variant}' of model '{ticket.request.model}' is out of reach"))
