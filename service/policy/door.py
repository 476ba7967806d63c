"""Who is turned away at the door: what the event loop reads too late to answer in time.

One thread reads requests, decodes them and writes answers. When more come than it can carry, they wait unread in the
kernel, where routing does not see them: every budget is then missed before it is known, and what is computed is
computed for nobody. Goodput falls to nothing although the lanes have time. So the door measures how late the loop
reads, counts that as part of each request's wait, and turns a request away, before it is decoded, when the wait at the
door has used up more than a share of its budget.

The loop works in turns: it asks the kernel once what is ready, handles all of it, and asks again. What is read in a
turn came after the question of the turn before. So it waited no longer than ``w = (length of the turn before) + (time
since this turn began)``, and on average half of the former less. A request enters while

    w <= share * budget

The control is the loop itself, with no rate to estimate. As long as w is small all enter. Then each one that enters
makes w grow by what it costs, until the next is turned away at a tenth of that cost; so a turn does not grow much
beyond ``share * budget``, and the loop always has work: it carries as many as it can, and those with little delay.

The share is large as long as the loop finds time to sleep: then what waits is a burst, and will be served. When it has
not slept for some budgets the queue is a standing one, which only adds delay, and the share becomes small; that is
the idea of CoDel (Nichols and Jacobson, ACM Queue 2012), whose sojourn time is w here. Less important requests have the
smaller shares, so that they are turned away first. In a simulated loop of 0.33 ms a request and 10 ms of budget, one
share of 1/4 loses 2.9 % of what comes at 80 % load, 1/2 that becomes 1/8 after four budgets 0.4 %; at three times the
capacity they carry the same.

It is wrong where turning away is itself too dear: at a rate at which refusals alone fill the loop. Then a proxy, or
the kernel's backlog, has to hold clients back.
"""

from __future__ import annotations

from typing import Final

from service.domain.inference import Criticality

IN_BURSTS: Final = {Criticality.CRITICAL: 1 / 2, Criticality.NORMAL: 1 / 4, Criticality.SHEDDABLE: 1 / 8}
STANDING: Final = {Criticality.CRITICAL: 1 / 2, Criticality.NORMAL: 1 / 8, Criticality.SHEDDABLE: 1 / 16}
_BURST_BUDGETS: Final = 4.0
LEAST_WAIT_S: Final = 0.001
"""A wait that turns nobody away, however small the budget: timers and the interpreter are no more exact."""
_SLEPT_S: Final = 0.0003
"""A pause before a turn that only a loop with nothing to do makes."""
_PRESSED_S: Final = 0.05


class Turns:
    """How long the event loop's turns take; moments in seconds on one clock, and used on the loop's thread alone.

    ``more_s`` is how much longer what is being read now is known to have waited: a new connection waits to be taken
    first. Until ``pressed_until_s`` the loop has no time to spare; any thread may look.
    """

    __slots__ = ("_before_s", "_began_s", "_ended_s", "_slept_s", "is_open", "more_s", "pressed_until_s")

    def __init__(self) -> None:
        """Start before the first turn."""
        self.is_open = False
        self.more_s = 0.0
        self.pressed_until_s = float("-inf")
        self._before_s = 0.0
        self._began_s = self._ended_s = self._slept_s = float("-inf")

    def begin(self, now_s: float) -> None:
        """Note that the first thing of a turn is read."""
        took_s = self._ended_s - self._began_s if self._began_s > 0 else 0.0
        self._before_s = took_s
        if now_s - self._ended_s > _SLEPT_S:
            self._before_s, self._slept_s = 0.0, now_s
        self._began_s, self.is_open = now_s, True

    def end(self, now_s: float) -> None:
        """Note that the turn's reading is over."""
        self._ended_s, self.is_open = now_s, False

    def resume(self, now_s: float) -> None:
        """Note that the loop takes up work that had waited, such as an answer; perhaps it has slept before."""
        if not self.is_open and now_s - self._ended_s > _SLEPT_S:
            self._began_s = self._slept_s = now_s
        self._ended_s = now_s

    def work(self, now_s: float) -> None:
        """Note that the loop has worked until now, since it read or since ``resume``."""
        self._ended_s = now_s

    def waited_s(self, now_s: float) -> float:
        """Return how long what is read now may have waited at most."""
        return self._before_s + now_s - self._began_s + self.more_s

    def came_s(self, now_s: float) -> float:
        """Return when what is read in this turn came, on average; now where nothing is being read."""
        return self._began_s - self._before_s / 2 - self.more_s if self.is_open else now_s

    def press(self, now_s: float) -> None:
        """Note that somebody was turned away: the loop has no time to spare for a while."""
        self.pressed_until_s = now_s + _PRESSED_S

    def may_enter(self, now_s: float, budget_s: float, criticality: Criticality) -> bool:
        """Tell whether a request that is read now may come in."""
        is_burst = now_s - self._slept_s <= _BURST_BUDGETS * budget_s
        share = (IN_BURSTS if is_burst else STANDING)[criticality]
        return self.waited_s(now_s) <= max(LEAST_WAIT_S, share * budget_s)
