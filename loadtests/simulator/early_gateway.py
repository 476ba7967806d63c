"""A gateway that binds early: every request gets a lane and a variant on its arrival and waits in that lane's queue.

A request whose hard deadline has passed when its lane comes to it is dropped without being computed. How many of a
lane's queue run together, and what is dropped besides, the policy decides when the lane is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.simulator.model_state import ModelState
from loadtests.simulator.policy import Arrival, LaneView, Placed
from loadtests.simulator.result import Outcome
from service.policy.situation import Waiting

if TYPE_CHECKING:
    from loadtests.simulator.gateway import Place, Request
    from loadtests.simulator.policy import EarlyPolicy


class EarlyGateway:
    """One process: a queue at each lane."""

    def __init__(self, policy: EarlyPolicy, place: Place) -> None:
        """Start idle; ``place`` says where completions and results go."""
        fleet = place.fleet
        self._place = place
        self._machine = fleet.machine
        self._models = [ModelState(ladder, fleet.machine) for ladder in fleet.models]
        self._placer = policy.start(place.site)
        self._candidates = [
            policy.narrow(fleet.models[kind.model].candidates(kind.candidates), place.site.costs[kind.model])
            for kind in place.kinds
        ]
        self._lanes = [LaneView(number, 0.0, False, []) for number in range(fleet.lanes)]
        self._running = [0] * fleet.lanes
        self.inside = 0

    def arrive(self, request: Request, now_s: float) -> None:
        """Let the policy place a request, or refuse it."""
        index, kind_number, budget_s, timeout_s, _, luck = request
        kind, candidates = self._place.kinds[kind_number], self._candidates[kind_number]
        deadline_s = now_s + timeout_s
        due_s = now_s + min(budget_s, timeout_s) - self._machine.known_after_s
        waiting = Waiting(due_s, deadline_s, kind.rows, candidates, None)
        placed = self._placer.place(Arrival(kind.model, waiting, now_s), self._lanes)
        if placed is None:
            self._place.end(index, Outcome.SHED)
            return
        number, variant = placed
        lane = self._lanes[number]
        lane.queue.append(Placed(index, kind.model, variant, now_s, luck, waiting))
        self.inside += 1
        if not lane.is_busy:
            self._serve(lane, now_s)

    def finish(self, lane: int, now_s: float) -> None:
        """Free a lane and give it what comes next."""
        if self._place.hold(self, lane, now_s) > 0.0:
            return
        view = self._lanes[lane]
        view.is_busy = False
        self._place.reply(lane)
        self.inside -= self._running[lane]
        self._serve(view, now_s)

    def _serve(self, lane: LaneView, now_s: float) -> None:
        while lane.queue and not lane.is_busy:
            lane.queue = [item for item in lane.queue if self._is_alive(item, now_s)]
            if not lane.queue:
                return
            dropped, together = self._placer.batch(lane, now_s)
            for item in lane.queue[:dropped]:
                self._place.end(item.index, Outcome.EXPIRED)
            self.inside -= dropped
            members = lane.queue[dropped : dropped + together]
            lane.queue = lane.queue[dropped + together :]
            if members:
                self._start(lane, members, now_s)

    def _is_alive(self, item: Placed, now_s: float) -> bool:
        if item.waiting.deadline_s > now_s:
            return True
        self._place.end(item.index, Outcome.EXPIRED)
        self.inside -= 1
        return False

    def _start(self, lane: LaneView, members: list[Placed], now_s: float) -> None:
        first = members[0]
        model, rows = self._models[first.model], sum(item.waiting.rows for item in members)
        if any((item.model, item.variant) != (first.model, first.variant) for item in members):
            raise ValueError(f"a run on lane {lane.number} would mix models or variants")
        compute_s = model.compute_s(first.variant, rows, first.luck)
        end_s = now_s + self._machine.per_run_s + compute_s
        lane.is_busy = True
        lane.free_s = now_s + model.costs(now_s).of(first.variant, rows)
        self._running[lane.number] = len(members)
        run = (lane.number, model.places[first.variant], now_s, end_s)
        self._place.run(self, run, [(item.index, item.waiting.deadline_s) for item in members])
