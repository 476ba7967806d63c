"""Who is turned away at the door: what the event loop reads too late to answer in time.

One thread reads requests, decodes them and writes answers. When more come than it can carry, they wait unread in the
kernel, where routing does not see them: every budget is then missed before it is known, and what is computed is
computed for nobody. Goodput falls to nothing although the lanes have time. So the door measures how late the loop
reads, counts that as part of each request's wait, and turns a request away, before it is decoded, when the wait at the
door has used up more than a share of its budget.

The loop works in turns: it asks the kernel once what is ready, handles all of it, and asks again. What is read in a
turn came after the question of the turn before. So it waited no longer than ``w = (length of the turn before) + (time
since this turn began)``, and on average half of the former less. A request enters while

    w <= max(share * budget, most * (budget - after))

where ``after`` is what the way from the door to the written answer takes, however large the budget. Of a small budget
that is nearly all, and the first term counts. Of a large one it is little; a smaller part would turn away a few clients
with large inputs, whose decoding makes long turns although all are answered in time.

The control is the loop itself, with no rate to estimate. As long as w is small all enter. Then each one that enters
makes w grow by what it costs, until the next is turned away at a tenth of that cost; so a turn does not grow much
beyond that, and the loop always has work: it carries as many as it can, and those with little delay.

That holds while the queue is a standing one, which only adds delay. A burst, or a stall of the machine, is worked off:
until the turns are long in the mean of the last tenth of a second, a request enters unless its whole budget has gone.
This is the idea of CoDel (Nichols and Jacobson, ACM Queue 2012), whose sojourn time is w here, with a mean in place of
the minimum, because a loop that also waits for lanes and for the interpreter sleeps now and then under any load. Less
important requests have the smaller shares, so that they are turned away first.

It is wrong where turning away is itself too dear: at a rate at which refusals alone fill the loop. Then a proxy, or
the kernel's backlog, has to hold clients back.
"""

from __future__ import annotations

from typing import Final

from service.domain.inference import Criticality

SHARES: Final = {Criticality.CRITICAL: 1 / 2, Criticality.NORMAL: 1 / 8, Criticality.SHEDDABLE: 1 / 16}
MOST_SHARES: Final = {Criticality.CRITICAL: 3 / 4, Criticality.NORMAL: 5 / 8, Criticality.SHEDDABLE: 5 / 16}
"""The same of what a budget has beyond ``AFTER_S``."""
AFTER_S: Final = 0.009
LEAST_WAIT_S: Final = 0.001
"""A wait that turns nobody away, however small the budget: timers and the interpreter are no more exact."""
LEAST_BURST_S: Final = 0.05
"""The same where no queue stands: machines stall."""
_SLEPT_S: Final = 0.0003
"""A pause before a turn that only a loop with nothing to do makes."""
_REMEMBERED_S: Final = 0.1
_MOST_WEIGHT: Final = 0.1
"""Of one turn in the mean: a single one that the machine held up says nothing of how long turns usually are."""
_PRESSED_S: Final = 0.05


class Turns:
    """How long the event loop's turns take; moments in seconds on one clock, and used on the loop's thread alone.

    ``more_s`` is how much longer what is being read now is known to have waited: a new connection waits to be taken
    first. Until ``pressed_until_s`` the loop has no time to spare; any thread may look.
    """

    __slots__ = ("_before_s", "_began_s", "_ended_s", "_usual_s", "is_open", "more_s", "pressed_until_s")

    def __init__(self) -> None:
        """Start before the first turn."""
        self.is_open = False
        self.more_s = 0.0
        self.pressed_until_s = float("-inf")
        self._before_s = 0.0
        self._usual_s = 0.0
        self._began_s = self._ended_s = float("-inf")

    def begin(self, now_s: float) -> None:
        """Note that the first thing of a turn is read."""
        took_s, pause_s = self._ended_s - self._began_s, now_s - self._ended_s
        self._before_s = 0.0 if pause_s > _SLEPT_S else took_s
        if self._began_s > 0:  # the mean by time, in which a pause is a turn of no length
            self._usual_s += (took_s - self._usual_s) * min(_MOST_WEIGHT, took_s / _REMEMBERED_S)
            self._usual_s -= self._usual_s * min(1.0, pause_s / _REMEMBERED_S)
        self._began_s, self.is_open = now_s, True

    def end(self, now_s: float) -> None:
        """Note that the turn's reading is over."""
        self._ended_s, self.is_open = now_s, False

    def resume(self, now_s: float) -> None:
        """Note that the loop takes up work that had waited, such as an answer; perhaps it has slept before."""
        if not self.is_open and now_s - self._ended_s > _SLEPT_S:
            self._began_s = now_s
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
        waited_s, most_s = self.waited_s(now_s), most_wait_s(budget_s, criticality)
        if waited_s <= max(LEAST_WAIT_S, most_s):
            return True
        is_standing = self._usual_s > most_s
        # What one connection waited to be taken says nothing of the others: it may have come while we were starting.
        return not is_standing and waited_s - self.more_s <= max(LEAST_BURST_S, budget_s)


def most_wait_s(budget_s: float, criticality: Criticality) -> float:
    """Return how long a request may have waited at the door where a queue stands there."""
    return max(SHARES[criticality] * budget_s, MOST_SHARES[criticality] * (budget_s - AFTER_S))
