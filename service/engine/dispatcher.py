"""Where admitted requests and free lanes meet.

Late binding happens here: requests wait in their model's deadline queue without a variant; a lane that becomes free
takes what ``policy.scheduling`` says should run now. One lock guards the queues, the lanes' state and the models'
corrections; it is held for decisions only, never while something computes.

A request's place is freed when its client leaves or its hard deadline passes. A run for it that is under way is broken
off where nobody else waits for it; else its result for that request is thrown away.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from service.domain.errors import DeadlineExceeded, Draining, Overloaded
from service.engine.calls import Calls, out_of_reach
from service.engine.giving_way import GivingWay
from service.engine.hung_runs import HungRuns
from service.engine.job import Job, drop_unwanted, stop_for
from service.engine.leaving import take_departed
from service.engine.parking import Parking
from service.engine.ticket import expired, give_up, settle
from service.engine.waking import Waking
from service.policy.desk import Desk
from service.policy.door import Turns
from service.policy.limits import LEAST_RETRY_S, Verdict
from service.policy.scheduling import choose_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.domain.observer import Observer
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Outcome, Ticket
    from service.policy.costs import Plan
    from service.policy.desk import Lane
    from service.policy.situation import ChooseRun, Run

_LATE_SHARE: Final = 0.1
"""Of a lane's time, for late runs where there is none to spare: else a model that is taken to be slower than it is,
so that all its requests count as late, would never run again, and nobody would learn better."""
_LEAST_REST_S: Final = 0.01
_STALL_S: Final = 0.02
"""A run on the event loop's thread that takes this long has stalled everything; its like goes to a lane."""


class Dispatcher:
    """The queues and the lanes' state; every method may be called from any thread.

    ``policy`` decides what a free lane runs. Late runs wait while ``loop_turns`` say that the event loop has no time to
    spare. ``inline_s`` is the predicted compute time up to which an idle machine's request is computed on the thread
    that brought it, because handing it to a lane and back would take longer.
    """

    def __init__(
        self,
        lanes: int,
        observer: Observer,
        clock: Callable[[], float],
        inline_s: float = 0.0,
        policy: ChooseRun = choose_run,
        loop_turns: Turns | None = None,
    ) -> None:
        """Start with idle lanes and empty queues."""
        self.loop_turns = loop_turns or Turns()
        self.desk: Desk[LoadedModel] = Desk(lanes)
        self.clock = clock
        self.inline_s = inline_s
        self._inline = self.desk.lane_of_its_own()
        self._running: dict[int, Job] = {}
        self._choose_run = policy
        self._observer = observer
        self._changed = Waking()
        self.parking = Parking(self._changed, self._running, self._push)
        self.calls = Calls(self._changed, self.desk, self._running)
        self.giving_way = GivingWay(lanes)
        self.hung = HungRuns(self._changed, self.desk, self._running)
        self._is_closed = False
        self._is_gathering = False
        self._look_s = math.inf  # when the first of the lanes that wait for a fuller batch looks again

    @property
    def deciding(self) -> threading.Condition:
        """The lock under which runs are chosen; who holds it may change, quickly, what decisions depend on."""
        return self._changed

    def submit(self, ticket: Ticket, *, gathers: bool = False) -> Job | None:
        """Let a ticket in; return its job where the caller should compute it at once, else wake a lane.

        With ``gathers`` a ticket whose run would be short waits for ``take_gathered`` instead: the caller knows that
        more may come in the same turn of the event loop, and together they are one run.

        Raises:
            DeadlineExceeded: No variant could answer before the hard deadline even on an idle machine.
            Overloaded: Behind the work that is queued none could, or the queue is full.
            Draining, ModelNotReady: The dispatcher is closed, or only servers that are away could answer.
        """
        with self._changed:
            if self._is_closed:
                raise Draining("the server is shutting down")
            if ticket.model.evicted and self.parking.receives(ticket):
                return None
            if ticket.model.standing.pools and self.calls.strand(ticket):  # its server has just gone
                raise out_of_reach(ticket)
            ticket.model.standing.arrived(ticket.arrived_s, ticket.waiting.due_s)
            is_idle = (not self.desk.models or self._is_gathering) and self.desk.has_idle_lane
            ticket.met_idle = is_idle and ticket.model.standing.arrivals is None  # else it may wait for company
            displaced = None if is_idle and self.desk.fits_at_once(ticket, self.clock()) else self._admit(ticket)
            is_short = is_idle and displaced is None and self._may_inline(ticket)
            if is_short and not gathers and not self.desk.models:
                job = self._take_inline(ticket)
                if job is not None:
                    return job
            self._push(ticket)
            was_gathering, self._is_gathering = self._is_gathering, is_short and gathers
            if self._is_gathering:
                return None
            # What gathered until now has woken nobody yet.
            if was_gathering:
                self._changed.notify_for(self.desk.models, len(self.desk.lanes))
            else:
                self._changed.notify_for((ticket.model,))
        if displaced is not None:
            if displaced.kept is None:
                self._shed(displaced, "displaced")
            give_up(displaced, Overloaded("displaced by a more critical request", LEAST_RETRY_S))
        return None

    def take_gathered(self) -> Job | None:
        """Return the run of what gathered where the caller should compute it at once; what is left wakes the lanes."""
        with self._changed:
            if not self._is_gathering:
                return None
            self._is_gathering = False
            job, model = None, self.desk.next_model(self.clock())
            if model is not None and self.desk.has_idle_lane:
                job = self._choose(model, self._inline)
            if self.desk.models:
                self._changed.notify_for(self.desk.models, len(self.desk.lanes))
            return job if isinstance(job, Job) else None

    def resubmit(self, ticket: Ticket) -> None:
        """Let a ticket wait again after a failed run, unless its end is decided; it is not judged a second time."""
        with self._changed:
            if ticket.is_over:
                return
            error: Exception = Draining("the server is shutting down")
            if not self._is_closed:
                if ticket.model.evicted and self.parking.holds_up(ticket):
                    return
                if not self.calls.strand(ticket):
                    self._push(ticket)
                    self._changed.notify_for((ticket.model,))
                    return
                error = out_of_reach(ticket)
        give_up(ticket, error)

    def take(self, lane: Lane) -> Job | None:
        """Wait for work and return what the lane runs now; ``None`` when its work has ended for good."""
        with self._changed:
            while not lane.pool or lane.pool in self.desk.pools:
                looks_s = []
                for model in self.desk.turns(lane, self.clock()):
                    job = self._choose(model, lane)
                    if isinstance(job, Job):
                        if any(item.standing.arrivals is not None for item in self.desk.models):
                            self._changed.notify()  # those whom the arrivals woke may have gone back to wait
                        return job
                    looks_s.append(-math.inf if job is None else job)
                if not lane.pool:
                    self.giving_way.computes(lane.number, math.inf)
                if looks_s:
                    self._wait_until(min(looks_s), lane)
                elif self._is_closed:
                    return None
                else:
                    self._changed.of(lane.pool).wait()
        return None

    def finish(self, job: Job, compute_s: float | None) -> list[str]:
        """Free the job's lane and learn from its compute time, so far if it was broken off; ``None`` for a failed run.

        Returns:
            The variants taken out because the job's requests failed on them and succeeded here.
        """
        with self._changed:
            if job.is_given_up:
                return []
            now_s = self.clock()
            self._running.pop(id(job), None)
            if job.lane is self._inline and now_s - job.taken_s > _STALL_S:
                job.model.bar_inline(now_s)
            self.desk.end(job.lane, job.model, now_s)
            if compute_s is None:
                return []
            rows = sum(ticket.waiting.rows for ticket in job.tickets)
            if job.is_broken_off:
                job.model.learn_at_least(job.run.variant, rows, compute_s, now_s)
                return []
            job.model.learn(job.run.variant, rows, compute_s, now_s)
            at_fault = [name for ticket in job.tickets for name in ticket.failed_on]
            return [name for name in at_fault if job.model.blame(name, now_s)]

    def escalate(self, ticket: Ticket, kept: Outcome, plan: Plan) -> None:
        """Let a ticket wait for the second stage of its cascade, as long as that can be on time; else give it ``kept``.

        From then on the ticket ends with ``kept`` where it would otherwise fail or become late.
        """
        with self._changed:
            now_s = self.clock()
            ticket.kept, ticket.plan = kept, plan
            ticket.fastest_s = ticket.model.costs(now_s).of(plan.escalate_to, ticket.waiting.rows)
            left_s = ticket.waiting.due_s - ticket.fastest_s - now_s
            is_there = not ticket.model.evicted and plan.escalate_to not in self.calls.away(ticket.model)
            if not ticket.is_over and not self._is_closed and left_s > 0 and is_there:
                ticket.waiting = replace(ticket.waiting, candidates=(plan.escalate_to,), kept_level=plan.accuracy)
                self._push(ticket)
                self._changed.notify_for((ticket.model,))
                ticket.call_on_loop(lambda: ticket.settle_after(left_s, self.settle))
                return
        settle(ticket)

    def settle(self, ticket: Ticket) -> None:
        """Answer a ticket with what it has, if its second stage would be late; one that runs may do so until due."""
        with self._changed:
            was_waiting = self.desk.remove(ticket)
            left_s = ticket.waiting.due_s - self.clock()
            if is_end := was_waiting or left_s <= 0:
                ticket.is_over = True
                drop_unwanted(self._running.values(), ticket)
        if is_end:
            settle(ticket)
        else:
            ticket.settle_after(left_s, self.settle)

    def cancel(self, ticket: Ticket) -> None:
        """Free a ticket's place; its result, if it is being computed, is thrown away."""
        with self._changed:
            self._end(ticket)

    def expire(self, ticket: Ticket) -> None:
        """End a ticket whose hard deadline has passed, unless it has just ended otherwise."""
        with self._changed:
            if ticket.is_over or ticket.done.done():
                return
            was_waiting = self._end(ticket)
        if ticket.kept is not None:
            settle(ticket)
            return
        self._observer.request_expired(ticket.request.model, was_running=not was_waiting)
        ticket.fail(expired(ticket))

    def close(self) -> None:
        """Refuse newcomers and what still waits; ``take`` returns ``None`` to the lanes."""
        with self._changed:
            self._is_closed = True
            left = [ticket for model in self.desk.models for ticket in model.queue.take_all()] + self.parking.take_all()
            for ticket in left:
                ticket.is_over = True
            self.desk.models = {}
            self._changed.notify_all()
        for ticket in left:
            give_up(ticket, Draining("the server is shutting down"))

    def abandon(self) -> None:
        """End every ticket, the running ones too, whose runs are broken off; then close."""
        with self._changed:
            running = [ticket for job in self._running.values() for ticket in job.tickets]
            for ticket in running:
                self._end(ticket)
        for ticket in running:
            give_up(ticket, Draining("the server is shutting down"))
        self.close()

    def depths(self) -> dict[str, int]:
        """Return how many tickets wait, by model."""
        with self._changed:
            # A reloaded model is here twice while its old queue drains.
            result: dict[str, int] = {}
            for model in self.desk.models:
                result[model.info.name] = result.get(model.info.name, 0) + len(model.queue)
            return result

    def wait_s(self) -> float:
        """Return how long a normal newcomer would wait at least."""
        with self._changed:
            return self.desk.wait_s(self.clock())

    # Everything below runs with the lock held, but _shed needs no lock.

    def _push(self, ticket: Ticket) -> None:
        self.desk.push(ticket, self.clock())

    def _end(self, ticket: Ticket) -> bool:
        """Note that a ticket's end is decided, take it out or break off its run; return whether it was waiting."""
        ticket.is_over = True
        if self.desk.remove(ticket) or self.parking.let_go(ticket):
            return True
        drop_unwanted(self._running.values(), ticket)
        return False

    def _admit(self, ticket: Ticket) -> Ticket | None:
        now_s = self.clock()
        timeout_s = ticket.waiting.deadline_s - now_s
        verdict, load = self.desk.judge(ticket, now_s)
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
            displaced = ticket.model.queue.least_important
            displaced.is_over = True
            self.desk.remove(displaced)
            return displaced
        return None

    def _may_inline(self, ticket: Ticket) -> bool:
        model, rows, now_s = ticket.model, ticket.waiting.rows, self.clock()
        variants = (name for name in ticket.waiting.candidates if name not in model.plans)
        return any(model.may_inline(name, rows, self.inline_s, now_s) for name in variants)

    def _take_inline(self, ticket: Ticket) -> Job | None:
        # The caller's thread is no lane: a lane that it borrowed could be woken and be busy twice.
        situation = self.desk.situation(ticket.model, self._inline, self.clock())
        run = self._choose_run((ticket.waiting,), situation)
        if run is None or run.wait_until_s > situation.now_s:
            return None
        if not ticket.model.may_inline(run.variant, ticket.waiting.rows, self.inline_s, situation.now_s):
            return None
        return self._start(ticket.model, run, [ticket], self._inline, situation.now_s)

    def _wait_until(self, until_s: float, lane: Lane) -> None:
        """Wait for a change; one local lane at a time also for the moment, which is enough for what all would see."""
        if until_s == -math.inf:
            return
        if lane.pool:
            left_s = until_s - self.clock()
            self._changed.of(lane.pool).wait(max(0.0, left_s) if left_s < threading.TIMEOUT_MAX else None)
            return
        if until_s >= self._look_s:
            self._changed.wait()
            return
        self._look_s = until_s
        self._changed.wait(max(0.0, until_s - self.clock()))
        if self._look_s == until_s:
            self._look_s = math.inf

    def _choose(self, model: LoadedModel, lane: Lane) -> Job | float | None:
        """Take the next run; ``None`` where others ended instead, or the moment until which a run is put off."""
        now_s, waiting = self.clock(), model.queue.waiting()
        run = self.desk.decide(self._choose_run, model, lane, now_s)
        if run is not None and (run.wait_until_s > now_s or not run.members):
            return run.wait_until_s
        if run is not None and run.is_late:
            rests_s = lane.began_s + max(_LEAST_REST_S, run.predicted_s / _LATE_SHARE)
            if now_s < min(rests_s, self.loop_turns.pressed_until_s):
                return min(rests_s, self.loop_turns.pressed_until_s)
        if run is not None:
            if lane is self._inline:
                rows = sum(waiting[member].rows for member in run.members)
                is_off = not model.may_inline(run.variant, rows, self.inline_s, now_s)
            else:
                is_off = take_departed(self.desk, model, run)  # what runs now is decided without them
            if is_off:
                return None
            tickets = self.desk.take(model, run)
            if not run.is_settled:
                return self._start(model, run, tickets, lane, now_s)
            settle(tickets[0])
            return None
        for ticket in self.desk.take_hopeless(model):
            ticket.is_over = True
            self._observer.request_expired(ticket.request.model, was_running=False)
            ticket.fail(expired(ticket))
        return None

    def _start(self, model: LoadedModel, run: Run, tickets: Sequence[Ticket], lane: Lane, asked_s: float) -> Job:
        now_s = self.clock()
        self.desk.begin(lane, model, run, now_s)
        typical_s = model.typical_s(run.variant, sum([ticket.waiting.rows for ticket in tickets]))
        job = Job(lane, model, run, tickets, now_s, now_s - asked_s, typical_s, stop_for(lane, run))
        self._running[id(job)] = job
        return job

    def _shed(self, ticket: Ticket, why: str) -> None:
        self._observer.request_shed(ticket.request.model, ticket.request.knobs.criticality, why)
