"""The dispatcher's lock, and what its lanes wait on: one condition for local lanes, one for each remote variant's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.engine.loaded import LoadedModel


class Waking(threading.Condition):
    """The local lanes' condition, and the others over the same lock.

    A lane that is woken for nothing waits again; so each kind has to be woken by itself, or the one that could do
    something would sleep on.
    """

    def __init__(self) -> None:
        """Make the lock; there are local lanes only."""
        self._guard = threading.RLock()
        super().__init__(self._guard)
        self._pools: dict[str, threading.Condition] = {}

    def add_pool(self, name: str) -> None:
        """Let the lanes of a remote variant wait by themselves."""
        self._pools[name] = threading.Condition(self._guard)

    def drop_pool(self, name: str) -> None:
        """Wake the lanes of a remote variant that is gone, for the last time; the lock is held."""
        if condition := self._pools.pop(name, None):
            condition.notify_all()

    def of(self, pool: str) -> threading.Condition:
        """Return what a lane waits on."""
        return self._pools[pool] if pool else self

    def notify_for(self, models: Iterable[LoadedModel], lanes: int = 1) -> None:
        """Wake so many lanes of each kind that serves one of these models."""
        self.notify(lanes)
        for model in models:
            for pool in model.standing.pools.values():
                if pool in self._pools:
                    self._pools[pool].notify(lanes)

    def notify_all(self) -> None:
        """Wake every lane of every kind."""
        super().notify_all()
        for pool in self._pools.values():
            pool.notify_all()
