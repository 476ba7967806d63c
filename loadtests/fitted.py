"""Seeded stand-ins for recorded traces: arrivals with the statistics of a trace, where the trace itself is not at hand.

The model has a slow and a fast part, because real request streams vary on both scales:

    the level of the rate is piecewise constant; stays are exponential with mean ``stay_s``, levels Gamma with mean 1
    and variance ``level_variance`` (above 1 most of the time is nearly empty)
    at that rate come clusters (Neyman and Scott 1958): geometric sizes with mean ``cluster_size``, the requests of one
    spread over it by exponential offsets with mean ``cluster_s``

Four parameters answer to four figures of the trace: gap CV, index of dispersion at 1 s and at 60 s, and the busiest
second. ``fit_stand_in`` searches them by simulation: the score is the root mean square of the logarithms of the
ratios between the figures of drawn and recorded traces, over a fixed set of seeds; a Gaussian proposal around the
best so far (a (1+1) evolution strategy, Rechenberg 1973) moves all parameters at once and shrinks when it fails.

It is not the trace: long memory beyond some minutes, daily shape and correlations with what was asked are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests import arrivals
from loadtests.traces import Shape, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Times = NDArray[np.float64]

FIGURES: Final = ("rate_hz", "gap_cv", "dispersion_1s", "dispersion_60s", "peak_ratio")
_LOW: Final = np.log([1e-3, 2.0, 1.0, 1e-3])
_HIGH: Final = np.log([20.0, 600.0, 60.0, 10.0])
_GROW, _SHRINK = 1.5, 0.9
_LEAST_SPREAD, _MOST_SPREAD = 0.02, 1.0


@dataclass(frozen=True, slots=True)
class Fit:
    """Parameters of the model, and the figures of the trace that they were fitted to."""

    level_variance: float
    stay_s: float
    cluster_size: float
    cluster_s: float
    target: Shape


def draw_stand_in(fit: Fit, duration_s: float, seed: int) -> Times:
    """Return arrivals in [0, duration_s) whose expected number is the target's rate times the duration.

    The drawn levels are divided by their mean over the duration: a level that lasts minutes would otherwise leave the
    mean rate of half an hour to chance.
    """
    rng = np.random.default_rng([seed, 5])
    starts_s, levels = _draw_levels(fit, duration_s, rng)
    edges = np.append(starts_s, duration_s)
    mean = float(levels @ np.diff(edges)) / duration_s
    parents = arrivals.piecewise(
        starts_s.tolist(), (levels / mean * fit.target.rate_hz / fit.cluster_size).tolist(), duration_s, rng
    )
    sizes = rng.geometric(1.0 / fit.cluster_size, len(parents))
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    offsets = rng.exponential(fit.cluster_s, int(sizes.sum()))
    if len(parents):
        offsets[first] = 0.0  # the parent itself
    times = np.sort(np.repeat(parents, sizes) + offsets)
    return times[times < duration_s]


def mean_shape(fit: Fit, seeds: Sequence[int]) -> Shape:
    """Return the figures of draws with these seeds, as long as the target; each figure is the median over the seeds."""
    length_s = fit.target.duration_s
    shapes = [describe(draw_stand_in(fit, length_s, seed), length_s) for seed in seeds]
    figures = {name: float(np.median([getattr(shape, name) for shape in shapes])) for name in FIGURES}
    return Shape(requests=round(figures["rate_hz"] * length_s), duration_s=length_s, **figures)


def fit_stand_in(target: Shape, *, steps: int = 400, draws: int = 8, seed: int = 0) -> tuple[Fit, float]:
    """Return the parameters whose draws come closest to the target, and the score; 0 is exact."""
    rng = np.random.default_rng(seed)
    seeds = range(1000, 1000 + draws)
    best = np.log([1.0, 60.0, 2.0, 0.3])
    best_score, spread = _score(best, target, seeds), 0.5
    for _ in range(steps):
        tried = np.clip(best + spread * rng.standard_normal(len(best)), _LOW, _HIGH)
        score = _score(tried, target, seeds)
        if score < best_score:
            best, best_score = tried, score
            spread = min(spread * _GROW, _MOST_SPREAD)
        else:
            spread = max(spread * _SHRINK, _LEAST_SPREAD)
    return _fit_at(best, target), best_score


def _draw_levels(fit: Fit, duration_s: float, rng: np.random.Generator) -> tuple[Times, Times]:
    """Return when levels start and what they are; at least one is above 0."""
    count = int(duration_s / fit.stay_s * 2) + 20
    starts_s = np.concatenate([[0.0], np.cumsum(rng.exponential(fit.stay_s, count))])
    starts_s = starts_s[starts_s < duration_s]
    shape = 1.0 / fit.level_variance
    levels = rng.gamma(shape, 1.0 / shape, len(starts_s))
    return starts_s, np.maximum(levels, 1e-9)


def _score(logs: Times, target: Shape, seeds: Sequence[int]) -> float:
    drawn = mean_shape(_fit_at(logs, target), seeds)
    ratios = [getattr(drawn, name) / getattr(target, name) for name in FIGURES]
    return float(np.sqrt(np.mean(np.log(np.maximum(ratios, 1e-6)) ** 2)))


def _fit_at(logs: Times, target: Shape) -> Fit:
    variance, stay_s, size, spread_s = np.exp(logs).tolist()
    return Fit(variance, stay_s, size, spread_s, target)


FITS: Final[Mapping[str, Fit]] = {
    "code": Fit(
        level_variance=1.1922,
        stay_s=92.651,
        cluster_size=54.778,
        cluster_s=4.3911,
        target=Shape(5353, 1705.797, 3.1381, 13.638, 14.233, 190.53, 21.350),
    ),
    "conv": Fit(
        level_variance=0.051758,
        stay_s=90.999,
        cluster_size=1.03374,
        cluster_s=0.97919,
        target=Shape(9739, 1750.846, 5.5625, 1.0727, 1.3061, 12.491, 2.6967),
    ),
}
"""Stand-ins of the first halves of the code-completion and the chat trace of the Azure LLM inference dataset 2023,
found by ``fit_stand_in`` with 400 steps and 48 draws, the better of seeds 0 and 1."""
