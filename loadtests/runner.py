"""Run a job: start the sending process, read the gateway's metrics meanwhile, and judge whether the run is valid."""

from __future__ import annotations

import math
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests import generator
from loadtests.gateway import scrape
from loadtests.h2load import LoadError
from service.interrupts import on_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from loadtests.gateway import Scrape
    from loadtests.plan import Job
    from loadtests.recording import Recording

_MOST_LAG_S: Final = 1e-3
_MOST_LAG_RATIO: Final = 0.05
_SCRAPES: Final = 20
_SHORTEST_SCRAPE_S: Final = 2.0
_END_S: Final = 60.0
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Lag:
    """How late requests were sent, and the verdict.

    The run is invalid when the 99th percentile of the lag is over 1 ms, or over 5 % of the 99th percentile of the time
    from sending to answer: beyond that the figures would say more about the generator than about the server.
    """

    p50_s: float
    p99_s: float
    most_s: float
    service_p99_s: float
    faults: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Tell whether the run's figures may be believed."""
        return not self.faults


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What came of a job."""

    recording: Recording
    lag: Lag
    scrapes: tuple[Scrape, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Listener:
    """Who wants to hear of a run while it goes on."""

    on_start: Callable[[float], None] = lambda _: None
    """Hears the schedule's start, as a moment of ``time.monotonic``."""
    on_progress: Callable[[float], None] = lambda _: None
    """Hears some times a second how many seconds have passed since then."""


def run_job(job: Job, listener: Listener | None = None) -> Run:
    """Send a job's requests from a process of its own; return when every one has ended.

    Ctrl-C ends the sending, and what was measured is returned.

    Raises:
        LoadError: The server cannot be reached, or the sending process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=generator.main, args=(job, sending), daemon=True)
    scrapes: list[Scrape] = []
    with receiving:
        _keep(scrapes, scrape(job.target.address))
        process.start()
        sending.close()  # so that the end of the process is the end of the pipe
        with on_interrupt(process.terminate):  # after which it sends what it has
            result = _await(receiving, job, scrapes, listener or Listener())
            process.join(_END_S)
    if result is None:
        raise LoadError(f"the sending process ended with status {process.exitcode} and no result")
    if isinstance(result, LoadError):
        raise result
    _keep(scrapes, scrape(job.target.address))
    return Run(result, judge_lag(result), tuple(scrapes))


def judge_lag(recording: Recording) -> Lag:
    """Return how late requests were sent, and what that makes the run."""
    lag_s = recording.measured()["lag_s"]
    lag_s = lag_s[~np.isnan(lag_s)]
    service_s = recording.columns["done_s"] - recording.columns["sent_s"]
    service_s = service_s[~np.isnan(service_s)]
    if not len(lag_s):
        return Lag(0.0, 0.0, 0.0, 0.0, ("nothing was sent",))
    p50_s, p99_s = np.percentile(lag_s, (50, 99)).tolist()
    service_p99_s = float(np.percentile(service_s, 99)) if len(service_s) else np.inf
    faults = []
    if p99_s > _MOST_LAG_S:
        faults.append(f"schedule lag p99 is {p99_s * 1e3:.3f} ms; at most {_MOST_LAG_S * 1e3:g} ms is allowed")
    if p99_s > _MOST_LAG_RATIO * service_p99_s:
        faults.append(
            f"schedule lag p99 is {p99_s / service_p99_s:.1%} of the service time's p99 of "
            f"{service_p99_s * 1e3:.3f} ms; at most {_MOST_LAG_RATIO:.0%} is allowed"
        )
    return Lag(p50_s, p99_s, float(lag_s.max()), service_p99_s, tuple(faults))


def _await(receiving: Connection, job: Job, scrapes: list[Scrape], listener: Listener) -> Recording | LoadError | None:
    """Return what the sending process sends at last, ``None`` if it ended without; read the metrics until then."""
    length_s = float(job.schedule.times_s[-1]) if len(job.schedule) else 0.0
    every_s = max(_SHORTEST_SCRAPE_S, length_s / _SCRAPES)
    start_s, next_s = math.inf, math.inf
    while True:
        if receiving.poll(_POLL_S):
            try:
                said: float | Recording | LoadError = receiving.recv()
            except EOFError:
                return None
            if not isinstance(said, float):
                return said
            start_s, next_s = said, said + every_s
            listener.on_start(start_s)
        now_s = time.monotonic()
        if now_s >= start_s:
            listener.on_progress(now_s - start_s)
        if next_s <= now_s < start_s + length_s:
            _keep(scrapes, scrape(job.target.address))
            next_s += every_s


def _keep(scrapes: list[Scrape], found: Scrape | None) -> None:
    if found is not None:
        scrapes.append(found)
