"""Runs that are calls to other servers: their lanes, their cancelling, and what happens when no server is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.domain.errors import ModelNotReady
from service.engine.parking import narrow
from service.engine.ticket import give_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from concurrent.futures import Future

    from service.engine.backends.backend import RemoteBackend
    from service.engine.job import Job
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.engine.waking import Waking
    from service.policy.desk import Desk, Lane


class Calls:
    """The calls under way; ``changed`` is the dispatcher's lock, ``desk`` and ``running`` what it guards."""

    def __init__(self, changed: Waking, desk: Desk[LoadedModel], running: Mapping[int, Job]) -> None:
        """Start without remote variants."""
        self._changed = changed
        self._desk = desk
        self._running = running
        self._hire: Callable[[Iterable[Lane]], None] | None = None

    def add_pool(self, name: str, lanes: int) -> None:
        """Add the lanes of a remote variant, with a thread for each once there are threads; none is usable yet."""
        with self._changed:
            pool = self._desk.add_pool(name, lanes)
            self._changed.add_pool(name)
            if self._hire is not None:
                self._hire(pool.lanes)

    def drop_pool(self, name: str) -> None:
        """Let the lanes of a remote variant go on which nothing depends; their threads end."""
        with self._changed:
            self._desk.drop_pool(name)
            self._changed.drop_pool(name)

    def serve_pools(self, hire: Callable[[Iterable[Lane]], None]) -> None:
        """Have ``hire`` start a thread for every lane that calls another server, now and whenever there are more."""
        with self._changed:
            self._hire = hire
            for pool in self._desk.pools.values():
                hire(pool.lanes)

    def attach(self, job: Job, call: Future[Any]) -> None:
        """Note a job's call: it is cancelled where all who wait for it have ended."""
        with self._changed:
            job.call = call
            job.drop_if_unwanted()

    def strand(self, ticket: Ticket) -> bool:
        """Leave a ticket that is to wait what can be reached; tell whether nothing can. The lock is held."""
        away = self.away(ticket.model)
        return bool(away) and not narrow(ticket, away)

    def away(self, model: LoadedModel) -> list[str]:
        """Return the variants of a model of which no server is up. The lock is held."""
        pools = self._desk.pools
        return [
            name
            for name, pool in model.standing.pools.items()
            if (found := pools.get(pool)) is None or not found.usable
        ]

    def depend_on(self, remote: RemoteBackend) -> bool:
        """Tell whether something that waits or runs belongs to a model that has this remote variant."""
        with self._changed:
            models = {*self._desk.models, *(job.model for job in self._running.values())}
            return any(remote is item for model in models for item in model.remote.values())

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
            give_up(ticket, out_of_reach(ticket))


def out_of_reach(ticket: Ticket) -> ModelNotReady:
    """Return the error of a request that only servers could answer that are away."""
    names = ", ".join(f"'{name}'" for name in ticket.waiting.candidates)
    return ModelNotReady(f"variant {names} of model '{ticket.request.model}' is out of reach")
