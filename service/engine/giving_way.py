"""The event loop gives way to lanes: who needs the interpreter for a moment goes before who needs it all the time.

One thread at a time runs Python. A lane computes without the interpreter and needs it between two runs, to hand over
what it has and to take the next. A busy event loop lets go of it for microseconds only, whenever it calls into the
kernel; a thread that waits is woken each time, finds it taken again, and waits anew: under overload a lane was seen to
wake seven times for each run, with its core idle meanwhile. Python's own remedy, the switch interval, begins anew at
each of these too. So a loop under pressure sleeps when a lane is about to be done, until that is at its next run.

It waits once for each run, and not for long: how long a run takes is a guess.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import Final

_MOST_S: Final = 0.0005


class GivingWay:
    """Who of ``lanes`` lanes computes until about when; moments in seconds on one clock.

    Used from the lanes' threads and the loop's without a lock: what is seen may be a moment old, and costs a short
    sleep more or less.
    """

    def __init__(self, lanes: int, most_s: float = _MOST_S) -> None:
        """Start with lanes at rest; nobody is waited for longer than ``most_s``."""
        self._done_s = [math.inf] * lanes
        self._first_s = math.inf
        self._most_s = most_s
        self._is_waiting = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def computes(self, lane: int, until_s: float) -> None:
        """Note that a lane will not need the interpreter until about a moment; infinity: until it is woken."""
        self._done_s[lane] = until_s
        self._first_s = min(self._done_s)
        if self._is_waiting:
            self._is_waiting = False
            with contextlib.suppress(RuntimeError):  # another lane was quicker
                self._gate.release()

    def give(self, now_s: float) -> bool:
        """Sleep until a lane that should be done by now computes again; tell whether there was one."""
        if now_s < self._first_s:
            return False
        longest = min(range(len(self._done_s)), key=self._done_s.__getitem__)
        self._done_s[longest] = math.inf  # should its run hang, no other lane's next run has it waited for again
        self._first_s = min(self._done_s)
        self._is_waiting = True
        self._gate.acquire(timeout=self._most_s)
        self._is_waiting = False
        return True
