"""Cascades: let a small variant answer, and ask a bigger one only where the small one is unsure.

Small variants are wrong on few rows, and mostly on rows where they hesitate. The *margin* of a row is the difference of
the two highest values of the first output; for logits that is the log of the odds between the two likeliest classes,
ln(p1 / p2), so it needs no softmax. Below a threshold the row is escalated, and the bigger variant's answer counts::

    answer(x) = small(x) if margin(small(x)) >= threshold else big(x)
    cost      = p50(small) + escalated_ratio * p50(big)            expected, one row, one thread

The threshold is in the units of one file's output, and quantization, pruning and distillation each change these, so
that it is calibrated per variant: it is the quantile of its margins on the VALIDATION rows at which a chosen share
escalates. What a cascade then does is measured on the TEST rows, which set no threshold: the share that really
escalates, and the accuracy of the combined answers.

Only useful pairs are kept. A server that may choose a variant per request can already serve any mixture of single
variants, so a cascade must lie above the upper hull of (cost, accuracy), the best mixture for its cost. Its surplus
is taken row by row, d = right(cascade) - right(mixture), the mixture's two ends weighted to the same cost, and must be
at least a tenth of a point and above zero at one-sided 95 % (mean - 1.645 standard errors): with no row lost, three
rows gained. The one with the largest surplus joins the hull and the others are judged against the hull so raised,
until none is left (the farthest point first, as in QuickHull; Eddy 1977).

When this is wrong: the test rows also choose among some tens of candidates, so the accuracy of a chosen one is a little
optimistic; the p50s decide too, as they do for domination, so the same files profiled on another machine may keep
other cascades, though with the same thresholds; under drift margins move, and with them the share that escalates.
Confidence of the small variant is a good rule when the bigger one is better wherever the small one is unsure, and a
poor one when it is a specialist (Jitkrittum et al. 2023).

Sources: detector cascades of rising cost, Viola and Jones 2001; the margin between the two best scores to decide
whether a big network is asked, Park et al. 2015 ("Big/little deep neural network"); thresholds set on held-out data,
NoScope (Kang et al. 2017); "I don't know" cascades, Wang et al. 2018; early exits inside one network, BranchyNet
(Teerapittayanon et al. 2016); choosing among services under a budget, FrugalML (Chen, Zaharia, Zou 2020).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import permutations
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from variants.intervals import Z_ONE_SIDED_95, wilson
from variants.manifest import CascadeManifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from variants.recipe import Floats

SHARES: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
FEWEST_ROWS: Final = 2
"""A share of validation rows smaller than this sets no threshold: it would be one row's whim."""
SMALLEST_GAIN: Final = 0.001
MOST_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """What one variant answers: its first output (rows, classes) on both splits, and which test rows are right.

    ``p50_s`` is its compute time of one row on one thread.
    """

    name: str
    p50_s: float
    validation: Floats
    test: Floats
    right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A variant alone or a cascade: its expected cost, and which test rows it gets right."""

    cost_s: float
    right: NDArray[np.bool_]
    cascade: CascadeManifest | None = None

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def find_cascades(answers: Sequence[Answers]) -> tuple[CascadeManifest, ...]:
    """Return the useful cascades of these variants, cheapest first, at most ``MOST_KEPT``.

    All variants answer the same rows in the same order, at least one of each split, and classify into two classes or
    more; with one class there is no margin and no cascade.
    """
    if any(one.test.shape[1] < 2 for one in answers):  # noqa: PLR2004 - a margin needs two
        return ()
    pairs = [pair for pair in permutations(answers, 2) if _may_escalate(*pair)]
    candidates = [point for small, big in pairs for point in _calibrate(small, big)]
    hull = _upper_hull([_Point(one.p50_s, one.right) for one in answers])
    kept: tuple[CascadeManifest, ...] = ()
    while len(kept) < MOST_KEPT:
        surpluses = [(_surplus(point, hull), point) for point in candidates]
        useful = [(float(surplus.mean()), point) for surplus, point in surpluses if _is_useful(surplus)]
        if not useful:
            break
        _, best = max(useful, key=lambda found: found[0])
        hull = _upper_hull([*hull, best])
        kept = tuple(point.cascade for point in hull if point.cascade is not None)
    return kept


def _may_escalate(small: Answers, big: Answers) -> bool:
    """Tell whether ``small`` is cheaper, and not proven to be more accurate."""
    return small.p50_s < big.p50_s and not _is_above_zero(np.subtract(small.right, big.right, dtype=np.float64))


def _calibrate(small: Answers, big: Answers) -> Iterator[_Point]:
    """Yield the pair at every share that validation rows can set a threshold for."""
    held_out, measured = _margins(small.validation), _margins(small.test)
    for share in SHARES:
        margin = float(np.quantile(held_out, share))
        if share * len(held_out) < FEWEST_ROWS or not isfinite(margin):
            continue
        escalated = measured < margin  # (rows,)
        right = np.where(escalated, big.right, small.right)
        ratio, hits = float(escalated.mean()), int(right.sum())
        low, high = wilson(hits, len(right))
        cascade = CascadeManifest(
            variant=small.name,
            escalate_to=big.name,
            margin=margin,
            calibrated_ratio=float((held_out < margin).mean()),
            escalated_ratio=ratio,
            accuracy=hits / len(right),
            low=low,
            high=high,
            lost=int((small.right & ~right).sum()),
            gained=int((right & ~small.right).sum()),
        )
        yield _Point(small.p50_s + ratio * big.p50_s, right, cascade)


def _margins(outputs: Floats) -> Floats:
    """Return each row's margin, in the outputs' own type, as a server computes it."""
    two_highest = np.partition(outputs, -2, axis=1)[:, -2:]  # (rows, 2)
    margins: Floats = two_highest[:, 1] - two_highest[:, 0]
    return margins


def _upper_hull(points: Sequence[_Point]) -> list[_Point]:
    """Return the points that no mixture of others beats: costs and accuracies ascend, slopes descend."""
    hull: list[_Point] = []
    for point in sorted(points, key=lambda point: (point.cost_s, -point.accuracy)):
        if hull and point.accuracy <= hull[-1].accuracy:
            continue
        while len(hull) > 1 and _slope(hull[-2], point) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(left: _Point, right: _Point) -> float:
    return (right.accuracy - left.accuracy) / (right.cost_s - left.cost_s)


def _surplus(point: _Point, hull: Sequence[_Point]) -> NDArray[np.float64]:
    """Return, row by row, the point's score less that of the best mixture for its cost."""
    place = bisect_left([other.cost_s for other in hull], point.cost_s)
    left, right = hull[max(0, place - 1)], hull[min(place, len(hull) - 1)]
    weight = 0.0 if left is right else (point.cost_s - left.cost_s) / (right.cost_s - left.cost_s)
    mixture = (1.0 - weight) * left.right + weight * right.right  # (rows,)
    return np.subtract(point.right, mixture, dtype=np.float64)


def _is_useful(surplus: NDArray[np.float64]) -> bool:
    return float(surplus.mean()) >= SMALLEST_GAIN and _is_above_zero(surplus)


def _is_above_zero(differences: NDArray[np.float64]) -> bool:
    """Tell whether the mean of ``differences`` (rows,) is above zero at one-sided 95 %."""
    error = float(differences.std()) / sqrt(len(differences))
    return float(differences.mean()) > Z_ONE_SIDED_95 * error
