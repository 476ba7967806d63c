"""When a client gives up: one timeout for all requests of a run, so the oldest always stand first in a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Final, Protocol

_SWEEP_S: Final = 0.02
_GRACE_S: Final = 1.0
"""Beyond the timeout that the server was told, so that its own verdict has time to arrive."""


class Expirable(Protocol):
    """A connection that can be told to give a request up."""

    def expire(self, key: int) -> None:
        """Give the request up; does nothing where it has ended."""


class Deadlines:
    """The requests under way, by the moment at which they are given up; swept fifty times a second."""

    def __init__(self, timeout_s: float) -> None:
        """Start sweeping in the running event loop."""
        self._after_s = timeout_s + _GRACE_S
        self._waiting: deque[tuple[float, int, Expirable]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def add(self, key: int, connection: Expirable) -> None:
        """Tell the connection to expire the request, when its time is over."""
        self._waiting.append((monotonic() + self._after_s, key, connection))

    def close(self) -> None:
        """Stop sweeping."""
        self._timer.cancel()

    def _sweep(self) -> None:
        now_s = monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, key, connection = self._waiting.popleft()
            connection.expire(key)
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)
