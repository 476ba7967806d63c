"""Where admitted requests and free lanes meet.

Late binding happens here: requests wait in their model's deadline queue without a variant; a lane that becomes free
takes what ``policy.scheduling`` says should run now. One lock guards the queues, the lanes' state and the models'
corrections; it is held for decisions only, never while something computes.

A request's place is freed when its client leaves or its hard deadline passes. A run that is under way is finished and
its result for that request thrown away.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.domain.errors import DeadlineExceeded, Draining, Overloaded
from service.domain.inference import Criticality
from service.policy.limits import LEAST_RETRY_S, Load, Verdict, earliest_start_s, judge_arrival
from service.policy.scheduling import Run, Situation, choose_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.domain.observer import Observer
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.policy.scheduling import ChooseRun

_LOOKED_AT: Final = 256
"""Tickets of one queue that a decision sees; more than policy's own look-ahead, for late work."""

_STALL_S: Final = 0.02
"""A run on the event loop's thread that takes this long has stalled everything; its like goes to a lane."""


@dataclass(slots=True, eq=False)
class LaneState:
    """What is known of one lane: busy until about ``free_s``; ``busy_s`` sums its computing so far."""

    number: int
    free_s: float = 0.0
    is_busy: bool = False
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A run that a lane has taken."""

    lane: LaneState
    model: LoadedModel
    run: Run
    tickets: Sequence[Ticket]
    taken_s: float
    decision_s: float


class Dispatcher:
    """The queues and the lanes' state; every method may be called from any thread.

    ``policy`` decides what a free lane runs. ``inline_s`` is the predicted compute time up to which an idle machine's
    request is computed on the thread that brought it, because handing it to a lane and back would take longer.
    """

    def __init__(
        self,
        lanes: int,
        observer: Observer,
        clock: Callable[[], float],
        inline_s: float = 0.0,
        policy: ChooseRun = choose_run,
    ) -> None:
        """Start with idle lanes and empty queues."""
        self.lanes = tuple(LaneState(number) for number in range(lanes))
        self.clock = clock
        self.inline_s = inline_s
        self._inline = LaneState(-1)
        self._running: dict[int, Job] = {}
        self._choose_run = policy
        self._observer = observer
        self._changed = threading.Condition()
        self._models: dict[LoadedModel, None] = {}
        self._is_closed = False

    def submit(self, ticket: Ticket, *, may_inline: bool = True) -> Job | None:
        """Let a ticket in; return its job where the caller should compute it at once, else wake a lane.

        Raises:
            DeadlineExceeded: No variant could answer before the hard deadline even on an idle machine.
            Overloaded: Behind the work that is queued none could, or the queue is full.
            Draining: The dispatcher is closed.
        """
        with self._changed:
            if self._is_closed:
                raise Draining("the server is shutting down")
            displaced = self._admit(ticket)
            ticket.met_idle = not self._models and any(not lane.is_busy for lane in self.lanes)
            self._push(ticket)
            if may_inline and ticket.met_idle and self._may_inline(ticket):
                job = self._take_inline(ticket)
                if job is not None:
                    return job
            self._changed.notify()
        if displaced is not None:
            self._shed(displaced, "displaced")
            displaced.fail(Overloaded("displaced by a more critical request", LEAST_RETRY_S))
        return None

    def resubmit(self, ticket: Ticket) -> None:
        """Let a ticket wait again after a failed run, unless its end is decided; it is not judged a second time."""
        with self._changed:
            if ticket.is_over:
                return
            if not self._is_closed:
                self._push(ticket)
                self._changed.notify()
                return
        ticket.fail(Draining("the server is shutting down"))

    def take(self, lane: LaneState) -> Job | None:
        """Wait for work and return what the lane runs now; ``None`` when the dispatcher is closed and empty."""
        with self._changed:
            while True:
                model = self._next_model()
                if model is not None:
                    job = self._choose(model, lane)
                    if job is not None:
                        return job
                elif self._is_closed:
                    return None
                else:
                    self._changed.wait()

    def finish(self, job: Job, compute_s: float | None) -> list[str]:
        """Free the job's lane and learn from its compute time; ``None`` for a failed run.

        Returns:
            The variants taken out because the job's requests failed on them and succeeded here.
        """
        with self._changed:
            now_s = self.clock()
            self._running.pop(id(job), None)
            if job.lane is self._inline and now_s - job.taken_s > _STALL_S:
                job.model.bar_inline(now_s)
            job.lane.is_busy = False
            job.lane.busy_s += now_s - job.taken_s
            if compute_s is None:
                return []
            rows = sum(ticket.waiting.rows for ticket in job.tickets)
            job.model.learn(job.run.variant, rows, compute_s, now_s)
            at_fault = [name for ticket in job.tickets for name in ticket.failed_on]
            return [name for name in at_fault if job.model.blame(name, now_s)]

    def cancel(self, ticket: Ticket) -> None:
        """Free a ticket's place; its result, if it is being computed, is thrown away."""
        with self._changed:
            ticket.is_over = True
            self._remove(ticket)

    def expire(self, ticket: Ticket) -> None:
        """End a ticket whose hard deadline has passed, unless it has just ended otherwise."""
        with self._changed:
            if ticket.is_over or ticket.done.done():
                return
            ticket.is_over = True
            was_waiting = self._remove(ticket)
        self._observer.request_expired(ticket.request.model, was_running=not was_waiting)
        ticket.fail(_expired(ticket))

    def close(self) -> None:
        """Refuse newcomers and what still waits; ``take`` returns ``None`` to the lanes."""
        with self._changed:
            self._is_closed = True
            left = [ticket for model in self._models for ticket in model.queue.take_all()]
            for ticket in left:
                ticket.is_over = True
            self._models = {}
            self._changed.notify_all()
        for ticket in left:
            ticket.fail(Draining("the server is shutting down"))

    def abandon(self) -> None:
        """End every ticket, the running ones too, whose results are thrown away; then close."""
        with self._changed:
            running = [ticket for job in self._running.values() for ticket in job.tickets]
            for ticket in running:
                ticket.is_over = True
        for ticket in running:
            ticket.fail(Draining("the server is shutting down"))
        self.close()

    def depths(self) -> dict[str, int]:
        """Return how many tickets wait, by model."""
        with self._changed:
            # A reloaded model is here twice while its old queue drains.
            result: dict[str, int] = {}
            for model in self._models:
                result[model.info.name] = result.get(model.info.name, 0) + len(model.queue)
            return result

    def wait_s(self) -> float:
        """Return how long a normal newcomer would wait at least."""
        with self._changed:
            queued_s = sum(model.queue.work_s(Criticality.NORMAL) for model in self._models)
            return earliest_start_s(self._lanes_busy_s(self.clock()), queued_s)

    # Everything below runs with the lock held, but _shed needs no lock.

    def _next_model(self) -> LoadedModel | None:
        now_s = self.clock()
        for model in self._models:
            model.queue.set_late_aside(now_s)
        return min(self._models, key=lambda item: item.queue.head.order, default=None)

    def _push(self, ticket: Ticket) -> None:
        ticket.model.queue.push(ticket)
        self._models[ticket.model] = None

    def _remove(self, ticket: Ticket) -> bool:
        was_waiting = ticket.model.queue.remove(ticket)
        if not ticket.model.queue:
            self._models.pop(ticket.model, None)
        return was_waiting

    def _lanes_busy_s(self, now_s: float) -> tuple[float, ...]:
        return tuple(max(0.0, lane.free_s - now_s) if lane.is_busy else 0.0 for lane in self.lanes)

    def _load(self, ticket: Ticket, now_s: float) -> Load:
        queue, lanes_busy_s = ticket.model.queue, self._lanes_busy_s(now_s)
        # All that waits is more than what is served before the newcomer; where even that leaves time, nobody counts.
        queued_s = sum(model.queue.work_s(Criticality.SHEDDABLE) for model in self._models)
        left_s = ticket.waiting.deadline_s - now_s - ticket.fastest_s
        if queued_s and earliest_start_s(lanes_busy_s, queued_s) > left_s:
            is_late = now_s + ticket.fastest_s > ticket.waiting.due_s
            due_s = math.inf if is_late else ticket.waiting.due_s
            criticality = Criticality.SHEDDABLE if is_late else ticket.criticality
            queued_s = sum(model.queue.work_before_s(criticality, due_s) for model in self._models)
        return Load(len(queue), ticket.model.policy.max_queued, lanes_busy_s, queued_s, queue.lowest_criticality)

    def _admit(self, ticket: Ticket) -> Ticket | None:
        now_s, queue = self.clock(), ticket.model.queue
        load = self._load(ticket, now_s)
        timeout_s = ticket.waiting.deadline_s - now_s
        verdict = judge_arrival(load, ticket.fastest_s, timeout_s, ticket.criticality)
        if verdict is Verdict.INFEASIBLE:
            raise DeadlineExceeded(
                f"model '{ticket.request.model}' needs {ticket.fastest_s * 1e3:.3f} ms at least; the deadline leaves "
                f"{max(0.0, timeout_s) * 1e3:.3f} ms"
            )
        if verdict in (Verdict.OVERLOADED, Verdict.FULL):
            self._shed(ticket, "overloaded" if verdict is Verdict.OVERLOADED else "queue_full")
            raise Overloaded(
                f"model '{ticket.request.model}' has {load.queued} requests waiting (at most {load.max_queued}); "
                f"this one would start in {load.wait_s * 1e3:.1f} ms and needs {ticket.fastest_s * 1e3:.3f} ms"
                f"{f' of the {timeout_s * 1e3:.1f} ms left' if verdict is Verdict.OVERLOADED else ''}",
                retry_after_s=max(LEAST_RETRY_S, load.wait_s),
            )
        if verdict is Verdict.DISPLACE:
            displaced = queue.least_important
            displaced.is_over = True
            queue.remove(displaced)
            return displaced
        return None

    def _may_inline(self, ticket: Ticket) -> bool:
        model, rows, now_s = ticket.model, ticket.waiting.rows, self.clock()
        return any(model.may_inline(name, rows, self.inline_s, now_s) for name in ticket.waiting.candidates)

    def _take_inline(self, ticket: Ticket) -> Job | None:
        # The caller's thread is no lane: a lane that it borrowed could be woken and be busy twice.
        lane = self._inline
        situation = self._situation(ticket.model, lane)
        run = self._choose_run([ticket.waiting], situation)
        if run is None:
            return None
        if not ticket.model.may_inline(run.variant, ticket.waiting.rows, self.inline_s, situation.now_s):
            return None
        return self._start(ticket.model, run, lane, situation.now_s)

    def _choose(self, model: LoadedModel, lane: LaneState) -> Job | None:
        situation = self._situation(model, lane)
        run = self._choose_run(model.queue.waiting(_LOOKED_AT), situation)
        if run is not None:
            return self._start(model, run, lane, situation.now_s)
        for ticket in model.queue.take(tuple(range(min(_LOOKED_AT, len(model.queue))))):
            ticket.is_over = True
            self._observer.request_expired(ticket.request.model, was_running=False)
            ticket.fail(_expired(ticket))
        if not model.queue:
            self._models.pop(model)
        return None

    def _start(self, model: LoadedModel, run: Run, lane: LaneState, asked_s: float) -> Job:
        tickets = model.queue.take(run.members)
        if not model.queue:
            self._models.pop(model)
        now_s = self.clock()
        lane.is_busy, lane.free_s = True, now_s + run.predicted_s
        job = Job(lane, model, run, tickets, now_s, now_s - asked_s)
        self._running[id(job)] = job
        return job

    def _situation(self, model: LoadedModel, lane: LaneState) -> Situation:
        now_s = self.clock()
        return Situation(
            costs=model.costs(now_s),
            now_s=now_s,
            lanes_free_s=tuple(item.free_s if item.is_busy and item is not lane else now_s for item in self.lanes),
            idle_lanes=sum(not item.is_busy for item in self.lanes),
            max_rows=model.max_rows,
        )

    def _shed(self, ticket: Ticket, why: str) -> None:
        self._observer.request_shed(ticket.request.model, ticket.request.knobs.criticality, why)


def _expired(ticket: Ticket) -> DeadlineExceeded:
    waited_ms = (ticket.waiting.deadline_s - ticket.arrived_s) * 1e3
    return DeadlineExceeded(
        f"model '{ticket.request.model}' could not answer within the deadline of {waited_ms:.3f} ms"
    )
