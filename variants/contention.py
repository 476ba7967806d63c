"""What other processes take of the cores while something is timed: a busy machine measures wrongly, and should say so.

The load average is no answer: it lags by a minute, and counts whoever is timing. Here it is the time that the cores
which this process may use were busy, less this process's own::

    others = (busy time of the cores - CPU time of this process) / time that went by

Processes, the kernel's own work and what a hypervisor took are in it alike. Where fewer cores are left than threads are
timed, some runs waited for a core. Medians of one thread bear that while it is rare; two threads that wait for each
other do not, and their order among variants is the first thing to be wrong.

The kernel counts busy time in ticks of some 10 ms, so that a watch of a second is right to a few hundredths of a core
and one of milliseconds means nothing. A process of higher priority than the others is not disturbed by what they take,
and this cannot tell; a container that its cgroup throttles is, and this cannot tell either.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN: Final = "measure again on a quiet machine: tiergate measure MODEL"
NOISE_CORES: Final = 0.1
"""A machine on which nothing else runs takes a few hundredths for itself."""
_BUSY: Final = ("user", "nice", "system", "irq", "softirq", "steal")


@dataclass(frozen=True, slots=True)
class Reading:
    """The clock, how long the cores that this process may use were busy so far, and this process's share of that.

    ``busy_s`` is summed over the cores, ``None`` where the system does not tell.
    """

    at_s: float
    busy_s: float | None
    own_s: float


@dataclass(slots=True, eq=False)
class Others:
    """What other processes took, in cores: 1.0 is one core all the time; ``None`` where the system does not tell.

    Set when the watch ends.
    """

    cores: float | None = None


@contextmanager
def watch_others() -> Iterator[Others]:
    """Yield what other processes take of this process's cores in the block, to be read when it has ended."""
    others, before = Others(), _read()
    yield others
    others.cores = others_cores(before, _read())


def others_cores(before: Reading, after: Reading) -> float | None:
    """Return what other processes took of the cores between two readings, in cores."""
    took_s, own_s = after.at_s - before.at_s, after.own_s - before.own_s
    if before.busy_s is None or after.busy_s is None or after.busy_s <= before.busy_s or took_s <= 0.0:
        return None  # cores that were never busy are cores that nobody counts
    return max(0.0, (after.busy_s - before.busy_s - own_s) / took_s)


def doubt(others_cores: float | None, cores: int, threads: int) -> str:
    """Return what makes times of up to ``threads`` threads doubtful, in words.

    Nothing where that many of the ``cores`` were left, or where what others took is not known.
    """
    if others_cores is None or cores - others_cores >= min(threads, cores) - NOISE_CORES:
        return ""
    return (
        f"latency was measured while other processes took {others_cores:.1f} of {cores} cores: times may be too high, "
        "those of several threads above all, and variants in the wrong order"
    )


def _read() -> Reading:
    return Reading(time.monotonic(), _busy_s(), time.process_time())


def _busy_s() -> float | None:
    each = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0)
    if max(mine) >= len(each):  # cores that are switched off have no line, so that numbers are no places any more
        return None
    return sum(getattr(each[core], kind, 0.0) for core in mine for kind in _BUSY)
