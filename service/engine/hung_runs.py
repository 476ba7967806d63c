"""Runs that hang: found, and given up.

A run of native code ends when it comes back, at the next node of its graph at best. One that takes far longer than
predicted keeps its lane, and the requests that share it, until somebody gives it up: then it is told to end, its
requests go on elsewhere, and another thread serves the lane. What the run returns in the end is thrown away.

What counts is not the time on the clock. A process that was stopped, and a thread that waits for a core on a crowded
machine, are late and do not hang; so a run ages by the time between two looks, twice the usual one at most, less what
its thread waited for a core meanwhile.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.engine.job import Job
    from service.engine.loaded import LoadedModel
    from service.engine.waking import Waking
    from service.policy.desk import Desk

LOOK_EVERY_S: Final = 0.5
_LEAST_S: Final = 1.0
_TIMES_PREDICTED: Final = 20.0


class HungRuns:
    """The runs that hang; ``changed`` is the dispatcher's lock, ``desk`` and ``running`` what it guards."""

    def __init__(self, changed: Waking, desk: Desk[LoadedModel], running: dict[int, Job]) -> None:
        """Start with nothing seen."""
        self._changed = changed
        self._desk = desk
        self._running = running
        self._ages_s: dict[Job, float] = {}
        self._waits_s: Mapping[int, float] = {}
        self._looked_s = math.inf

    def look(self, now_s: float, waits_s: Mapping[int, float]) -> list[Job]:
        """Let the local lanes' runs age, and return those that hang; call it every ``LOOK_EVERY_S``.

        ``waits_s`` is for how long the thread of each lane, by its number, has waited for a core since it began.
        """
        passed_s = max(0.0, min(now_s - self._looked_s, 2 * LOOK_EVERY_S))
        before_s, self._waits_s, self._looked_s = self._waits_s, waits_s, now_s
        with self._changed:
            jobs = [job for job in self._running.values() if job.lane.number in waits_s]
        ages_s = {}
        for job in jobs:  # one that is new was taken some time after the last look
            waited_s = max(0.0, waits_s[job.lane.number] - before_s.get(job.lane.number, 0.0))
            ages_s[job] = self._ages_s[job] + max(0.0, passed_s - waited_s) if job in self._ages_s else 0.0
        self._ages_s = ages_s
        return [job for job, age_s in ages_s.items() if age_s > max(_LEAST_S, _TIMES_PREDICTED * job.run.predicted_s)]

    def give_up(self, job: Job, now_s: float) -> bool | None:
        """Free the lane of a run that hangs and count that against its variant.

        Returns:
            Whether the variant is taken out by this one; ``None`` where the run has just ended after all.
        """
        with self._changed:
            if self._running.pop(id(job), None) is None:
                return None
            job.is_given_up = True
            job.break_off()
            self._desk.end(job.lane, job.model, now_s)
            return job.model.blame(job.run.variant, now_s)


def waited_for_core_s(thread: int) -> float:
    """Return for how long a thread, by its native number, has waited for a core; 0 where the kernel does not say."""
    return _schedule_s(thread, 1)


def used_cpu_s(thread: int) -> float:
    """Return how long a thread, by its native number, has computed; 0 where the kernel does not say."""
    return _schedule_s(thread, 0)


def _schedule_s(thread: int, field: int) -> float:
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[field]) / 1e9
    except (OSError, IndexError):
        return 0.0
