"""Shadow runs: answered rows are computed once more, by another variant, where nothing else wants the processor.

One thread of its own computes them, one row at a time, at the lowest priority that the system has (``SCHED_IDLE``, else
nice 19), so that the kernel gives its core to a lane at once. It takes no lock that live requests need, and while it
computes it does not hold the interpreter's. What it cannot help is to hold that for some microseconds around a run; so
no run is started while other programs keep the processors busy (``spare``).

Its CPU time is rationed, with what comparing the answers takes elsewhere: what may be used is a share of all
processors, saved up for half a second at most. Nothing waits for a run. A sample for which there is no time, no room or
no variant in memory is dropped, and counted as what it is. Runs that hang are broken off: a row on which a live run
hung is as likely to be chosen as any other.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from service.engine.backends.backend import Stop
from service.engine.drift.spare import processors
from service.engine.hung_runs import used_cpu_s
from service.policy.pools import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from service.engine.backends.backend import Backend
    from service.engine.drift.taps import Answer, Sample
    from service.engine.loaded import LoadedModel

CPU_RATIO: Final = 0.01
"""Of all processors that the gateway may use."""

OUTCOMES: Final = ("compared", "busy", "no_cpu_time", "full_queue", "stale", "not_held", "failed")

_MOST_QUEUED: Final = 64
_MOST_BYTES: Final = 64 * 2**20
_STALE_S: Final = 2.0
_SAVED_S: Final = 0.5
_NICE: Final = 19
_HANGS_CPU_S: Final = 30.0
"""The ration of one core for nearly an hour: whatever takes so long for one row is of no use, if it ever ends."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One sample, with full's answer, that of each judged variant, and those of all who were asked about them."""

    sample: Sample
    full: tuple[NDArray[Any], ...]
    answers: dict[str, tuple[NDArray[Any], ...]]
    heard: Mapping[str, tuple[NDArray[Any], ...]] = field(default_factory=dict)


class Ration:
    """CPU seconds that may be spent: ``rate`` come each second. One run may go into debt, the next one waits.

    What is not spent is kept for half a second: a longer store would be spent at once when traffic comes back.
    """

    def __init__(self, rate: float, now_s: float) -> None:
        """Start with all that can be saved."""
        self.rate = rate
        self._saved = (_SAVED_S * rate, now_s)
        self._spending = threading.Lock()  # who only looks, as the event loop does, does not wait for it

    def has_some(self, now_s: float) -> bool:
        """Tell whether a run may start."""
        return self._at(now_s) > 0.0

    def spend(self, cpu_s: float, now_s: float) -> None:
        """Take off what a run took."""
        with self._spending:
            self._saved = (self._at(now_s) - cpu_s, now_s)

    def _at(self, now_s: float) -> float:
        saved_s, as_of_s = self._saved
        return min(_SAVED_S * self.rate, saved_s + self.rate * (now_s - as_of_s))


class Shadows:
    """The thread and its queue; ``offer`` is called on the event loop's thread, ``is_calm`` tells of idle lanes."""

    def __init__(self, is_calm: Callable[[], bool], clock: Callable[[], float], cpu_ratio: float = CPU_RATIO) -> None:
        """Take samples; they are computed from ``start`` on."""
        self.has_spare = True
        self.scheduling = "none"
        self.done: SimpleQueue[Compared] = SimpleQueue()
        self._refused: Counter[tuple[str, str, str]] = Counter()  # each is counted by one thread
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._is_calm = is_calm
        self.clock = clock
        self._ration = Ration(cpu_ratio * processors(), clock())
        self._queue: SimpleQueue[Sample | None] = SimpleQueue()
        self._offered_bytes = self._taken_bytes = 0  # each is counted by one thread
        self._is_closed = False
        self._under_way = (Stop(), 0.0)  # of one sample, with the thread's CPU time when it was begun
        self._thread = threading.Thread(target=self._serve, name="shadows", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the thread, and break off what it runs; it is not waited for any longer than this."""
        self._is_closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._under_way[0].set()
            self._thread.join(timeout_s)

    def look(self) -> None:
        """Break off what hangs; call it now and then, from any thread, while the shadows are open."""
        stop, began_cpu_s = self._under_way
        if used_cpu_s(self._thread.native_id or 0) - began_cpu_s > _HANGS_CPU_S:
            stop.set()

    def offer(self, sample: Sample) -> bool:
        """Queue a sample, or count why not; never waits."""
        why = self._why_not(sample)
        if why:
            _count(self._refused, sample, why)
            return False
        self._offered_bytes += sample.size_bytes
        self._queue.put(sample)
        return True

    def charge(self, cpu_s: float) -> None:
        """Take what another thread spent on samples off what runs may spend."""
        self._ration.spend(cpu_s, self.clock())

    def counts(self, model: str, variant: str) -> dict[str, int]:
        """Return how many samples that judge a variant came to each outcome."""
        return {item: sum(part[model, variant, item] for part in (self._refused, self._ended)) for item in OUTCOMES}

    def _why_not(self, sample: Sample) -> str:
        held_bytes = self._offered_bytes - self._taken_bytes
        if self._queue.qsize() >= _MOST_QUEUED or held_bytes + sample.size_bytes > _MOST_BYTES:
            return "full_queue"
        return self._hindrance(sample)

    def _hindrance(self, sample: Sample) -> str:
        if not (self.has_spare and self._is_calm()):
            return "busy"
        if not self._ration.has_some(self.clock()):
            return "no_cpu_time"
        return "" if full_of(sample.model) in sample.model.backends else "not_held"

    def _serve(self) -> None:
        self.scheduling = _step_back()
        counted_s = time.thread_time()
        while (sample := self._queue.get()) is not None:
            self._under_way = (Stop(), counted_s)
            if self._is_closed:  # read after: of this and ``close``, at least one sees what the other wrote
                return
            self._taken_bytes += sample.size_bytes
            is_stale = self.clock() - sample.taken_s > _STALE_S
            _count(self._ended, sample, "stale" if is_stale else self._hindrance(sample) or self._compare(sample))
            before_s, counted_s = counted_s, time.thread_time()
            self.charge(counted_s - before_s)

    def _compare(self, sample: Sample) -> str:
        """Run what is missing of full's answer, of the judged variants' and of their witnesses'; return the outcome."""
        full, model, stop = full_of(sample.model), sample.model, self._under_way[0]
        answers = {sample.variant: sample.outputs}
        try:
            for name in dict.fromkeys((full, *sample.judged)):
                if name in answers:
                    continue
                backend: Backend | None = model.backends.get(name)  # what is held now: nothing is loaded for a shadow
                if backend is None:
                    return "not_held"
                answers[name] = backend.run(sample.inputs, stop)
            heard = _hear(sample, answers[full], answers, stop)
        except Exception:  # noqa: BLE001 - the thread outlives whatever a backend raises
            return "failed"
        self.done.put(Compared(sample, answers[full], {name: answers[name] for name in sample.judged}, heard))
        return "compared"


def _hear(sample: Sample, full: Answer, answers: Mapping[str, Answer], stop: Stop) -> dict[str, Answer]:
    """Return the answers of those who are to be asked about what differs from full, as far as they are in memory."""
    heard, summon = dict(answers), sample.summon
    if summon is None:
        return heard
    for name in sample.judged:
        for witness in summon(name, full, answers[name]):
            backend = sample.model.backends.get(witness)
            if witness not in heard and backend is not None:
                with suppress(Exception):  # who cannot speak must not keep what differs from full from being counted
                    heard[witness] = backend.run(sample.inputs, stop)
    return heard


def _count(counts: Counter[tuple[str, str, str]], sample: Sample, outcome: str) -> None:
    for name in sample.judged:
        counts[sample.model.info.name, name, outcome] += 1


def full_of(model: LoadedModel) -> str:
    """Return the variant that the others are compared with, '' where it is not on this machine."""
    full = next((item.name for item in model.info.variants if item.tier == "full"), "")
    return full if model.standing.pools.get(full, LOCAL) == LOCAL else ""


def _step_back() -> str:
    """Let the calling thread run only where no other wants to; return what the system allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        pass
    else:
        return "idle"
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    except OSError:
        return "normal"
    return "nice"
