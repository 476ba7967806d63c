"""Searches on the simulator: how much can be served within a bar, and what overload and a step do to goodput."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.arrivals import piecewise, poisson
from loadtests.serving.cells import figures_of, workload_at
from loadtests.serving.setting import full_rate_hz
from loadtests.simulator.oracle import upper_bound
from loadtests.simulator.simulation import simulate
from loadtests.simulator.workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadtests.serving.contenders import Contender
    from loadtests.serving.setting import Setting, Times
    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.result import Result

ATTAINMENT: Final = 0.99
ACCURACY_LOSS: Final = 0.01
OVERLOADS: Final = (3.0, 5.0, 10.0)
_RAMP_STEP: Final = 1.4
_AT_PEAK: Final = 0.99
_LEAST_LOAD: Final = 0.01
_MOST_LOAD: Final = 1000.0
_PRECISION: Final = 0.03
_LEAST_REQUESTS: Final = 2_000
_MOST_REQUESTS: Final = 20_000
_BUDGETS: Final = 60
_CALM: Final = 0.5
_STEP: Final = 3.0
_WINDOW: Final = 100


def highest(passes: Callable[[float], bool], start: float) -> float:
    """Return the highest load found that passes, within 3 %; 0 where not even 1 % of full does.

    Doubles from ``start`` or halves down to a load that passes, then bisects: right where passing is monotone, and a
    load that passes in any case.
    """
    low, high = start, start
    while not passes(low):
        high, low = low, low / 2
        if low < _LEAST_LOAD:
            return 0.0
    while high <= low < _MOST_LOAD:
        high = 2 * low
        if passes(high):
            low = high
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def highest_load(setting: Setting, times_s: Times, contender: Contender) -> float:
    """Return the load that a contender serves with 99 % on time, its answers at most 1 point less accurate than full's.

    A load is a multiple of what all lanes compute on the most accurate variant.
    """
    fleet = setting.fleet(contender.thresholds)
    floor = full_accuracy(fleet) - ACCURACY_LOSS

    def passes(load: float) -> bool:
        workload = workload_at(setting, times_s, load, fleet)
        policy = contender.make(workload, fleet, setting.seed)
        found = figures_of(policy, workload, fleet, setting.seed)
        answered = found["expected_accuracy"] / max(found["attainment"], 1e-9)
        return bool(found["attainment"] >= ATTAINMENT and answered >= floor)

    return highest(passes, 0.5)


def highest_load_of_oracle(setting: Setting, times_s: Times) -> float:
    """Return a load above which no schedule serves what ``highest_load`` asks for."""
    fleet = setting.fleet()
    least = ATTAINMENT * (full_accuracy(fleet) - ACCURACY_LOSS)

    def passes(load: float) -> bool:
        return upper_bound(workload_at(setting, times_s, load, fleet), fleet, seed=setting.seed) >= least

    return highest(passes, 1.0)


def full_accuracy(fleet: Fleet) -> float:
    """Return the accuracy of the most accurate variant, on the answer sheet's rows where there is one."""
    return float(fleet.models[0].accuracy[0])


def least_seconds(fleet: Fleet, expected_accuracy: float) -> float:
    """Return the least lane seconds that an answer can cost where answers are right so often on average.

    The cheapest mixture of two variants or cascades, whatever the arrivals. Infinite where none is so accurate.
    """
    ladder = fleet.models[0]
    costs = [least_row_s(fleet, place) for place in range(len(ladder.variants))]
    points = list(zip(costs, ladder.accuracy.tolist(), strict=True))
    for plan in ladder.plans:
        escalated, accuracy = ladder.outcome_of(plan)
        first, second = ladder.names.index(plan.variant), ladder.names.index(plan.escalate_to)
        points.append((costs[first] + escalated * costs[second], accuracy))
    best = min((cost for cost, accuracy in points if accuracy >= expected_accuracy), default=float("inf"))
    for low_cost, low in points:
        for high_cost, high in points:
            if low < expected_accuracy < high:
                share = (expected_accuracy - low) / (high - low)
                best = min(best, (1 - share) * low_cost + share * high_cost)
    return best


def least_row_s(fleet: Fleet, place: int) -> float:
    """Return the least median lane time that a row can cost on a variant, over all sizes of a run."""
    ladder, machine = fleet.models[0], fleet.machine
    profile = ladder.real(ladder.variants[place])
    return min(
        (profile.at(rows).p50_s * machine.ratio + machine.per_run_s) / rows for rows in range(1, ladder.max_rows + 1)
    )


@dataclass(frozen=True, slots=True)
class Overload:
    """Goodput at the peak and at multiples of the rate that gave it, all per second, and the recovery after a step."""

    peak_hz: float
    peak_offered_hz: float
    goodput_hz: dict[float, float]
    recovery_s: float | None

    def document(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "peak_hz": self.peak_hz,
            "peak_offered_hz": self.peak_offered_hz,
            "goodput_hz": {f"{multiple:g}": value for multiple, value in self.goodput_hz.items()},
            "recovery_s": self.recovery_s,
        }


def overload(setting: Setting, contender: Contender) -> Overload:
    """Return what Poisson arrivals far beyond capacity do to a contender."""
    fleet = setting.fleet(contender.thresholds)

    def run(arrival_s: Times) -> Result:
        workload = make_workload(arrival_s, setting.budget(), setting.timeout_s)
        return simulate(workload, fleet, contender.make(workload, fleet, setting.seed), seed=setting.seed)

    def length_s(rate_hz: float) -> float:
        return min(max(_BUDGETS * setting.budget(), _LEAST_REQUESTS / rate_hz), _MOST_REQUESTS / rate_hz)

    def goodput(rate_hz: float) -> float:
        found = run(poisson(rate_hz, length_s(rate_hz), np.random.default_rng(setting.seed)))
        return float(np.count_nonzero(found.is_on_time)) / length_s(rate_hz)

    peak_hz, at_hz = peak_of([(rate_hz, goodput(rate_hz)) for rate_hz in ramp(fleet)])
    step_s = length_s(_STEP * peak_hz)
    starts = [0.0, step_s, 2 * step_s]
    rng = np.random.default_rng(setting.seed)
    times = piecewise(starts, [_CALM * peak_hz, _STEP * peak_hz, _CALM * peak_hz], 5 * step_s, rng)
    found = run(times)
    return Overload(
        peak_hz=peak_hz,
        peak_offered_hz=at_hz,
        goodput_hz={multiple: goodput(multiple * at_hz) for multiple in OVERLOADS},
        recovery_s=recovery_s(times, found.is_on_time, starts[2]),
    )


def ramp(fleet: Fleet) -> list[float]:
    """Return rising rates: from half of what the most accurate variant can answer to twice what anything can."""
    rates_hz, top_hz = [0.5 * full_rate_hz(fleet)], 2 * capacity_hz(fleet)
    while rates_hz[-1] < top_hz:
        rates_hz.append(rates_hz[-1] * _RAMP_STEP)
    return rates_hz


def peak_of(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the peak goodput of (offered, goodput) points, and the least rate offered that gave 99 % of it."""
    peak_hz = max(goodput_hz for _, goodput_hz in points)
    return peak_hz, min(rate_hz for rate_hz, goodput_hz in points if goodput_hz >= _AT_PEAK * peak_hz)


def capacity_hz(fleet: Fleet) -> float:
    """Return the most requests per second that lanes, and the event loop where it is known, could ever answer."""
    least_s = min(least_row_s(fleet, place) for place in range(len(fleet.models[0].variants)))
    lanes_hz = fleet.gateways * fleet.lanes / least_s
    loop = fleet.machine.loop
    return lanes_hz if loop is None else min(lanes_hz, fleet.gateways / (loop.read_s + loop.reply_s))


def recovery_s(times_s: NDArray[np.floating[Any]], is_on_time: NDArray[np.bool_], end_s: float) -> float | None:
    """Return how long after ``end_s`` it takes until 99 of the next 100 arrivals are on time; ``None`` if never."""
    first = int(np.searchsorted(times_s, end_s))
    later = is_on_time[first:].astype(np.int64)
    if len(later) < _WINDOW:
        return None
    counts = np.convolve(later, np.ones(_WINDOW, np.int64), "valid")  # (later - 99,)
    well = np.flatnonzero(counts >= ATTAINMENT * _WINDOW)
    return None if not len(well) else max(0.0, float(times_s[first + well[0]]) - end_s)
