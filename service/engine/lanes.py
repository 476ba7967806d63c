"""Lanes: one pinned thread each, computing what the dispatcher hands out.

A failed run is not the end of its requests. Those that shared it are tried again alone; one that fails alone is tried
on its next candidate. Only when that succeeds was the first variant at fault, else the request was: so a poisoned
request cannot take a variant out of service, and is given up after failing alone twice.

A run that hangs is given up: all that shared it go to their next candidates, once, and a fresh thread serves the lane.
The stuck one ends when it comes back, if it ever does.

Lanes that call a remote variant wait for the other server instead. Where that cannot be reached, what is in the request
has nothing to do with it: all that shared the run go to their next candidates at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from service.domain.errors import BackendFailed, RemoteUnavailable
from service.domain.observer import RunReport
from service.engine.backends.backend import Call
from service.engine.batch import join_inputs, split_outputs
from service.engine.cascade import is_unsure
from service.engine.hung_runs import LOOK_EVERY_S, waited_for_core_s
from service.engine.ticket import Outcome, deliver, settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from service.domain.observer import Observer
    from service.engine.dispatcher import Dispatcher
    from service.engine.job import Job
    from service.engine.ticket import Ticket
    from service.policy.desk import Lane

_MOST_FAILURES_ALONE: Final = 2
_MOST_LEFT_PER_LANE: Final = 2
"""Threads that hang; each may hold the memory of a run, and a core."""
_LEAST_PRIORITY: Final = 19
_ASKED_FROM_S: Final = 1e-4
"""Asking for a thread's CPU time takes half a microsecond, twice; shorter runs are charged the time on the clock."""


class Lanes:
    """The worker threads; ``cores`` names the core of each lane, ``None`` leaves a lane unpinned.

    ``stuck`` are threads whose runs hang, and whose lanes others serve.
    """

    def __init__(self, dispatcher: Dispatcher, cores: Sequence[int | None], observer: Observer) -> None:
        """Make one thread for each lane of this machine; ``start`` runs them, and those of lanes elsewhere."""
        self._dispatcher = dispatcher
        self._observer = observer
        pairs = [*zip(dispatcher.desk.lanes, cores, strict=True)]
        self._cores = {lane.number: core for lane, core in pairs}
        self._threads = {lane.number: self._thread(lane, core) for lane, core in pairs}
        self.stuck: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads.values():
            thread.start()
        self._dispatcher.calls.serve_pools(self._hire)

    def close(self, timeout_s: float | None = None) -> None:
        """Close the dispatcher, let running work finish, and end the threads.

        After ``timeout_s`` a lane that still computes is left behind; its thread does not keep the process alive.
        """
        self._dispatcher.close()
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for thread in list(self._threads.values()):
            thread.join(None if timeout_s is None else max(0.0, end_s - time.monotonic()))

    def look(self) -> None:
        """Give up the runs that hang: their requests go on elsewhere, and fresh threads serve their lanes."""
        self.stuck = [thread for thread in self.stuck if thread.is_alive()]
        for job in self._dispatcher.hung.look(self._dispatcher.clock(), self._waits_s()):
            if len(self.stuck) >= _MOST_LEFT_PER_LANE * len(self._cores):
                return  # hard deadlines end what waits
            is_out = self._dispatcher.hung.give_up(job, self._dispatcher.clock())
            if is_out is not None:
                self._replace(job, is_out=is_out)

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def execute(self, job: Job) -> None:
        """Compute a job on the calling thread and give every request its outcome."""
        clock, variant = self._dispatcher.clock, job.run.variant
        started_s = joined_s = clock()
        queued, thread_s = len(job.model.queue), _thread_s(job)
        try:
            inputs = join_inputs(job.tickets)
            joined_s = clock()
            if job.lane.number in self._cores:
                self._dispatcher.giving_way.computes(job.lane.number, joined_s + job.typical_s)
            outputs = self._call(job, inputs) if job.lane.pool else job.model.backends[variant].run(inputs, job.stop)
            computed_s = clock()
            cpu_s = computed_s - joined_s if thread_s is None else time.thread_time() - thread_s
            parts = split_outputs(outputs, job.tickets)
        except Exception as error:  # noqa: BLE001 - a lane outlives whatever a backend raises
            is_broken_off = job.is_broken_off
            self._dispatcher.finish(job, clock() - joined_s if is_broken_off else None)
            if job.is_given_up:
                return
            report = _report(job, (started_s, joined_s, clock()), clock())
            report.failed = True
            report.cpu_s = report.compute_s if thread_s is None else time.thread_time() - thread_s
            self._observer.run_finished(report)
            if not is_broken_off:  # else its requests have ended, and it tells nothing of its variant
                for ticket in job.tickets:
                    self._retry(ticket, job, error)
            return
        at_fault = self._dispatcher.finish(job, computed_s - joined_s)
        if job.is_given_up:
            return
        for name in at_fault:
            self._observer.variant_failed(job.model.info.name, name, "its runs fail where another variant's succeed")
        report = _report(job, (started_s, joined_s, computed_s), clock())
        report.queued, report.cpu_s = queued, cpu_s
        self._observer.run_finished(report)
        outcomes = [
            (ticket, _outcome(job, ticket, part, report, started_s))
            for ticket, part in zip(job.tickets, parts, strict=True)
        ]
        if job.run.plan:
            outcomes = self._escalate(job, outcomes)
        if outcomes:
            deliver(outcomes)

    def _call(self, job: Job, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        asked = Call(inputs, job.deadline_s - self._dispatcher.clock(), _has_other_way(job), _traceparent(job))
        call = job.model.remote[job.run.variant].begin(asked)
        self._dispatcher.calls.attach(job, call)
        return call.result()

    def _thread(self, lane: Lane, core: int | None) -> threading.Thread:
        return threading.Thread(target=self._serve, args=(lane, core), name=f"lane-{lane.number}", daemon=True)

    def _hire(self, lanes: Iterable[Lane]) -> None:
        """Start a thread for each of these lanes; the dispatcher's lock is held. Those of lanes that are gone go."""
        stay = {
            number: thread for number, thread in self._threads.items() if number in self._cores or thread.is_alive()
        }
        hired = {lane.number: self._thread(lane, None) for lane in lanes}
        self._threads = stay | hired
        for thread in hired.values():
            thread.start()

    def _waits_s(self) -> dict[int, float]:
        return {number: waited_for_core_s(self._threads[number].native_id or 0) for number in self._cores}

    def _replace(self, job: Job, *, is_out: bool) -> None:
        name, variant, lane = job.model.info.name, job.run.variant, job.lane
        stuck = self._threads[lane.number]
        with contextlib.suppress(OSError):  # it ends just now; else it shall not take the core from the next
            os.setpriority(os.PRIO_PROCESS, stuck.native_id or 0, _LEAST_PRIORITY)
        self.stuck.append(stuck)
        fresh = self._threads[lane.number] = self._thread(lane, self._cores[lane.number])
        fresh.start()
        self._observer.lane_replaced(name, variant, len(self.stuck))
        if is_out:
            self._observer.variant_failed(name, variant, "its runs hang")
        for ticket in job.tickets:
            self._retry(ticket, job, BackendFailed(f"a run of variant '{variant}' hung"))

    def _serve(self, lane: Lane, core: int | None) -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})  # 0 is the calling thread
        while (job := self._dispatcher.take(lane)) is not None:
            try:
                self.execute(job)
            except Exception as error:  # noqa: BLE001 - a lane outlives a mistake in what follows its runs
                self._observer.variant_failed(job.model.info.name, job.run.variant, f"after a run: {error!r}")
                for ticket in job.tickets:
                    ticket.fail(BackendFailed(f"{type(error).__name__} after a run"))
            if job.is_given_up:
                return  # another thread serves the lane

    def _escalate(self, job: Job, outcomes: Sequence[tuple[Ticket, Outcome]]) -> list[tuple[Ticket, Outcome]]:
        plan, sure = job.model.plans[job.run.plan], []
        for ticket, outcome in outcomes:
            if is_unsure(outcome.outputs, plan.margin):
                self._dispatcher.escalate(ticket, outcome, plan)
            else:
                sure.append((ticket, outcome))
        return sure

    def _retry(self, ticket: Ticket, job: Job, error: Exception) -> None:
        if ticket.done.done():
            return  # its client left or its deadline passed
        if ticket.kept is not None:
            settle(ticket)
            return
        is_away = isinstance(error, RemoteUnavailable)
        if is_away or job.is_given_up or len(job.tickets) == 1:
            ticket.failed_on.append(job.run.variant)
        left = job.model.without(ticket.waiting.candidates, ticket.failed_on)
        if not left or len(ticket.failed_on) >= _MOST_FAILURES_ALONE:
            ticket.fail(
                error if isinstance(error, BackendFailed) else BackendFailed(f"{type(error).__name__} in a run")
            )
            return
        ticket.waiting = replace(ticket.waiting, candidates=left, may_share=is_away and ticket.waiting.may_share)
        self._dispatcher.resubmit(ticket)


def _has_other_way(job: Job) -> bool:
    """Tell whether all of a run's requests would be left a candidate where its variant fails."""
    variants = [[*ticket.failed_on, job.run.variant] for ticket in job.tickets]
    pairs = zip(job.tickets, variants, strict=True)
    return all(ticket.kept or job.model.without(ticket.waiting.candidates, failed) for ticket, failed in pairs)


def _traceparent(job: Job) -> str:
    """Return the header of the first traced request: one call has one parent."""
    traces = (ticket.request.trace for ticket in job.tickets)
    return next((trace.response_header for trace in traces if trace is not None), "")


def _thread_s(job: Job) -> float | None:
    """Return the CPU time of this thread so far, ``None`` where a run is so short that asking would cost too much."""
    return time.thread_time() if job.run.predicted_s >= _ASKED_FROM_S else None


def _report(job: Job, moments: tuple[float, float, float], now_s: float) -> RunReport:
    started_s, joined_s, computed_s = moments
    rows = sum(ticket.waiting.rows for ticket in job.tickets)
    ended = sum(ticket.waiting.rows for ticket in job.tickets if ticket.is_over)
    return RunReport(
        model=job.model.info.name,
        variant=job.run.variant,
        rows=rows,
        requests=len(job.tickets),
        input_s=joined_s - started_s,
        compute_s=computed_s - joined_s,
        output_s=now_s - computed_s,
        predicted_s=job.typical_s,
        decision_s=job.decision_s,
        started_s=started_s,
        unwanted_s=(computed_s - joined_s) * ended / rows,
    )


def _outcome(
    job: Job, ticket: Ticket, outputs: tuple[NDArray[Any], ...], report: RunReport, started_s: float
) -> Outcome:
    kept = ticket.kept
    return Outcome(
        variant=job.run.variant,
        outputs=outputs,
        started_s=kept.started_s if kept else started_s,
        compute_s=report.compute_s + (kept.compute_s if kept else 0.0),
        predicted_s=job.typical_s + (started_s - kept.started_s if kept else 0.0),
        batch_size=report.rows,
        is_late=job.run.is_late,
        is_fallback=bool(ticket.failed_on),
        is_cascaded=kept is not None,
        plan=ticket.plan if kept else job.model.plans.get(job.run.plan),
        runs=(*kept.runs, report) if kept else (report,),
    )
