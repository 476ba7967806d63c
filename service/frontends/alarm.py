"""A timer for what is awaited at every request and nearly never overdue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Alarm:
    """Calls back once after a time, unless it is stopped or set anew before.

    It is set and stopped at every request, and nearly never rings; so a timer that is running is left to run, and looks
    when it fires how long there is still to wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, call: Callable[[], None]) -> None:
        """Set nothing yet."""
        self._loop = loop
        self._after_s = after_s
        self._call = call
        self._due_s: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def is_set(self) -> bool:
        """Tell whether it will ring."""
        return self._due_s is not None

    def set(self) -> None:
        """Ring after the time, from now."""
        self._due_s = self._loop.time() + self._after_s
        if self._handle is None:
            self._handle = self._loop.call_later(self._after_s, self._fire)

    def stop(self) -> None:
        """Do not ring."""
        self._due_s = None

    def discard(self) -> None:
        """Do not ring, and leave no timer behind."""
        self._due_s = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        if self._due_s is None:
            return
        left_s = self._due_s - self._loop.time()
        if left_s > 0:
            self._handle = self._loop.call_later(left_s, self._fire)
            return
        self._due_s = None
        self._call()
