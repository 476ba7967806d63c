"""The machine's figures that the simulator needs, from one short run of a real gateway that is not judged by them.

With runs of one row each and the variant pinned, so that nothing depends on scheduling:

1. Every variant in turn, one request at a time: the quantiles of its compute time here, which replace the profile's
   (medians of larger batches are slower by the same ratio); ``before_s``, the median from arrival to the start on an
   idle lane.
2. The fastest variant, Poisson at a rate far below what the event loop can do: with N answers, U CPU-seconds of the
   gateway, lane time B (busy share times length) and C the sum of compute times,

       per_run_s = (B - C) / N        what a lane does around a run
       cpu_s     = (U - B) / N        all else the process does for a request: read, route, write

   Then a burst on the fastest variant that no event loop keeps up with, batches allowed: the time from the first
   request to the last answer, by answer, is ``saturated_s``. Both are upper bounds: the one holds wake-ups and the
   scrapes, of which a busy loop has fewer, the other whatever else kept the burst waiting, such as the lane where even
   the fastest variant takes longer than the loop. So ``loop_s`` is the smaller. Half of it is taken for reading and
   half for writing; they cannot be told apart from outside.
3. Of the fastest variant's compute time, its mean here over its mean alone, less 1, is what a busy loop takes from a
   lane (its core, or the interpreter's lock). Over the loop's share of time that is ``stolen_ratio``.
4. ``after_s``, the rest of a lone request's latency: kernel, connection, and the client's own reading.

Predictions are not calibrated: the simulated gateway starts from the manifest and learns, as the real one does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.arrivals import constant, poisson
from loadtests.h2load import LoadError
from loadtests.serving.gateways import gateways, play_on
from loadtests.serving.setting import Calibration
from loadtests.simulator.event_loop import LoopCosts
from loadtests.simulator.fleet import Machine
from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from loadtests.serving.gateways import Gateway, Played
    from loadtests.serving.setting import Setting
    from service.domain.variants import Variant

_ALONE_S: Final = 2.5
_LEAST_GAP_S: Final = 2e-3
_APART: Final = 1.6
_LOADED_S: Final = 3.0
_LOADED_HZ: Final = 600.0
_LANE_SHARE: Final = 0.5
_LEAST_LOOP_S: Final = 1e-6
_BURST: Final = 2000
_BURST_HZ: Final = 6000.0


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """The second step's sums: answers, length, CPU of the gateway, lane time, compute time; and the burst's figure."""

    answers: int
    length_s: float
    cpu_s: float
    lane_s: float
    compute_s: float
    saturated_s: float


def run_calibration(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; return the figures as what JSON can hold."""
    policy = ModelPolicy(max_batch_size=1)
    ladder = setting.ladder(policy)
    alone: dict[str, Played] = {}
    with gateways(setting, {"alone": policy, "together": ModelPolicy()}) as sites:
        site = sites["alone"]
        for variant in ladder.variants:
            gap_s = max(_LEAST_GAP_S, _APART * variant.profile.at(1).p95_s)
            alone[variant.name] = play_on(site, setting, constant(1.0 / gap_s, _ALONE_S), variant.name)
            say(f"calibrate: {variant.name} alone")
        fastest = min(ladder.variants, key=lambda item: item.profile.at(1).p50_s)
        burst = play_on(sites["together"], setting, constant(_BURST_HZ, _BURST / _BURST_HZ), fastest.name)
        loaded = _loaded(site, setting, fastest, saturated_s(burst))
    quantiles = {name: quantiles_of(compute_of(played)) for name, played in alone.items()}
    times = [lone_times(played) for played in alone.values()]
    before_s, total_s = (float(np.median([item[place] for item in times])) for place in (0, 1))
    machine = derive(loaded, float(compute_of(alone[fastest.name]).mean()), before_s, total_s)
    return {
        "quantiles_s": quantiles,
        "simulated_machine": asdict(machine),
        "loaded": asdict(loaded),
        "is_valid": all(played.run.lag.is_valid for played in alone.values()),
    }


def derive(loaded: LoadedRun, alone_s: float, before_s: float, around_s: float) -> Machine:
    """Return the machine; ``around_s`` is a lone request's latency less its wait for the lane and its compute time."""
    per_run_s = max(0.0, (loaded.lane_s - loaded.compute_s) / loaded.answers)
    cpu_s = (loaded.cpu_s - loaded.lane_s) / loaded.answers
    loop_s = max(2 * _LEAST_LOOP_S, min(cpu_s, loaded.saturated_s))
    busy_ratio = loop_s * loaded.answers / loaded.length_s
    slowed = loaded.compute_s / loaded.answers / alone_s - 1.0
    stolen = min(1.0, max(0.0, slowed / busy_ratio))
    loop = LoopCosts(loop_s / 2, loop_s / 2, before_s, stolen)
    return Machine(per_run_s=per_run_s, after_s=max(0.0, around_s - loop_s), is_learning=True, loop=loop)


def read_calibration(figures: Mapping[str, Any], variants: tuple[Variant, ...]) -> Calibration:
    """Return what was measured, as the simulator takes it."""
    machine = dict(figures["simulated_machine"])
    loop = machine["loop"]
    machine["loop"] = None if loop is None else LoopCosts(**loop)
    measured = {
        variant.name: scaled(variant.profile, LatencyCell(1, *figures["quantiles_s"][variant.name]))
        for variant in variants
        if variant.name in figures["quantiles_s"]
    }
    return Calibration(Machine(**machine), measured)


def scaled(profile: Profile, cell: LatencyCell) -> Profile:
    """Return a profile that has this cell for one row, and whose other medians are slower by the same ratio.

    The distance of their upper quantiles grows as the square root of the rows, as it does where rows scatter each by
    itself. A build is often profiled beside other work, which shows in the upper quantiles of long runs first.
    """
    ratio = cell.p50_s / profile.at(1).p50_s
    p95_s = max(cell.p50_s, cell.p95_s)
    beyond_s = p95_s - cell.p50_s, max(p95_s, cell.p99_s) - cell.p50_s
    cells = []
    for item in profile.cells:
        median_s, growth = item.p50_s * ratio, math.sqrt(item.batch_size)
        cells.append(LatencyCell(item.batch_size, median_s, *(median_s + growth * each_s for each_s in beyond_s)))
    return Profile(tuple(cells))


def compute_of(played: Played) -> NDArray[np.float64]:
    """Return the compute times of a run's answers, in seconds.

    Raises:
        LoadError: There are none.
    """
    found = played.judged.columns["compute_s"][played.judged.is_answered]
    found = found[~np.isnan(found)]
    if not len(found):
        raise LoadError("the gateway answered nothing that says how long it computed")
    return found


def quantiles_of(compute_s: NDArray[np.float64]) -> list[float]:
    """Return the median and the 95th and 99th percentile."""
    return [float(value) for value in np.percentile(compute_s, (50, 95, 99))]


def lone_times(played: Played) -> tuple[float, float]:
    """Return the medians of what lone requests wait for the lane, and of all else that is not computing."""
    columns, answered = played.judged.columns, played.judged.is_answered
    queue_s, compute_s = columns["queue_s"][answered], columns["compute_s"][answered]
    return float(np.median(queue_s)), float(np.median(columns["latency_s"][answered] - queue_s - compute_s))


def saturated_s(played: Played) -> float:
    """Return the time from the first request to the last answer of a burst, by answer.

    Raises:
        LoadError: Nothing was answered.
    """
    columns, answered = played.judged.columns, played.judged.is_answered
    if not answered.any():
        raise LoadError("the gateway answered nothing of the calibration's burst")
    last_s = float((columns["scheduled_s"] + columns["latency_s"])[answered].max())
    return (last_s - float(columns["scheduled_s"][0])) / int(answered.sum())


def _loaded(site: Gateway, setting: Setting, fastest: Variant, burst_s: float) -> LoadedRun:
    rate_hz = min(_LOADED_HZ, _LANE_SHARE / fastest.profile.at(1).p50_s)
    times_s = poisson(rate_hz, _LOADED_S, np.random.default_rng(setting.seed + 1))
    played = play_on(site, setting, times_s, fastest.name)
    scrapes = played.run.scrapes
    if len(scrapes) < 2 or scrapes[0].cpu_s is None or scrapes[-1].cpu_s is None:  # noqa: PLR2004 - a start and an end
        raise LoadError("the gateway's metrics were not to be had, or its process's CPU time is not in them")
    length_s = scrapes[-1].at - scrapes[0].at
    spans = np.diff([item.at for item in scrapes])
    lane_s = float(spans @ np.array([sum(item.lane_busy) for item in scrapes[1:]]))
    everyone = played.run.recording
    answered = everyone.columns["compute_s"][~np.isnan(everyone.columns["compute_s"])]
    return LoadedRun(
        len(answered), length_s, scrapes[-1].cpu_s - scrapes[0].cpu_s, lane_s, float(answered.sum()), burst_s
    )
