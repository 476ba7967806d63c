"""The hindsight oracle: what the best schedule could have had, knowing all arrivals and all compute times.

Value. A schedule gets, for each request that is answered by its due moment, the accuracy of the variant that answers
(``knows_answers`` false: compare with ``Summary.expected_accuracy``), or 1 if that variant answers this very row
rightly and 0 if not (true: compare with ``effective_accuracy``; an oracle that knows the answers too, which bounds
every policy, also one that looks at a first answer before it pays for a second).

``exact_value`` searches all schedules. Order the runs of any schedule by their start; giving each in turn to the lane
that is free first, at the earliest moment that its members' arrivals allow, starts no run later than before (an
exchange of what two lanes do after a moment). So it is enough to try every order of runs, every set of members and
every variant: exact, and only for a handful of requests.

``upper_bound`` is a linear program whose optimum no schedule exceeds. Let request i be served by variant v for a share
x_iv, 0 <= x_iv, sum_v x_iv <= 1, and cost c_iv seconds of lane. In a real schedule x is 0 or 1, and

1. a run of b members takes lane time t >= sum of its members' c_iv if c_iv is at most each member's share of any run
   that it could be in: c_iv = min over b of t_v(b) / b, with the request's own luck for b = 1 and the smallest compute
   time possible for larger b, which take their luck from one member;
2. let S(t) be the lane time spent until t on runs that count, each run's time being scaled down to the sum of its
   members' c_iv. Then S(t') - S(t) <= lanes * (t' - t);
3. nothing is computed before it arrives: S(t) <= sum of c_iv x_iv over the requests that arrived before t;
4. what counts is done when it is due: S(t) >= sum of c_iv x_iv over the requests due until t;
5. x_iv = 0 where even alone on an idle lane variant v is too late for request i.

A cascade is one more v: its value is the accuracy of its answers on the sheet, its cost that of the first variant and
the share of the second's that escalates, both as expected before the row is looked at. Nothing that a schedule does
with a request before it has seen the margin depends on the row, so in the mean over rows these are what it gets and
pays; a second stage that is left out makes it a mixture of the cascade and its first variant, which the program has
too. So where there are cascades the bound is one on the mean over rows. With ``knows_answers`` they are not needed.

With an event loop a request arrives when the loop can have read it at the soonest, and is due a reply's time earlier.

Every schedule therefore gives a feasible point with its own value, and the optimum is an upper bound. S is a variable
at each arrival and each due moment only, which relaxes it further, and both sums are running sums, so the program is
sparse: about six variables a request. With one budget for all, 3 and 4 together are as strong as writing out which
request is worked on when (of two requests the earlier one is due first, so work can be taken in order); with mixed
budgets they are weaker, and still valid. It is loose where a request could use two lanes at once, and where a run's
fractions would have to be whole.

Long workloads are cut into windows of consecutive arrivals and each window gets all lanes for itself. An optimal
schedule of the whole, with the requests outside a window left out, is a schedule of that window; so the sum of the
windows' bounds is at least the whole optimum. Gateways are pooled: any lane may serve any request.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from loadtests.simulator.ladder import DRAWS, draw_table
from loadtests.simulator.luck import draw_luck, rightly_answered
from loadtests.simulator.workload import model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.ladder import Ladder
    from loadtests.simulator.workload import Workload

_WINDOW: Final = 2_000
"""Requests of one linear program."""

_MOST_EXACT: Final = 8


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to answer: the places of the variants that run, each with the share of requests for which it does."""

    stages: tuple[tuple[int, float], ...]
    accuracy: float


@dataclass(frozen=True, slots=True)
class _Case:
    """A window of requests: arrival and due moments (n,), and for each option of its model cost and value (n, V)."""

    arrival_s: NDArray[np.float64]
    due_s: NDArray[np.float64]
    cost_s: NDArray[np.float64]
    value: NDArray[np.float64]
    lanes: int


def upper_bound(workload: Workload, fleet: Fleet, *, seed: int = 0, knows_answers: bool = False) -> float:
    """Return a bound, 0..1, on the effective accuracy of every schedule of this workload under this seed's luck."""
    if not len(workload):
        raise ValueError("oracle: the workload is empty")
    case = _case(workload, fleet, seed, knows_answers=knows_answers)
    return sum(_solve(part) for part in _windows(case)) / len(workload)


def exact_value(workload: Workload, fleet: Fleet, *, seed: int = 0, knows_answers: bool = False) -> float:
    """Return the effective accuracy, 0..1, of the best schedule, for up to 8 requests of one model.

    Raises:
        ValueError: There are more requests or models than a search can take, or runs do not take the same time always.
    """
    if not 0 < len(workload) <= _MOST_EXACT or len(fleet.models) != 1 or not fleet.machine.is_exact:
        raise ValueError(
            f"oracle: an exact search takes 1 to {_MOST_EXACT} requests of one model with exact compute times, not "
            f"{len(workload)} requests of {len(fleet.models)} models"
        )
    if {kind.rows for kind in workload.kinds} != {1}:
        raise ValueError("oracle: an exact search takes requests of one row")
    case = _case(workload, fleet, seed, knows_answers=knows_answers)
    ladder, machine = fleet.models[0], fleet.machine
    sizes = range(1, ladder.max_rows + 1)
    runs_s = [
        [ladder.real(variant).at(rows).p50_s * machine.ratio + machine.per_run_s for rows in sizes]
        for variant in ladder.variants
    ]
    search = _Search(case, runs_s)
    search.go((0.0,) * case.lanes, tuple(range(len(workload))), 0.0)
    return search.best / len(workload)


class _Search:
    """Tries every order of runs; ``runs_s`` is lane time by variant and by members less one."""

    def __init__(self, case: _Case, runs_s: list[list[float]]) -> None:
        self.best = 0.0
        self._case = case
        self._runs_s = runs_s
        self._most = case.value.max(axis=1)

    def go(self, free_s: tuple[float, ...], left: tuple[int, ...], value: float) -> None:
        """Search on from lanes that are free at these moments, ascending, with these requests left."""
        self.best = max(self.best, value)
        if value + float(self._most[list(left)].sum()) <= self.best + 1e-12:
            return
        case = self._case
        for members in self._sets(left):
            start_s = max(free_s[0], float(case.arrival_s[list(members)].max()))
            rest = tuple(item for item in left if item not in members)
            for variant, times in enumerate(self._runs_s):
                end_s = start_s + times[len(members) - 1]
                gained = sum(float(case.value[item, variant]) for item in members if end_s <= case.due_s[item])
                if gained > 0:
                    self.go(tuple(sorted((*free_s[1:], end_s))), rest, value + gained)

    def _sets(self, left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for size in range(1, min(len(left), len(self._runs_s[0])) + 1):
            yield from combinations(left, size)


def _case(workload: Workload, fleet: Fleet, seed: int, *, knows_answers: bool) -> _Case:
    machine, models = fleet.machine, model_of(workload)
    luck, answers = draw_luck(len(workload), seed)
    options = [_options(ladder, knows_answers=knows_answers) for ladder in fleet.models]
    cost_s, value = np.full((2, len(workload), max(map(len, options))), np.inf)
    value[:] = 0.0
    reply_s = machine.loop.reply_s if machine.loop else 0.0
    arrival_s = _read_at_s(workload.arrival_s, fleet)
    due_s = workload.arrival_s + np.minimum(workload.budget_s, workload.timeout_s) - machine.after_s - reply_s
    rows = np.array([kind.rows for kind in workload.kinds])[workload.kind]
    for number, ladder in enumerate(fleet.models):
        mine = np.flatnonzero(models == number)
        for place, option in enumerate(options[number]):
            chosen = np.full(len(workload), place, np.int8)
            right = rightly_answered(workload, fleet, chosen, answers)[mine] if knows_answers else option.accuracy
            for count in np.unique(rows[mine]):
                those = mine[rows[mine] == count]
                requests = (int(count), luck[those])
                stages = [_least_cost(ladder, stage, requests, fleet) for stage, _ in option.stages]
                cost_s[those, place] = sum(
                    share * stage_s for (_, share), (stage_s, _) in zip(option.stages, stages, strict=True)
                )
                is_possible = arrival_s[those] + stages[0][1] <= due_s[those]
                value[those, place] = np.where(is_possible, np.broadcast_to(right, len(mine))[rows[mine] == count], 0.0)
    for number, kind in enumerate(workload.kinds):
        ladder = fleet.models[kind.model]
        allowed = {ladder.names.index(name) for name in ladder.candidates(kind.candidates)}
        for place, option in enumerate(options[kind.model]):
            if not {stage for stage, _ in option.stages} <= allowed:
                value[workload.kind == number, place] = 0.0
    return _Case(arrival_s, due_s, cost_s, value, fleet.gateways * fleet.lanes)


def _options(ladder: Ladder, *, knows_answers: bool) -> list[_Option]:
    """Return the ladder's variants in order, and behind them its cascades, which nobody needs who knows the answers."""
    found = [_Option(((place, 1.0),), float(accuracy)) for place, accuracy in enumerate(ladder.accuracy)]
    for plan in () if knows_answers else ladder.plans:
        escalated, accuracy = ladder.outcome_of(plan)
        first, second = ladder.names.index(plan.variant), ladder.names.index(plan.escalate_to)
        found.append(_Option(((first, 1.0), (second, escalated)), accuracy))
    return found


def _read_at_s(arrival_s: NDArray[np.float64], fleet: Fleet) -> NDArray[np.float64]:
    """Return the earliest moment at which an event loop, if there is one, can have read each request.

    It reads every request, in order, whatever is decided later: with one gateway the loop does so no sooner than one
    that had nothing to write (Lindley's recursion).
    """
    loop = fleet.machine.loop
    if loop is None:
        return arrival_s
    if fleet.gateways > 1:
        return arrival_s + loop.read_s
    before_s = loop.read_s * np.arange(len(arrival_s))
    read_at_s: NDArray[np.float64] = np.maximum.accumulate(arrival_s - before_s) + before_s + loop.read_s
    return read_at_s


def _least_cost(
    ladder: Ladder, place: int, requests: tuple[int, NDArray[np.float32]], fleet: Fleet
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least lane seconds that requests of so many rows and this luck can cost, and the least to wait."""
    rows, luck = requests
    machine, profile = fleet.machine, ladder.real(ladder.variants[place])

    def table(total: int) -> NDArray[np.float64]:
        cell = profile.at(total).scaled(machine.ratio)
        return np.array(draw_table(cell, is_exact=machine.is_exact)) + machine.per_run_s

    share_s = alone_s = table(rows)[(luck * DRAWS).astype(np.int64)]
    # A request may share a run with smaller ones, so what counts is its part of the run's rows.
    for total in range(rows + 1, ladder.max_rows + 1):
        least_s = float(table(total)[0])
        share_s, alone_s = np.minimum(share_s, least_s * rows / total), np.minimum(alone_s, least_s)
    return share_s, alone_s


def _windows(case: _Case) -> Iterator[_Case]:
    for first in range(0, len(case.arrival_s), _WINDOW):
        part = slice(first, first + _WINDOW)
        yield _Case(case.arrival_s[part], case.due_s[part], case.cost_s[part], case.value[part], case.lanes)


def _solve(case: _Case) -> float:
    request, variant = np.nonzero(case.value > 0)
    if not len(request):
        return 0.0
    value, cost_s = case.value[request, variant], case.cost_s[request, variant]
    requests, shares = len(case.arrival_s), len(request)
    moments = np.unique(np.concatenate([case.arrival_s, case.due_s]))
    # Variables: x (shares), A (requests) work arrived, D (requests) work due, S (moments) work done.
    arrived, due, done = shares, shares + requests, shares + 2 * requests
    order = np.argsort(case.due_s, kind="stable")
    rank = np.empty(requests, np.int64)
    rank[order] = np.arange(requests)
    everyone, later = np.arange(requests), np.arange(1, requests)
    equal = _Rows(done + len(moments))
    for base, place in ((arrived, request), (due, rank[request])):
        first = equal.add(requests)
        equal.put(first + everyone, base + everyone, 1.0)
        equal.put(first + later, base + later - 1, -1.0)
        equal.put(first + place, np.arange(shares), -cost_s)
    limits = _Rows(done + len(moments))
    steps = np.arange(len(moments) - 1)
    for sign, bound in ((1.0, case.lanes * np.diff(moments)), (-1.0, np.zeros(len(steps)))):
        first = limits.add(len(steps), bound)
        limits.put(first + steps, done + steps + 1, sign)
        limits.put(first + steps, done + steps, -sign)
    before = np.searchsorted(case.arrival_s, moments, side="left")  # requests that arrived before each moment
    first = limits.add(len(moments))
    limits.put(first + np.arange(len(moments)), done + np.arange(len(moments)), 1.0)
    some = np.flatnonzero(before)
    limits.put(first + some, arrived + before[some] - 1, -1.0)
    until = np.searchsorted(case.due_s[order], moments, side="right")  # requests due until each moment
    some = np.flatnonzero(until)
    first = limits.add(len(some))
    limits.put(first + np.arange(len(some)), due + until[some] - 1, 1.0)
    limits.put(first + np.arange(len(some)), done + some, -1.0)
    whole = limits.add(requests, np.ones(requests))
    limits.put(whole + request, np.arange(shares), 1.0)
    gain = np.zeros(done + len(moments))
    gain[:shares] = -value
    answer = linprog(
        gain,
        A_ub=limits.matrix(),  # type: ignore[call-overload]  # the stubs know dense matrices only
        b_ub=limits.bounds(),
        A_eq=equal.matrix(),
        b_eq=equal.bounds(),
        method="highs-ipm",
    )
    if answer.status != 0:
        raise RuntimeError(f"oracle: the linear program was not solved: {answer.message}")
    return -float(answer.fun)


class _Rows:
    """Rows of a sparse matrix of constraints, with their right-hand sides."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._count = 0
        self._entries: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._bounds: list[NDArray[np.float64]] = []

    def add(self, count: int, bounds: NDArray[np.float64] | None = None) -> int:
        """Make room for so many rows, bounded by 0 unless told, and return the first one's number."""
        first, self._count = self._count, self._count + count
        self._bounds.append(np.zeros(count) if bounds is None else bounds)
        return first

    def put(self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64] | float) -> None:
        """Set entries."""
        self._entries.append((rows, columns, np.broadcast_to(np.asarray(values, np.float64), rows.shape)))

    def matrix(self) -> coo_array:
        """Return the matrix."""
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        return coo_array((values, (rows, columns)), shape=(self._count, self._columns))

    def bounds(self) -> NDArray[np.float64]:
        """Return the right-hand sides."""
        return np.concatenate(self._bounds)
