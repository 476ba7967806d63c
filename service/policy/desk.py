"""The desk: where waiting requests and lanes meet, as a state machine without clock, lock or thread.

It knows which models have requests waiting, what each lane is busy with and until when, who has used how much of the
lanes and what was lost lately; from that it judges newcomers, says which model a free lane serves, and sets out the
situation in which ``choose_run`` decides. The gateway's dispatcher and the simulator drive the same desk, the one by a
clock and threads, the other by a calendar of events.

**Fair shares.** Models share the lanes. Each has a weight, and a virtual time: the CPU-seconds that it has used, over
its weight. As long as no model is ahead of the one furthest behind by more than ``_AHEAD_S``, the first deadline is
served first, whoever's it is. A model that is further ahead waits, so that its burst costs another model no more than
that. A model that had nothing waiting starts at the virtual time of the one furthest behind, or where none waits at
that of the runs so far: what it did not use is not saved up. This is start-time fair queueing (Goyal, Vin and Cheng,
SIGCOMM 1996) with deadlines in its window.

**Lanes elsewhere.** A pool is the lanes that call one remote variant. They take only what is theirs of the queue
(``policy.pools``), and what they do is no part of a model's share of this machine.

When it finds its level, a model counts on the time that the others leave: what they have waiting, at what they lately
spent on a request, but no more than their share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from service.domain.inference import Criticality
from service.policy.arrivals import RecentRate
from service.policy.deadline_queue import Entry
from service.policy.deferral import ArrivalRate, gains_by_batching
from service.policy.limits import Load, Verdict, earliest_start_s, judge_arrival
from service.policy.pools import LOCAL, group_of, part_of
from service.policy.price import Losses
from service.policy.scheduling import SEARCHED_FOR_HEAD
from service.policy.situation import Run, Situation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from service.domain.policy_file import ModelPolicy
    from service.policy.costs import Costs
    from service.policy.deadline_queue import DeadlineQueue
    from service.policy.situation import ChooseRun

_AHEAD_S: Final = 0.05
_REFUSED_FOR_LOAD: Final = (Verdict.OVERLOADED, Verdict.FULL, Verdict.DISPLACE)


@dataclass(slots=True, eq=False)
class Lane:
    """What is known of one lane: busy until about ``free_s``; ``busy_s`` sums its computing so far.

    ``pool`` names the remote variant that it calls, '' for a lane of this machine.
    """

    number: int
    free_s: float = 0.0
    is_busy: bool = False
    busy_s: float = 0.0
    began_s: float = 0.0
    pool: str = LOCAL


@dataclass(slots=True, eq=False)
class Pool:
    """The lanes of one remote variant, of which ``usable`` may be busy at a time: none where no server is up."""

    lanes: tuple[Lane, ...]
    usable: int = 0

    @property
    def is_full(self) -> bool:
        """Whether no more lanes may become busy."""
        return sum(lane.is_busy for lane in self.lanes) >= self.usable

    def free_s(self, now_s: float) -> list[float]:
        """Return when each of the usable lanes is free."""
        busy = sorted(max(now_s, lane.free_s) for lane in self.lanes if lane.is_busy)
        return [now_s] * (self.usable - len(busy)) + busy[max(0, len(busy) - self.usable) :]


@dataclass(slots=True, eq=False)
class Standing:
    """What the desk remembers of a model: its virtual time, what it lately spent on a request, and its losses.

    ``arrivals`` is the rate of its arrivals where its runs may be deferred, ``recent`` that of the last moments.
    ``pools`` names the pool of each of its variants that is not on this machine.
    """

    virtual_s: float = 0.0
    typical_s: float = 0.0
    losses: Losses = field(default_factory=Losses)
    decisions: int = 0
    arrivals: ArrivalRate | None = None
    recent: RecentRate = field(default_factory=RecentRate)
    pools: Mapping[str, str] = field(default_factory=dict)

    def arrived(self, now_s: float, due_s: float) -> None:
        """Count an arrival."""
        self.losses.arrived()
        self.recent.arrived(now_s, due_s - now_s)
        if self.arrivals is not None:
            self.arrivals.arrived(now_s)

    def watch_arrivals(self, tables: Mapping[str, Sequence[float]], policy: ModelPolicy) -> None:
        """Watch how fast requests come where runs are to be deferred: the policy says so, and batching gains.

        ``tables`` are compute times by variant and rows.
        """
        most = min([policy.max_batch_size, *(len(table) - 1 for table in tables.values())])
        if not (policy.defers and gains_by_batching(tables, most)):
            self.arrivals = None
        elif self.arrivals is None:
            self.arrivals = ArrivalRate()

    def is_turn_to_explore(self, share: float) -> bool:
        """Count a decision, and tell whether it is one of the share that goes by calm predictions."""
        self.decisions += 1
        return self.decisions % max(1, round(1.0 / share)) == 0


class Served(Protocol):
    """A model as the desk sees it."""

    standing: Standing

    @property
    def queue(self) -> DeadlineQueue[Any]:
        """Its waiting requests."""

    @property
    def policy(self) -> ModelPolicy:
        """Its thresholds."""

    @property
    def max_rows(self) -> int:
        """The most rows that one run may take."""

    def costs(self, now_s: float) -> Costs:
        """Return the predicted compute times now."""

    def calm_costs(self, now_s: float) -> Costs:
        """Return them with variants that were not measured lately as fast as on a calm machine."""


M = TypeVar("M", bound=Served)


class Request(Entry, Protocol):
    """A waiting request that knows its model."""

    model: Any


class Desk(Generic[M]):
    """The state; every method is quick and changes it only as it says."""

    def __init__(self, lanes: int) -> None:
        """Start with idle lanes and nothing waiting."""
        self.lanes = tuple(Lane(number) for number in range(lanes))
        self.models: dict[M, None] = {}
        self.pools: dict[str, Pool] = {}
        self._next_number = lanes
        self._reached_s = 0.0  # the highest virtual time at which a run has begun

    @property
    def has_idle_lane(self) -> bool:
        """Whether a lane has no work."""
        for lane in self.lanes:  # noqa: SIM110 - a generator costs more than the look
            if not lane.is_busy:
                return True
        return False

    def add_pool(self, name: str, lanes: int) -> Pool:
        """Add the lanes of a remote variant; none is usable until its servers are up."""
        first, self._next_number = self._next_number, self._next_number + lanes
        pool = self.pools[name] = Pool(tuple(Lane(first + number, pool=name) for number in range(lanes)))
        return pool

    def drop_pool(self, name: str) -> None:
        """Forget the lanes of a remote variant that nothing needs any more."""
        self.pools.pop(name, None)

    def push(self, request: Request, now_s: float) -> None:
        """Let a request wait; one whose budget no idle machine could keep waits as late, and is no loss."""
        model = request.model
        if model not in self.models:
            furthest_behind_s = min([item.standing.virtual_s for item in self.models], default=self._reached_s)
            model.standing.virtual_s = max(model.standing.virtual_s, furthest_behind_s)
            self.models[model] = None
        model.queue.push(request, is_late=now_s + request.fastest_s > request.waiting.due_s)

    def remove(self, request: Request) -> bool:
        """Take a request out; return whether it was waiting."""
        was_waiting: bool = request.model.queue.remove(request)
        if not request.model.queue:
            self.models.pop(request.model, None)
        return was_waiting

    def take(self, model: M, run: Run) -> list[Any]:
        """Take out the requests that share a run, in order."""
        taken = model.queue.take(run.members)
        if not model.queue:
            self.models.pop(model, None)
        return taken

    def take_hopeless(self, model: M) -> list[Any]:
        """Take out first requests that no decision can help: as many as one decision looks at."""
        taken = model.queue.take(tuple(range(min(SEARCHED_FOR_HEAD, len(model.queue)))))
        if not model.queue:
            self.models.pop(model, None)
        return taken

    def lane_of_its_own(self) -> Lane:
        """Return a lane that is not one of the desk's: a thread that computes a run now and then."""
        return Lane(-1)

    def fits_at_once(self, request: Request, now_s: float) -> bool:
        """Tell at little cost that one idle lane can do all that waits, and then this request, in time."""
        model = request.model
        queued_s = sum([item.queue.work_s(Criticality.SHEDDABLE) for item in self.models])
        is_timely = now_s + queued_s + request.fastest_s <= request.waiting.deadline_s
        return is_timely and len(model.queue) < model.policy.max_queued

    def judge(self, request: Request, now_s: float) -> tuple[Verdict, Load]:
        """Judge a newcomer, and return what it was judged by."""
        load = self._load(request, now_s)
        # One that is late already displaces nobody: it would be served after all others.
        is_late = now_s + request.fastest_s > request.waiting.due_s
        criticality = Criticality.SHEDDABLE if is_late else request.criticality
        verdict = judge_arrival(load, request.fastest_s, request.waiting.deadline_s - now_s, criticality)
        if verdict in _REFUSED_FOR_LOAD:
            request.model.standing.losses.lost()
        return verdict, load

    def next_model(self, now_s: float) -> M | None:
        """Set aside what has become late, and return the model that a free lane serves now."""
        if not self.models:
            return None
        for model in self.models:
            model.standing.losses.lost(model.queue.set_late_aside(now_s))
        return _next_of(self.models)

    def turns(self, lane: Lane, now_s: float) -> Sequence[M]:
        """Return the models that a free lane may serve now, in order; the next where there is nothing for it."""
        model = self.next_model(now_s)
        if model is None:
            return ()
        if lane.pool:
            return [item for item in self.models if lane.pool in item.standing.pools.values()]
        if len(self.models) == 1 or not self.pools:
            return (model,)
        turns, others = [model], [item for item in self.models if item is not model]
        while others:  # among themselves they share as if those that wait for other lanes were not here
            turns.append(_next_of(others))
            others.remove(turns[-1])
        return turns

    def decide(self, choose_run: ChooseRun, model: M, lane: Lane, now_s: float) -> Run | None:
        """Ask a policy what a lane that is free now runs; ``None`` where nothing that waits can meet its hard deadline.

        Where nothing of the queue is for this lane, the run has no members and is put off.
        """
        situation, queue, pools = self.situation(model, lane, now_s), model.queue.waiting(), model.standing.pools
        if not pools:
            return choose_run(queue, situation)
        if lane.pool and self.pools[lane.pool].is_full:
            return Run("", (), 0.0, wait_until_s=math.inf)
        part = part_of(queue, lane.pool, pools, self._groups_free_s(model, lane, now_s), situation)
        run = choose_run(part.waiting, situation) if part.waiting else None
        if run is None:  # what is hopeless here may be another lane's; else its deadline ends it
            return Run("", (), 0.0, wait_until_s=part.look_s)
        return replace(run, members=tuple([part.positions[member] for member in run.members]))

    def situation(self, model: M, lane: Lane, now_s: float) -> Situation:
        """Return what a decision for a lane that is free now depends on."""
        policy = model.policy
        explores = policy.exploration_share > 0.0 and model.standing.is_turn_to_explore(policy.exploration_share)
        # A lane of its own shares nothing out among the others.
        lanes = self.lanes if lane.number >= 0 else (lane,)
        free_s = [item.free_s if item.is_busy and item is not lane else now_s for item in lanes]
        if lane.pool:
            free_s = self.pools[lane.pool].free_s(now_s) or [now_s]
        contends = len(self.models) > 1 and not lane.pool
        is_shared = contends or lane.number < 0 or model.standing.pools
        return Situation(
            costs=model.calm_costs(now_s) if explores else model.costs(now_s),
            now_s=now_s,
            lanes_free_s=tuple(free_s),
            max_rows=model.max_rows,
            others_s=self._others_s(model) if contends else 0.0,
            lane_share=self._share(model) if contends else 1.0,
            price_per_s=policy.price_per_cpu_s,
            accuracy_loss=policy.max_accuracy_loss if policy.objective == "cost" else 0.0,
            shortage=policy.burst_price + policy.shortage_weight * model.standing.losses.ratio**2,
            arrival_rate_hz=0.0 if model.standing.arrivals is None else self._arrival_rate_hz(model, lane, now_s),
            recent=None if is_shared else model.standing.recent,
        )

    def begin(self, lane: Lane, model: M, run: Run, now_s: float) -> None:
        """Note that a lane starts a run."""
        lane.is_busy, lane.free_s, lane.began_s = True, now_s + run.predicted_s, now_s
        if lane.pool:
            return
        self._reached_s = max(self._reached_s, model.standing.virtual_s)
        model.standing.typical_s = run.predicted_s / max(1, len(run.members))
        model.standing.virtual_s += run.predicted_s / model.policy.weight

    def end(self, lane: Lane, model: M, now_s: float) -> None:
        """Note that a lane's run has ended, well or not, and settle what was predicted against what it took."""
        took_s = now_s - lane.began_s
        if not lane.pool:
            model.standing.virtual_s += (took_s - (lane.free_s - lane.began_s)) / model.policy.weight
        lane.is_busy = False
        lane.busy_s += took_s

    def may_precede_s(self, other: M, model: M) -> float:
        """Return how long another model's runs may go before a newcomer of this one, whatever their deadlines."""
        virtual_s = model.standing.virtual_s
        if model not in self.models:  # as ``push`` has it
            virtual_s = max(virtual_s, min([item.standing.virtual_s for item in tuple(self.models)], default=virtual_s))
        return max(0.0, virtual_s + _AHEAD_S - other.standing.virtual_s) * other.policy.weight

    def wait_s(self, now_s: float) -> float:
        """Return how long a normal newcomer would wait at least."""
        queued_s = sum(model.queue.work_s(Criticality.NORMAL) for model in self.models)
        return earliest_start_s(self._lanes_busy_s(now_s), queued_s)

    def _lanes_busy_s(self, now_s: float) -> tuple[float, ...]:
        return tuple([max(0.0, lane.free_s - now_s) if lane.is_busy else 0.0 for lane in self.lanes])

    def _groups_free_s(self, model: M, lane: Lane, now_s: float) -> dict[str, list[float]]:
        local = (lane,) if lane.number < 0 else self.lanes
        free_s = {LOCAL: [item.free_s if item.is_busy and item is not lane else now_s for item in local]}
        pools = [
            name for name in model.standing.pools.values() if name in self.pools
        ]  # a model that goes may have lost one
        return free_s | {name: self.pools[name].free_s(now_s) for name in pools}

    def _load_elsewhere(self, request: Request, now_s: float) -> Load:
        """Return the load where variants are elsewhere too: only what competes for the same lanes for sure is work."""
        model, order = request.model, (False, request.criticality, request.waiting.due_s)
        costs = model.costs(now_s)
        groups = _groups(request, costs)
        free_s = self._groups_free_s(model, self.lanes[0], now_s)
        free_s[LOCAL] = [lane.free_s if lane.is_busy else now_s for lane in self.lanes]
        busy_s = tuple([max(0.0, moment - now_s) for group in groups for moment in free_s[group]]) or (0.0,)
        before = (item for item in model.queue if item.order[:3] <= order and _groups(item, costs) <= groups)
        queued_s = sum(0.0 if item.waiting.kept_level is not None else costs.fastest_s(item.waiting) for item in before)
        if LOCAL in groups:  # other models that have only these lanes
            due_s = math.inf if now_s + request.fastest_s > order[2] else order[2]
            criticality = Criticality.SHEDDABLE if due_s == math.inf else request.criticality
            locals_ = [item for item in self.models if item is not model and not item.standing.pools]
            queued_s += sum([item.queue.work_before_s(criticality, due_s) for item in locals_])
        return Load(len(model.queue), model.policy.max_queued, busy_s, queued_s, model.queue.lowest_criticality)

    def _load(self, request: Request, now_s: float) -> Load:
        if request.model.standing.pools:
            return self._load_elsewhere(request, now_s)
        queue, lanes_busy_s = request.model.queue, self._lanes_busy_s(now_s)
        # All that waits is more than what is served before the newcomer; where even that leaves time, nobody counts.
        queued_s = sum([model.queue.work_s(Criticality.SHEDDABLE) for model in self.models])
        left_s = request.waiting.deadline_s - now_s - request.fastest_s
        if queued_s and earliest_start_s(lanes_busy_s, queued_s) > left_s:
            is_late = now_s + request.fastest_s > request.waiting.due_s
            due_s = math.inf if is_late else request.waiting.due_s
            criticality = Criticality.SHEDDABLE if is_late else request.criticality
            queued_s = sum([model.queue.work_before_s(criticality, due_s) for model in self.models])
        return Load(len(queue), request.model.policy.max_queued, lanes_busy_s, queued_s, queue.lowest_criticality)

    def _arrival_rate_hz(self, model: M, lane: Lane, now_s: float) -> float:
        """Return what deferring goes by: 0 where another model waits, or other lanes."""
        arrivals = model.standing.arrivals
        is_elsewhere = model.standing.pools or (lane.number < 0 and len(self.lanes) > 1)
        return 0.0 if arrivals is None or len(self.models) > 1 or is_elsewhere else arrivals.hz(now_s)

    def _share(self, model: M) -> float:
        return model.policy.weight / sum([item.policy.weight for item in self.models])

    def _others_s(self, model: M) -> float:
        return sum([len(item.queue) * item.standing.typical_s for item in self.models if item is not model])


def _next_of(models: Collection[M]) -> M:
    """Return whom a free lane serves first: the first deadline, but of a model that is not far ahead."""
    if len(models) == 1:
        return next(iter(models))
    limit_s = min([model.standing.virtual_s for model in models]) + _AHEAD_S
    eligible = [model for model in models if model.standing.virtual_s <= limit_s]
    return min(eligible, key=lambda model: model.queue.head.order)


def _groups(request: Request, costs: Costs) -> set[str]:
    pools = request.model.standing.pools
    return {group_of(name, costs, pools) for name in request.waiting.candidates}
