"""How accurate is a variant now, where nobody tells the labels?

**From confidence (CBPE).** Where chances are calibrated, the mean chance of being right is the accuracy (Guillory et
al. 2021; NannyML's confidence-based performance estimation). The chance is a logistic in the answer's log-odds, fitted
per variant on validation rows.

**From a threshold (ATC).** The share of rows above the log-odds below which as many validation rows lie as are wrong
(Garg et al. 2022). A second opinion, reported beside the first.

**With shadow pairs.** Full sees the row too. With c and u the chances of full and of the variant, taken as independent
witnesses, the variant's answer is right with chance

    t = c                                                    where they agree
    t = u (1 - c) / (u (1 - c) + c (1 - u) + (1 - u)(1 - c))   where they differ: at most one is right

Damage to a variant's weights shows as disagreement, whatever its confidence says. Pairs are few, requests many;
prediction-powered inference (Angelopoulos et al. 2023) takes u on all N requests and corrects it on the n pairs,

    estimate = l mean_N(u) + mean_n(t - l u),     l = cov(t, u) / ((1 + n/N) var(u)), limited to 0..1

**Interval.** 95 %: 1.96 times the standard errors of both terms, of the window's own truth and of the calibration rows,
and beside them what shifts add: ``error_slope`` for each point of distance from the validation accuracy, as the build
found it on perturbed rows. Beside and not in quadrature, because that error is no chance but a bias.

**What cannot be seen.** Inputs on which full is wrong and sure, as over-exposed pictures are. Concepts that change (the
same rows mean something else) leave every figure here as it was. Only labels tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from service.policy.drift.pairs import Pair
from service.policy.drift.rolling import Z_95

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.domain.drift import Calibration

    Reals = NDArray[np.float64]

FEWEST_ROWS: Final = 30


@dataclass(frozen=True, slots=True)
class AccuracyEstimate:
    """An accuracy nobody measured, with its 95 % interval; 0..1. ``threshold`` is ATC's opinion, without interval."""

    value: float
    low: float
    high: float
    method: Literal["confidence", "shadow"]
    rows: int
    pairs: int
    threshold: float


def chances(log_odds: NDArray[Any], calibration: Calibration) -> Reals:
    """Return the chance of each answer to be right, (rows,)."""
    exponent = calibration.intercept + calibration.slope * np.asarray(log_odds, dtype=np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(exponent, -60.0, 60.0))))


def estimate_accuracy(
    log_odds: NDArray[Any], own: Calibration, pairs: Sequence[Pair] = (), full: Calibration | None = None
) -> AccuracyEstimate | None:
    """Estimate from the window's ``log_odds`` (rows,), and from pairs where there are enough and ``full`` is known.

    ``None`` with fewer than ``FEWEST_ROWS`` of both.
    """
    values = np.asarray(log_odds, dtype=np.float64)
    if full is not None and len(pairs) >= FEWEST_ROWS:
        return _from_pairs(values, own, np.asarray(pairs, dtype=np.float64), full)
    if len(values) < FEWEST_ROWS:
        return None
    found = chances(values, own)
    variance = float(found.var()) / len(found)
    low, value, high = _bounded(float(found.mean()), variance, own, (len(values), own.error_slope))
    return AccuracyEstimate(value, low, high, "confidence", len(values), 0, _above(values, own))


def _from_pairs(values: Reals, own: Calibration, pairs: Reals, full: Calibration) -> AccuracyEstimate:
    every = values if len(values) >= FEWEST_ROWS else pairs[:, Pair._fields.index("log_odds")]
    used, known = chances(every, own), chances(pairs[:, Pair._fields.index("log_odds")], own)
    theirs = chances(pairs[:, Pair._fields.index("full_log_odds")], full)
    truth = together(theirs, known, pairs[:, Pair._fields.index("loss")] == 0.0)  # (pairs,)
    n, rows, spread = len(pairs), len(every), float(known.var())
    trust = float(np.cov(truth, known, ddof=0)[0, 1]) / (spread * (1.0 + n / rows)) if spread > 0.0 else 0.0
    trust = min(max(trust, 0.0), 1.0)
    rest = truth - trust * known
    variance = float(rest.var()) / n + trust * trust * float(used.var()) / rows
    mean = trust * float(used.mean()) + float(rest.mean())
    low, value, high = _bounded(mean, variance, own, (rows, own.pair_error_slope))
    return AccuracyEstimate(value, low, high, "shadow", rows, n, _above(every, own))


def together(full: Reals, variant: Reals, agrees: NDArray[np.bool_]) -> Reals:
    """Return the chance that the variant's answer is right, given both chances and whether the answers agree."""
    mine = variant * (1.0 - full)
    total = mine + full * (1.0 - variant) + (1.0 - full) * (1.0 - variant)
    return np.where(agrees, full, mine / np.maximum(total, 1e-12))


def _above(values: Reals, own: Calibration) -> float:
    return float((values >= own.threshold).mean())


def _bounded(mean: float, variance: float, own: Calibration, basis: tuple[int, float]) -> tuple[float, float, float]:
    """Return low, value and high; ``basis`` is the rows of the window and the error per point of distance."""
    rows, slope = basis
    value = min(max(mean, 0.0), 1.0)
    chance = sqrt(variance + value * (1.0 - value) / rows + own.error_floor * own.error_floor)
    half = Z_95 * (chance + slope * abs(own.accuracy - value))
    return max(0.0, value - half), value, min(1.0, value + half)
