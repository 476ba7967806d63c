"""The gateway's event loop: one thread that reads every request and writes every answer, in order of coming.

It is a serial server before and after the lanes. While it is behind, a request lies unread in its socket, and the
gateway, which begins to count when it has read it, does not know for how long: the time is missing from every budget,
and no choice of a variant sees it.

One thread at a time has the interpreter. A lane computes without it, and needs it to hand over what it has: a run that
ends while the loop works is over only when the loop has done what lies before it then. (The switch interval does not
shorten that: it begins anew at each of the loop's calls into the kernel, of which there are several a request; see
``service.engine.giving_way``.) So short runs get longer by the loop's time, long ones hardly, and while the loop reads
a pile, work for a larger batch comes together. A loop with a standing queue of ``LEAST_BURST_S`` turns requests away,
is pressed, and gives way to lanes; then none waits for it.

What it has read it may turn away at once, before the gateway sees it, as the gateway's door does: see
``LateGateway.turns_away``. The refusal lies ready, and writing it costs nothing.

All three figures are a machine's and are measured (``loadtests.serving.calibration``): ``read_s`` and ``reply_s`` of
loop time a request, and ``before_s``, which passes until an idle lane wakes up. The loop's work is first in, first out;
a real loop reads what many sockets hold in one turn and then answers in the next, which moves a request by no more than
a turn.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from heapq import heappush
from typing import TYPE_CHECKING, Final

from loadtests.simulator.result import Outcome
from service.policy.door import LEAST_BURST_S, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.simulator.gateway import Gateway, Place, Request

    TurnsAway = Callable[[Request, float, float], bool]
    """Tells whether a request that waited so long, and has been read now, goes."""

_ADMISSION: Final = -1
"""The place of a lane in an event that is no lane's."""


@dataclass(frozen=True, slots=True)
class LoopCosts:
    """What the event loop costs; see the module. ``knows_unread`` gives the gateway the time that it cannot see."""

    read_s: float
    reply_s: float
    before_s: float = 0.0
    knows_unread: bool = False

    def __post_init__(self) -> None:
        """Refuse a loop that takes no time: its events would have no order."""
        if min(self.read_s, self.reply_s) <= 0.0 or self.before_s < 0.0:
            raise ValueError(f"event loop: read_s and reply_s must be above 0 and nothing below it, got {self}")

    def without_unread(self) -> LoopCosts:
        """Return the same loop in front of a gateway that knows how long a request lay unread."""
        return replace(self, knows_unread=True)


class LoopThread:
    """The thread's time: taken piece by piece, each after the one before."""

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._free_s = 0.0
        self.turns = Turns()

    def take(self, now_s: float, seconds: float) -> float:
        """Do a piece of work that comes now; return when it is done."""
        self._free_s = max(self._free_s, now_s) + seconds
        return self._free_s

    def held_until_s(self, now_s: float) -> float:
        """Return when a lane whose run ends now has the interpreter."""
        is_pressed = now_s < self.turns.pressed_until_s or self._free_s > now_s + LEAST_BURST_S
        return now_s if is_pressed else max(now_s, self._free_s)


class Doorway:
    """Stands before a gateway: a request reaches it when the event loop has read it, unless it is turned away."""

    def __init__(self, gateway: Gateway, place: Place, costs: LoopCosts, turns_away: TurnsAway) -> None:
        """Start with nobody at the door; ``place`` has the loop's thread, and is the gateway's too."""
        self._gateway, self._costs, self._turns_away = gateway, costs, turns_away
        self._thread, self._agenda, self._number = place.thread, place.agenda, place.number
        self._outcome = place.records.outcome
        self._unread: deque[tuple[Request, float]] = deque()

    @property
    def inside(self) -> int:
        """Requests unread, or admitted and unfinished."""
        return self._gateway.inside + len(self._unread)

    def arrive(self, request: Request, now_s: float) -> None:
        """Let a request wait for the loop."""
        self._unread.append((request, now_s))
        heappush(self._agenda, (self._thread.take(now_s, self._costs.read_s), self._number, _ADMISSION, self))

    def finish(self, lane: int, now_s: float) -> None:
        """Hand over the request that has now been read."""
        if lane != _ADMISSION:
            raise ValueError(f"event loop: asked to end a run on lane {lane}, which is the gateway's")
        request, came_s = self._unread.popleft()
        waited_s = now_s - came_s
        if self._turns_away(request, waited_s, now_s):
            self._outcome[request[0]] = Outcome.SHED
            self._thread.turns.press(now_s)
            return
        if self._costs.knows_unread:
            index, kind, budget_s, timeout_s, criticality, luck = request
            request = (index, kind, budget_s - waited_s, timeout_s - waited_s, criticality, luck)
        self._gateway.arrive(request, now_s)
