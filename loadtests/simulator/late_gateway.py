"""A gateway that binds late: the simulated twin of ``service.engine.dispatcher``.

Both drive the same desk (``service.policy.desk``), so admission, service order, the model that is served, the run that
is chosen and what is learnt from losses are the gateway's own code. Two things are done differently, to the same
effect. Deadlines are not on the calendar (the moment to which a run is put off is): whatever has passed its moment is
taken out, as of that moment, before anything looks at the queue. And a request that finds a lane idle and nothing
queued goes past the queue.
"""

from __future__ import annotations

import math
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from loadtests.simulator.model_state import ModelState, Queued
from loadtests.simulator.result import Outcome
from service.policy.crowd import Newcomer, Prospect, is_crowded, prospect
from service.policy.desk import Desk
from service.policy.latency import Handover
from service.policy.limits import Verdict
from service.policy.situation import Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.gateway import Place, Request
    from loadtests.simulator.policy import LatePolicy
    from service.policy.costs import Plan
    from service.policy.desk import Lane
    from service.policy.situation import Run


_TIMER: Final = -2
"""The place of a lane in an event at which a run that was put off is looked at again."""


class _Running(NamedTuple):
    run: Run
    entries: Sequence[Queued]
    rows: int
    compute_s: float


class LateGateway:
    """One process: its desk, its lanes and what they run."""

    def __init__(self, policy: LatePolicy, place: Place) -> None:
        """Start idle; ``place`` says where completions and results go."""
        fleet = place.fleet
        self._place = place
        self._machine = fleet.machine
        self._models = [ModelState(ladder, fleet.machine, uses_plans=policy.uses_plans) for ladder in fleet.models]
        self._choose_run = policy.start(place.site)
        self._candidates = [
            self._models[kind.model].candidates(
                policy.narrow(fleet.models[kind.model].candidates(kind.candidates), place.site.costs[kind.model])
            )
            for kind in place.kinds
        ]
        self._desk: Desk[ModelState] = Desk(fleet.lanes)
        self._idle = list(reversed(self._desk.lanes))
        self._running: dict[int, _Running] = {}
        self._timers: list[tuple[float, int, Queued]] = []
        self._handover = Handover(after_s=fleet.machine.known_after_s)
        self._wake_s = 0.0 if fleet.machine.loop is None else fleet.machine.loop.before_s
        self._wakes = False
        self._look_s = math.inf
        self.inside = 0

    def arrive(self, request: Request, now_s: float) -> None:
        """Take a request in, or refuse it."""
        entry, self._wakes = self._entry(request, now_s), True
        entry.model.standing.arrived(now_s, entry.waiting.due_s)
        if self._timers:
            self._ring(now_s)
        if self._idle and not self._desk.models and now_s + entry.fastest_s <= entry.waiting.due_s:
            self._serve_at_once(entry, now_s)
        elif self._admit(entry, now_s):
            self._push(entry, entry.waiting.deadline_s, now_s)
            self._dispatch(now_s)

    def turns_away(self, request: Request, waited_s: float, now_s: float) -> bool:
        """Tell whether the door turns a request away: late work is a crowd, and it would be late as well."""
        if not is_crowded(self._desk):
            return False
        _, kind_number, budget_s, timeout_s, criticality, _ = request
        kind, aim_s = self._place.kinds[kind_number], min(budget_s, timeout_s)
        model, after_s = self._models[kind.model], now_s + aim_s - self._handover.set_aside_s(aim_s)
        due_s = now_s + aim_s - self._handover.set_aside_s(aim_s, is_pressed=True)
        needs_s = min(model.costs(now_s).of(name, 1) for name in model.places)
        hope = prospect(self._desk, Newcomer(model, criticality, due_s, needs_s, waited_s, after_s), now_s)
        if hope is Prospect.BEHIND:
            model.standing.losses.turned_away(1)
        return hope is not Prospect.TIMELY

    def finish(self, lane_number: int, now_s: float) -> None:
        """Free a lane and give it what comes next; or look again at what was put off."""
        if lane_number == _TIMER:
            self._look_again(now_s)
            return
        held_s = self._place.hold(self, lane_number, now_s)
        if held_s > 0.0:  # which the gateway's clocks count as computing
            running = self._running[lane_number]
            self._running[lane_number] = running._replace(compute_s=running.compute_s + held_s)
            return
        lane, (run, entries, rows, compute_s) = self._desk.lanes[lane_number], self._running[lane_number]
        model, self._wakes = entries[0].model, False
        self.inside -= len(entries)
        after_s = self._place.reply(lane_number)
        if self._machine.loop is not None:
            self._handover.observe_after(after_s)
        self._desk.end(lane, model, now_s)
        self._idle.append(lane)
        if self._machine.is_learning:
            model.learn(run.variant, rows, compute_s, now_s)
        if run.plan:
            plan = model.costs(now_s).plans[run.plan]
            for entry in entries:
                if model.margin(run.variant, self._place.row(entry.index)) < plan.margin:
                    self._escalate(entry, plan, now_s)
        if self._desk.models:
            self._ring(now_s)
            self._dispatch(now_s)

    def _entry(self, request: Request, now_s: float) -> Queued:
        index, kind_number, budget_s, timeout_s, criticality, luck = request
        kind, candidates = self._place.kinds[kind_number], self._candidates[kind_number]
        model, deadline_s = self._models[kind.model], now_s + timeout_s
        due_s = now_s + min(budget_s, timeout_s) - self._handover.after_s
        waiting = Waiting(due_s, deadline_s, kind.rows, candidates, None, criticality=criticality)
        return Queued(index, model, criticality, model.costs(now_s).fastest_s(waiting), luck, waiting)

    def _serve_at_once(self, entry: Queued, now_s: float) -> None:
        lane = self._idle.pop()
        run = self._choose_run((entry.waiting,), self._desk.situation(entry.model, lane, now_s))
        if run is None:
            self._idle.append(lane)
            self._place.end(entry.index, Outcome.EXPIRED)
            return
        if run.wait_until_s > now_s:
            self._idle.append(lane)
            self._push(entry, entry.waiting.deadline_s, now_s)
            self._put_off(run.wait_until_s)
            return
        self.inside += 1
        self._start(run, [entry], lane, now_s)

    def _admit(self, entry: Queued, now_s: float) -> bool:
        if self._idle and self._desk.fits_at_once(entry, now_s):
            return True
        verdict, _ = self._desk.judge(entry, now_s)
        if verdict is Verdict.DISPLACE:
            displaced = entry.model.queue.least_important
            self._remove(displaced)
            self._place.end(displaced.index, Outcome.SHED)
        elif verdict is not Verdict.ADMIT:
            self._place.end(entry.index, Outcome.INFEASIBLE if verdict is Verdict.INFEASIBLE else Outcome.SHED)
            return False
        return True

    def _push(self, entry: Queued, until_s: float, now_s: float) -> None:
        self._desk.push(entry, now_s)
        heappush(self._timers, (until_s, entry.index, entry))
        entry.until_s = until_s
        self.inside += 1

    def _remove(self, entry: Queued) -> None:
        self._desk.remove(entry)
        self.inside -= 1

    def _ring(self, now_s: float) -> None:
        timers = self._timers
        while timers and (timers[0][0] <= now_s or not timers[0][2].is_queued):
            until_s, _, entry = heappop(timers)
            if entry.is_queued and entry.until_s == until_s:
                self._remove(entry)
                self._give_up(entry, until_s)

    def _give_up(self, entry: Queued, now_s: float) -> None:
        if entry.kept:
            self._place.settle(entry.index, entry.kept, now_s)
        else:
            self._place.end(entry.index, Outcome.EXPIRED)

    def _dispatch(self, now_s: float) -> None:
        desk = self._desk
        while self._idle and (model := desk.next_model(now_s)) is not None:
            lane = self._idle[-1]
            run = self._choose_run(model.queue.waiting(), desk.situation(model, lane, now_s))
            if run is None:
                for entry in desk.take_hopeless(model):
                    self.inside -= 1
                    self._give_up(entry, now_s)
                continue
            if run.wait_until_s > now_s:
                self._put_off(run.wait_until_s)
                return
            entries = desk.take(model, run)
            if run.is_settled:
                self.inside -= 1
                self._give_up(entries[0], now_s)
                continue
            self._idle.pop()
            self._start(run, entries, lane, now_s)

    def _put_off(self, until_s: float) -> None:
        if until_s < self._look_s:
            self._look_s = until_s
            heappush(self._place.agenda, (until_s, self._place.number, _TIMER, self))

    def _look_again(self, now_s: float) -> None:
        if now_s >= self._look_s:
            self._look_s, self._wakes = math.inf, True
            self._ring(now_s)
            self._dispatch(now_s)

    def _start(self, run: Run, entries: Sequence[Queued], lane: Lane, now_s: float) -> None:
        model = entries[0].model
        rows = entries[0].waiting.rows if len(entries) == 1 else sum([entry.waiting.rows for entry in entries])
        compute_s = model.compute_s(run.variant, rows, entries[0].luck)
        self._desk.begin(lane, model, run, now_s)
        self._running[lane.number] = _Running(run, entries, rows, compute_s)
        end_s = now_s + self._machine.per_run_s + compute_s + (self._wake_s if self._wakes else 0.0)
        members = [(entry.index, entry.waiting.deadline_s) for entry in entries]
        self._place.run(self, (lane.number, model.places[run.variant], now_s, end_s), members)

    def _escalate(self, entry: Queued, plan: Plan, now_s: float) -> None:
        entry.fastest_s = entry.model.costs(now_s).of(plan.escalate_to, entry.waiting.rows)
        last_start_s = entry.waiting.due_s - entry.fastest_s
        if last_start_s > now_s:
            entry.kept = (entry.model.places[plan.variant], entry.waiting.deadline_s)
            entry.waiting = replace(entry.waiting, candidates=(plan.escalate_to,), kept_level=plan.accuracy)
            self._push(entry, last_start_s, now_s)
