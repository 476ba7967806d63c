"""The sending process: follow the schedule, whatever the answers do.

It runs alone in a process of its own, pinned to a core, with the garbage collector off while it sends, so that what it
measures is the server. Each request goes out at its moment even if no earlier one has been answered; nothing is ever
held back. Lag, the time by which a request left late, is recorded for each one: it tells whether to believe the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import time
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import uvloop

from loadtests.clients.grpc import GrpcSender
from loadtests.clients.http import HttpSender
from loadtests.h2load import LoadError
from loadtests.pacing import Alarm
from loadtests.recording import Recording, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from loadtests.plan import Job
    from loadtests.recording import Reply

OPEN_S: Final = 60.0
"""Until all connections that a job begins with are open, on however busy a machine."""
_SETTLE_S: Final = 0.1
_PRIORITY: Final = -10
_GRACE_S: Final = 2.0
"""Beyond the timeout: longer than a client takes to give a request up."""


class Sender(Protocol):
    """What sends in one wire form."""

    opened: int

    async def open(self) -> None:
        """Connect; whoever awaits it bounds it, see ``open_sender``."""

    def send(self, index: int, kind: int, row: int) -> None:
        """Send one request now."""

    async def close(self) -> None:
        """Disconnect."""


def main(job: Job, pipe: Connection) -> None:
    """Run a job in this process; send the moment it starts through the pipe, then the recording or a ``LoadError``.

    SIGTERM ends the sending early; what a terminal sends to every process is the starter's to pass on.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        result: Recording | LoadError = uvloop.run(_follow(_prepare(job), pipe.send))
    except OSError as error:
        result = LoadError(f"cannot reach {job.target.address}: {error.strerror or error}")
    pipe.send(result)
    pipe.close()


def _prepare(job: Job) -> Job:
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    with contextlib.suppress(PermissionError):  # a privilege; without it the lag tells whether others got in the way
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        if job.goes_first:
            above = os.sched_getparam(0).sched_priority + 1  # what it measures has inherited the same priority
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(above))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return job


async def open_sender(sender: Sender, within_s: float = OPEN_S) -> None:
    """Open a sender's first connections; where that fails what was opened is closed.

    Raises:
        OSError: Nobody listens there, or whoever does has not let all of them in ``within_s`` seconds.
    """
    try:
        async with asyncio.timeout(within_s) as limit:
            await sender.open()
    except OSError as error:
        await sender.close()
        if not limit.expired():
            raise
        raise OSError(f"{sender.opened} connections are open after {within_s:g} s, and the next one is not") from error


async def _follow(job: Job, on_start: Callable[[float], None]) -> Recording:
    run = _Run(job)
    await open_sender(run.sender)
    gc.collect()
    gc.freeze()
    gc.disable()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.interrupt)
    try:
        return await run.finish(on_start)
    finally:
        await run.sender.close()


class _Run:
    """The schedule's progress."""

    def __init__(self, job: Job) -> None:
        schedule = job.schedule
        self.sender: Sender = (GrpcSender if job.target.protocol == "grpc" else HttpSender)(job, self._done)
        self._times_s = schedule.times_s.tolist()  # plain lists are read faster, one by one, than arrays
        self._kinds = schedule.classes.tolist()
        self._rows = schedule.rows.tolist()
        self._recording = Recording.blank(schedule)
        self._sent_s = self._recording.columns["sent_s"]
        self._next = 0
        self._left = len(schedule)
        self._drain_s = job.timeout_s + _GRACE_S
        self._over = asyncio.Event()
        self._alarm = Alarm(asyncio.get_running_loop(), self._send_due)
        self._start_s = 0.0

    async def finish(self, on_start: Callable[[float], None]) -> Recording:
        """Send everything, wait for what is under way, and return what was seen."""
        recording, cpu_s = self._recording, time.process_time()
        self._start_s = monotonic() + _SETTLE_S
        recording.started_at = time.time() + _SETTLE_S
        on_start(self._start_s)
        if self._left:
            self._alarm.set(self._start_s + self._times_s[0])
            await self._over.wait()
        self._alarm.close()
        unanswered = (recording.status == Status.UNSENT) & ~np.isnan(self._sent_s)
        recording.status[unanswered] = Status.CUT_OFF if recording.is_interrupted else Status.TIMED_OUT
        recording.connections = self.sender.opened
        recording.cpu_s = time.process_time() - cpu_s
        return recording

    def interrupt(self) -> None:
        """Stop sending, and keep what was measured."""
        self._recording.is_interrupted = True
        self._over.set()

    def _send_due(self) -> None:
        if self._over.is_set():
            return
        times_s, index = self._times_s, self._next
        now_s = monotonic() - self._start_s
        while index < len(times_s) and times_s[index] <= now_s:
            self.sender.send(index, self._kinds[index], self._rows[index])
            now_s = monotonic() - self._start_s
            self._sent_s[index] = now_s
            index += 1
        self._next = index
        if index < len(times_s):
            self._alarm.set(self._start_s + times_s[index])
        else:  # a request that is never answered must not keep the run open
            asyncio.get_running_loop().call_later(self._drain_s, self._over.set)

    def _done(self, index: int, at_s: float, status: Status, reply: Reply | None) -> None:
        self._recording.note(index, at_s - self._start_s, status, reply)
        self._left -= 1
        if self._left == 0:
            self._over.set()
