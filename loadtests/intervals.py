"""How sure a figure is: intervals for shares, percentiles and differences.

A share gets Wilson's interval. A percentile gets the order statistics between which it lies: the number of samples
below the true p-quantile is Binomial(n, p), whatever the distribution (Conover 1999, section 3.2), so the interval
needs no assumption but independence; requests of one burst are not independent, and it is then too narrow. Where too
few samples exist for the upper end, the interval is open. Differences of two runs are bootstrapped over blocks of
consecutive requests for that reason (Kuensch 1989).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_BLOCKS: Final = 50
_EXACT: Final = 10_000


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def percentile_interval(ordered: Floats, ratio: float) -> tuple[float, float]:
    """Return the 95 % interval of a quantile (0..1) of ascending samples; infinite where there are too few of them."""
    low, high = _ranks(len(ordered), ratio)
    return (
        float(ordered[low - 1]) if low >= 1 else -math.inf,
        float(ordered[high - 1]) if high <= len(ordered) else math.inf,
    )


def samples_for_bound(ratio: float, allowed: int, confidence: float = 0.99) -> int:
    """Return how many samples prove a bound on a quantile, if at most ``allowed`` of them are over it.

    459 with none over it prove a p99 at 99 % confidence, 662 with one.
    """
    count = allowed + 1
    while binomial_cdf(allowed, count, 1.0 - ratio) > 1.0 - confidence:
        count += 1
    return count


def binomial_cdf(hits: int, count: int, share: float) -> float:
    """Return the probability of at most ``hits`` among ``count``."""
    if hits >= count:
        return 1.0
    logs = math.lgamma(count + 1)
    terms = (
        math.exp(
            logs
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + k * math.log(share)
            + (count - k) * math.log1p(-share)
        )
        for k in range(hits + 1)
    )
    return min(1.0, math.fsum(terms))


def resample(figure: Callable[[NDArray[np.int64]], float], count: int, seed: int, *, draws: int = 1000) -> Floats:
    """Return bootstrap draws of a figure of ``count`` requests in their order.

    ``figure`` takes indices of requests. Whole blocks, a fiftieth of the run each, are drawn with replacement, so that
    what a burst has in common stays together. Two runs of one schedule are paired by giving both the same indices.
    """
    rng = np.random.default_rng(seed)
    blocks = np.array_split(np.arange(count), min(_BLOCKS, count))
    return np.array(
        [
            figure(np.concatenate([blocks[place] for place in rng.integers(0, len(blocks), len(blocks))]))
            for _ in range(draws)
        ]
    )


def middle(draws: Floats) -> tuple[float, float]:
    """Return the ends of the middle 95 % of draws."""
    low, high = np.nanpercentile(draws, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]).tolist()
    return low, high


def _ranks(count: int, ratio: float) -> tuple[int, int]:
    """Return the ranks (from 1) of the order statistics that enclose a quantile; 0 and ``count`` + 1 are open ends."""
    tail = (1.0 - CONFIDENCE) / 2
    if count > _EXACT:
        half = _Z * math.sqrt(count * ratio * (1 - ratio))
        return math.floor(count * ratio - half), math.ceil(count * ratio + half) + 1
    below = _cdf_table(count, ratio)
    low = int(np.searchsorted(below, tail, side="right"))  # P(X < low) <= tail
    high = int(np.searchsorted(below, 1.0 - tail, side="left")) + 1  # P(X < high) >= 1 - tail
    return low, high


def _cdf_table(count: int, ratio: float) -> Floats:
    """Return P(X <= k) for k from 0 to ``count``."""
    k = np.arange(count + 1)
    logs = np.cumsum(np.log(np.maximum(k, 1)))
    terms = logs[-1] - logs - logs[::-1] + k * math.log(ratio) + (count - k) * math.log1p(-ratio)
    table: Floats = np.minimum(np.cumsum(np.exp(terms)), 1.0)
    return table
