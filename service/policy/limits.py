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
from typing import Final

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

    ``work_ahead_s`` is the compute, at the fastest variants, of everything queued that is at least as important and
    running, summed over lanes.
    """

    queued: int
    max_queued: int
    work_ahead_s: float
    lanes: int
    least_important: int

    @property
    def wait_s(self) -> float:
        """How long the newcomer would wait at least."""
        return self.work_ahead_s / max(1, self.lanes)


def judge_arrival(load: Load, fastest_s: float, timeout_s: float, criticality: int) -> Verdict:
    """Decide on a newcomer whose fastest candidate takes ``fastest_s`` and that is useless after ``timeout_s``."""
    if fastest_s > timeout_s:
        return Verdict.INFEASIBLE
    if load.wait_s + fastest_s > timeout_s:
        return Verdict.OVERLOADED
    if load.queued >= load.max_queued:
        return Verdict.DISPLACE if criticality < load.least_important else Verdict.FULL
    return Verdict.ADMIT
