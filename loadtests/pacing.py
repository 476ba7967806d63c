"""Wake an event loop at exact moments.

Event loops count in whole milliseconds (epoll and libuv both), which alone would spend the allowed schedule lag, and
spinning until a moment comes would take a core from the server under test. A Linux timer file descriptor has the
kernel's own resolution, some tens of microseconds in practice, and costs nothing while it waits.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_NONBLOCK: Final = os.O_NONBLOCK
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE: Final = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Alarm:
    """Calls ``ring`` in the event loop once the monotonic clock reaches the moment last set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        """Make the timer; nothing is armed yet."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = loop
        self._ring = ring
        self._spec = _TimerSpec()
        loop.add_reader(self._fd, self._expired)

    def set(self, at_s: float) -> None:
        """Ring at a moment of ``time.monotonic``; a past one rings at once. Replaces the moment set before."""
        whole = int(at_s)
        self._spec.value.seconds = whole
        self._spec.value.nanoseconds = max(int((at_s - whole) * 1e9), 0 if whole else 1)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._spec), None)

    def close(self) -> None:
        """Give the timer back."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew since it rang
            return
        self._ring()
