"""What a piece of work takes of the machine: CPU time, and the most memory that the process held meanwhile.

The kernel keeps the high-water mark of a process's resident memory, and Linux lets a process set its own back, so that
a step's peak can be told from that of a step before it. Pieces may lie within each other, as a build's steps within the
build: when one begins, those around it take note of the mark first. Where it cannot be set back it is the process's so
far, which is too much and never too little. The mark is one for all threads; pieces are begun and ended on one.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB: Final = 1024
MINUTE_S: Final = 60.0


@dataclass(slots=True, eq=False)
class Effort:
    """CPU seconds, those of processes that it waited for included, and the largest resident memory of one process.

    Both are set when the piece of work ends, however it ends.
    """

    cpu_s: float = 0.0
    peak_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.cpu_s / MINUTE_S:.1f} CPU-minutes, peak memory {self.peak_bytes / KIB**3:.2f} GiB"


_OPEN: Final[list[Effort]] = []
"""The pieces of work that this process is in, as the mark is one for the process."""


@contextmanager
def watch_effort() -> Iterator[Effort]:
    """Yield what the block takes, to be read when it has ended."""
    include_peak(read_peak())
    reset_peak()
    effort, began_s = Effort(), cpu_time_s()
    _OPEN.append(effort)
    try:
        yield effort
    finally:
        include_peak(read_peak())
        _OPEN.remove(effort)
        effort.cpu_s = cpu_time_s() - began_s


def include_peak(peak_bytes: int) -> None:
    """Count a process that worked for this one: every piece of work that is going on held at least so much."""
    for effort in _OPEN:
        effort.peak_bytes = max(effort.peak_bytes, peak_bytes)


def cpu_time_s() -> float:
    """Return the CPU time of this process, and of its children that ended and were waited for."""
    return sum(os.times()[:4])


def reset_peak() -> None:
    """Set the high-water mark back to what is resident now, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def read_peak() -> int:
    """Return the high-water mark of resident memory, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIB
