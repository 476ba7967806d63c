"""The clock: arrivals and ends of runs, in order of time.

Gateways behind a balancer that does not look at them never meet, so each is simulated on its own with its share of the
arrivals: its agenda holds no more entries than it has lanes, and gateways can be spread over processes. A balancer
that looks needs one clock for all.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from heapq import heappop
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.simulator.early_gateway import EarlyGateway
from loadtests.simulator.event_loop import Doorway
from loadtests.simulator.fleet import Balancer
from loadtests.simulator.gateway import Place
from loadtests.simulator.late_gateway import LateGateway
from loadtests.simulator.luck import draw_luck, rightly_answered
from loadtests.simulator.policy import OURS, LatePolicy, Site
from loadtests.simulator.result import Outcome, Records, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.gateway import Event, Gateway, Request
    from loadtests.simulator.policy import Policy
    from loadtests.simulator.workload import Workload

_CHUNK: Final = 1 << 17
"""Requests that are turned into Python objects at a time."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Gateways to simulate one by one, each with its requests' places in the workload of the task."""

    workload: Workload
    luck: NDArray[np.float32]
    shares: tuple[tuple[int, NDArray[np.int64]], ...]
    fleet: Fleet
    policy: Policy
    seed: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a task gives: the record arrays, busy seconds by lane of its gateways, seconds wasted."""

    arrays: tuple[NDArray[np.generic], ...]
    busy_s: NDArray[np.float64]
    wasted_s: float


def simulate(workload: Workload, fleet: Fleet, policy: Policy = OURS, *, seed: int = 0, processes: int = 1) -> Result:
    """Let the fleet serve the workload under a policy.

    The same arguments give the same result, whatever ``processes`` is. Luck is drawn from ``seed`` by request, so that
    policies compared under one seed meet the same compute times and answers. More than one process helps only where
    the balancer does not look at the gateways' state.
    """
    luck, difficulty = draw_luck(len(workload), seed)
    if fleet.balancer is Balancer.TWO_CHOICES and fleet.gateways > 1:
        done = _simulate_together(_Task(workload, luck, (), fleet, policy, seed))
    else:
        done = _simulate_apart(
            _Task(workload, luck, _shares(len(workload), fleet, seed), fleet, policy, seed), processes
        )
    outcome, variant, lane, batch, start_s, finish_s = done.arrays
    in_time = finish_s <= workload.arrival_s + workload.budget_s  # type: ignore[operator]
    return Result(
        policy=policy.name,
        workload=workload,
        fleet=fleet,
        outcome=outcome.astype(np.int8, copy=False),
        variant=variant.astype(np.int8, copy=False),
        lane=lane.astype(np.int32, copy=False),
        batch=batch.astype(np.int16, copy=False),
        start_s=start_s.astype(np.float64, copy=False),
        finish_s=finish_s.astype(np.float64, copy=False),
        is_on_time=in_time & (outcome == Outcome.ANSWERED),
        is_correct=rightly_answered(workload, fleet, variant.astype(np.int8, copy=False), difficulty),
        busy_s=done.busy_s,
        wasted_s=done.wasted_s,
    )


def _shares(requests: int, fleet: Fleet, seed: int) -> tuple[tuple[int, NDArray[np.int64]], ...]:
    if fleet.gateways == 1:
        return ((0, np.arange(requests)),)
    if fleet.balancer is Balancer.ROUND_ROBIN:
        return tuple((number, np.arange(number, requests, fleet.gateways)) for number in range(fleet.gateways))
    gateway = np.random.default_rng([seed, 1]).integers(fleet.gateways, size=requests)
    order = np.argsort(gateway, kind="stable")
    edges = np.searchsorted(gateway[order], np.arange(fleet.gateways + 1))
    return tuple((number, order[edges[number] : edges[number + 1]]) for number in range(fleet.gateways))


def _simulate_apart(task: _Task, processes: int) -> _Outcome:
    processes = min(processes, len(task.shares))
    if processes <= 1:
        return _run_shares(task)
    parts = [task.shares[first::processes] for first in range(processes)]
    places = [np.sort(np.concatenate([where for _, where in part])) for part in parts]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = list(pool.map(_run_shares, [_sub_task(task, *item) for item in zip(parts, places, strict=True)]))
    lanes = task.fleet.lanes
    busy_s = np.zeros((task.fleet.gateways, lanes))
    arrays = tuple(np.empty(len(task.workload), array.dtype) for array in outcomes[0].arrays)
    for first, (where, outcome) in enumerate(zip(places, outcomes, strict=True)):
        busy_s[first::processes] = outcome.busy_s.reshape(-1, lanes)
        for target, source in zip(arrays, outcome.arrays, strict=True):
            target[where] = source
    return _Outcome(arrays, busy_s.ravel(), sum(outcome.wasted_s for outcome in outcomes))


def _sub_task(task: _Task, shares: Sequence[tuple[int, NDArray[np.int64]]], places: NDArray[np.int64]) -> _Task:
    own = tuple((number, np.searchsorted(places, where)) for number, where in shares)
    return replace(task, workload=task.workload.part(places), luck=task.luck[places], shares=own)


def _run_shares(task: _Task) -> _Outcome:
    records, busy_s, wasted_s = Records(len(task.workload)), [], 0.0
    for number, where in task.shares:
        agenda: list[Event] = []
        place, gateway = _open(task, number, agenda, records)
        _play(_requests(task, where), lambda gateway=gateway: gateway, agenda)  # type: ignore[misc]
        busy_s.extend(place.busy_s)
        wasted_s += place.wasted_s
    return _Outcome(records.arrays(), np.array(busy_s), wasted_s)


def _simulate_together(task: _Task) -> _Outcome:
    records = Records(len(task.workload))
    agenda: list[Event] = []
    opened = [_open(task, number, agenda, records) for number in range(task.fleet.gateways)]
    gateways = [gateway for _, gateway in opened]
    _play(_requests(task, np.arange(len(task.workload))), _TwoChoices(gateways, task.seed), agenda)
    busy_s = np.array([seconds for place, _ in opened for seconds in place.busy_s])
    return _Outcome(records.arrays(), busy_s, sum(place.wasted_s for place, _ in opened))


def _play(requests: Iterator[tuple[float, Request]], choose: Callable[[], Gateway], agenda: list[Event]) -> None:
    """Drive gateways through all arrivals, then through what is left to finish; ends come before arrivals."""
    for now_s, request in requests:
        while agenda and agenda[0][0] <= now_s:
            end_s, _, lane, gateway = heappop(agenda)
            gateway.finish(lane, end_s)
        choose().arrive(request, now_s)
    while agenda:
        end_s, _, lane, gateway = heappop(agenda)
        gateway.finish(lane, end_s)


def _requests(task: _Task, where: NDArray[np.int64]) -> Iterator[tuple[float, Request]]:
    load, aims_s = task.workload, _aims_s(task.workload, task.fleet)
    for first in range(0, len(where), _CHUNK):
        part = where[first : first + _CHUNK]
        columns = (load.kind, aims_s, load.timeout_s, load.criticality)
        yield from zip(
            load.arrival_s[part].tolist(),
            zip(part.tolist(), *(array[part].tolist() for array in columns), task.luck[part].tolist(), strict=True),
            strict=True,
        )


def _aims_s(workload: Workload, fleet: Fleet) -> NDArray[np.float64]:
    """Return the budgets that gateways go by, (N,): a request's own, or its model's default."""
    aims_s = workload.budget_s.copy()
    for number, kind in enumerate(workload.kinds):
        if not kind.names_budget:
            aims_s[workload.kind == number] = fleet.models[kind.model].policy.default_budget_s
    return aims_s


def _open(task: _Task, number: int, agenda: list[Event], records: Records) -> tuple[Place, Gateway]:
    fleet, chance = task.fleet, np.random.default_rng([task.seed, 2, number])
    costs = tuple(ladder.costs() for ladder in fleet.models)
    site = Site(costs, tuple(ladder.max_rows for ladder in fleet.models), fleet.lanes, fleet.machine, chance)
    place = Place(fleet, task.workload, site, number, agenda, records)
    loop, gateway = fleet.machine.loop, _gateway(task.policy, place)
    if loop is None:
        return place, gateway
    turns_away = gateway.turns_away if isinstance(gateway, LateGateway) else _lets_in
    return place, Doorway(gateway, place, loop, turns_away)


def _gateway(policy: Policy, place: Place) -> LateGateway | EarlyGateway:
    return LateGateway(policy, place) if isinstance(policy, LatePolicy) else EarlyGateway(policy, place)


def _lets_in(_: Request, __: float, ___: float) -> bool:
    return False


class _TwoChoices:
    """Sends each request to the less loaded of two gateways drawn at random."""

    def __init__(self, gateways: Sequence[Gateway], seed: int) -> None:
        self._gateways = gateways
        self._chance = np.random.default_rng([seed, 1])
        self._pairs: list[list[int]] = []

    def __call__(self) -> Gateway:
        """Return the next request's gateway."""
        if not self._pairs:
            self._pairs = self._chance.integers(len(self._gateways), size=(_CHUNK, 2)).tolist()
        first, second = self._pairs.pop()
        one, other = self._gateways[first], self._gateways[second]
        return one if one.inside <= other.inside else other
