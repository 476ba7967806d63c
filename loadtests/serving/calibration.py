"""The machine's figures that the simulator needs, from one short run of a real gateway that is not judged by them.

With runs of one row each and the variant pinned, so that nothing depends on scheduling:

1. Every variant in turn, one request at a time: the quantiles of its compute time here, which replace the profile's
   (medians of larger batches are slower by the same ratio); ``before_s``, the median from arrival to the start on an
   idle lane. Two hundred runs of the slowest variant, too: its lane is the limit wherever it serves, and of a hundred
   runs one that the machine held up would be the 99th percentile.
2. The fastest variant, Poisson at a rate far below what the event loop can do: with N answers, U CPU-seconds of the
   gateway, lane time B (busy share times length) and C the sum of compute times,

       per_run_s = (B - C) / N        what a lane does around a run
       cpu_s     = (U - B) / N        all else the process does for a request: read, route, write

   And piles on a gateway that has the fastest variant alone, batches allowed: small and large ones in turn, each sent
   at once and answered in full before the next; some before all else, some in between and some at the end, since the
   machine differs from one second to the next. By what the median large one takes longer, from its first request to
   its last answer, by request that it has more, is ``saturated_s``. Both are upper bounds: the one holds wake-ups and
   cold caches, which in a burst are paid for once, the other whatever else keeps a pile waiting, such as the lane where
   even the fastest variant takes longer than the loop. So ``loop_s`` is the smaller. Half of it is taken for reading
   and half for writing; they cannot be told apart from outside.
3. ``after_s``, the rest of a lone request's latency: kernel, connection, and the client's own reading.

By how much a working loop makes runs longer is not measured: that lanes wait for the interpreter when a run ends (see
``loadtests.simulator.event_loop``) follows from the loop's time. ``loaded`` shows it: its mean compute time beside that
of lone requests.

Predictions are not calibrated: the simulated gateway starts from the manifest and learns, as the real one does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import product
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
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from loadtests.outcome import Judged
    from loadtests.serving.gateways import Gateway, Played
    from loadtests.serving.setting import Setting
    from service.domain.variants import Variant

_ALONE_S: Final = 2.5
_ALONE: Final = 200
_LEAST_GAP_S: Final = 2e-3
_APART: Final = 1.3
_LOADED_S: Final = 3.0
_LOADED_HZ: Final = 600.0
_LANE_SHARE: Final = 0.5
_LEAST_LOOP_S: Final = 1e-6
_PILES: Final = (10, 40) * 8
"""Requests. So few that the door lets all in, and that they are no crowd to it, however late they are."""
_PILE_GAP_S: Final = 0.1
_PILE_HZ: Final = 1e5


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """The second step's sums: answers, CPU of the gateway, lane time, compute time."""

    answers: int
    cpu_s: float
    lane_s: float
    compute_s: float


def run_calibration(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; return the figures as what JSON can hold."""
    policy = ModelPolicy(max_batch_size=1)
    ladder = setting.ladder(policy)
    alone: dict[str, Played] = {}
    fastest = min(ladder.variants, key=lambda item: item.profile.at(1).p50_s)
    with gateways(setting, {"alone": policy, "piled": ModelPolicy(variants=(fastest.name,))}) as sites:
        site, piled = sites["alone"], [play_on(sites["piled"], setting, pile_times_s()).judged]
        for variant in ladder.variants:
            gap_s = max(_LEAST_GAP_S, _APART * variant.profile.at(1).p50_s)
            times_s = constant(1.0 / gap_s, max(_ALONE_S, _ALONE * gap_s))
            alone[variant.name] = play_on(site, setting, times_s, variant.name)
            say(f"calibrate: {variant.name} alone")
        piled.append(play_on(sites["piled"], setting, pile_times_s()).judged)
        loaded = _loaded(site, setting, fastest)
        piled.append(play_on(sites["piled"], setting, pile_times_s()).judged)
    quantiles = {name: quantiles_of(compute_of(played)) for name, played in alone.items()}
    times = [lone_times(played) for played in alone.values()]
    before_s, total_s = (float(np.median([item[place] for item in times])) for place in (0, 1))
    machine = derive(loaded, saturated_s(piled), before_s, total_s)
    return {
        "quantiles_s": quantiles,
        "simulated_machine": asdict(machine),
        "loaded": asdict(loaded) | {"saturated_s": saturated_s(piled)},
        "is_valid": all(played.run.lag.is_valid for played in alone.values()),
    }


def derive(loaded: LoadedRun, piled_s: float, before_s: float, around_s: float) -> Machine:
    """Return the machine.

    ``piled_s`` is what piles show the loop to take at most for a request, ``around_s`` a lone request's latency less
    its wait for the lane and its compute time.
    """
    per_run_s = max(0.0, (loaded.lane_s - loaded.compute_s) / loaded.answers)
    cpu_s = (loaded.cpu_s - loaded.lane_s) / loaded.answers
    loop_s = max(2 * _LEAST_LOOP_S, min(cpu_s, piled_s))
    loop = LoopCosts(loop_s / 2, loop_s / 2, before_s)
    return Machine(per_run_s=per_run_s, after_s=max(0.0, around_s - loop_s), is_learning=True, loop=loop)


def read_calibration(figures: Mapping[str, Any], variants: tuple[Variant, ...]) -> Calibration:
    """Return what was measured, as the simulator takes it; results may hold figures that it took once."""
    machine = dict(figures["simulated_machine"])
    loop = machine["loop"]
    known = {item.name for item in fields(LoopCosts)}
    machine["loop"] = loop and LoopCosts(**{name: value for name, value in loop.items() if name in known})
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


def pile_times_s() -> NDArray[np.float64]:
    """Return the moments at which the requests of all piles are sent."""
    piles = (place * _PILE_GAP_S + np.arange(size) / _PILE_HZ for place, size in enumerate(_PILES))
    return np.concatenate([*piles])


def saturated_s(piled: Sequence[Judged]) -> float:
    """Return by how much longer large piles take than small ones, by request that they have more.

    Raises:
        LoadError: Of every large or every small pile something was not answered.
    """
    small, large = sorted(set(_PILES))
    took_s: dict[int, list[float]] = {small: [], large: []}
    firsts = np.cumsum((0, *_PILES[:-1]))
    for judged, (first, size) in product(piled, zip(firsts, _PILES, strict=True)):
        sent_s, pile = judged.columns["scheduled_s"], slice(first, first + size)
        if judged.is_answered[pile].all():
            took_s[size].append(float((sent_s + judged.columns["latency_s"])[pile].max() - sent_s[first]))
    if not took_s[small] or not took_s[large]:
        raise LoadError("the gateway did not answer one whole pile of the calibration's")
    return float(np.median(took_s[large]) - np.median(took_s[small])) / (large - small)


def _loaded(site: Gateway, setting: Setting, fastest: Variant) -> LoadedRun:
    rate_hz = min(_LOADED_HZ, _LANE_SHARE / fastest.profile.at(1).p50_s)
    times_s = poisson(rate_hz, _LOADED_S, np.random.default_rng(setting.seed + 1))
    played = play_on(site, setting, times_s, fastest.name)
    scrapes = played.run.scrapes
    if len(scrapes) < 2 or scrapes[0].cpu_s is None or scrapes[-1].cpu_s is None:  # noqa: PLR2004 - a start and an end
        raise LoadError("the gateway's metrics were not to be had, or its process's CPU time is not in them")
    spans = np.diff([item.at for item in scrapes])
    lane_s = float(spans @ np.array([sum(item.lane_busy) for item in scrapes[1:]]))
    everyone = played.run.recording
    answered = everyone.columns["compute_s"][~np.isnan(everyone.columns["compute_s"])]
    return LoadedRun(len(answered), scrapes[-1].cpu_s - scrapes[0].cpu_s, lane_s, float(answered.sum()))
