"""Who is let in: admission by queue length and by whether a hard deadline can still be met.

A request that can only fail is refused on arrival, while its client can still go elsewhere. Two cases differ:

* even on an idle machine no candidate would finish by the hard deadline: the deadline is infeasible;
* it would on an idle machine, but not behind the work that is queued even if all of that were served by the fastest
  variants: the server is overloaded, and the estimate of the wait is when to try again.

When the queue is full, a more important newcomer displaces the least important waiting request, which is shed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_RETRY_S: Final = 0.05


class Verdict(Enum):
    """What becomes of a newcomer."""

    ADMIT = auto()
    DISPLACE = auto()
    INFEASIBLE = auto()
    OVERLOADED = auto()
    FULL = auto()


@dataclass(frozen=True, slots=True)
class Load:
    """The queue as a newcomer finds it.

    ``lanes_free_s`` is how long each lane will still be busy; ``work_before_s`` is the compute, at the fastest
    variants, of what is queued and will be served before the newcomer.
    """

    queued: int
    max_queued: int
    lanes_free_s: tuple[float, ...]
    work_before_s: float
    least_important: int

    @property
    def wait_s(self) -> float:
        """How long the newcomer would wait at least."""
        return earliest_start_s(self.lanes_free_s, self.work_before_s)


def earliest_start_s(lanes_free_s: Sequence[float], work_s: float) -> float:
    """Return the earliest moment at which a lane could be free again after ``work_s``, seconds from now.

    A lower bound: the work is poured like water over the lanes, into the one that is free first until it is level with
    the next, and so on. A run that is under way cannot be shared, so it only raises its own lane's floor.
    """
    floors = sorted(lanes_free_s)
    poured_s = 0.0
    for used, floor in enumerate(floors, start=1):
        poured_s += floor
        level = (work_s + poured_s) / used
        if used == len(floors) or level <= floors[used]:
            return max(level, floors[0])
    return work_s


def judge_arrival(load: Load, fastest_s: float, timeout_s: float, criticality: int) -> Verdict:
    """Decide on a newcomer whose fastest candidate takes ``fastest_s`` and that is useless after ``timeout_s``."""
    if fastest_s > timeout_s:
        return Verdict.INFEASIBLE
    if load.wait_s + fastest_s > timeout_s:
        return Verdict.OVERLOADED
    if load.queued >= load.max_queued:
        return Verdict.DISPLACE if criticality < load.least_important else Verdict.FULL
    return Verdict.ADMIT
