"""Does a window still look like the reference? Three answers, each with the chance of being wrong.

- **PSI**, the population stability index, sum (p - q) ln(p / q) over the bins of the reference, which its build cut
  into equal shares. The usual limits 0.1 and 0.25 forget how many samples there are: without any drift PSI is about
  (1/n + 1/m) chi2(bins - 1) (Yurdakul and Naranjo 2020), which gives its p.
- **KS**, the largest distance of the two distribution functions, here at the bins' edges (which can only make it
  smaller, so that its p is conservative), with Kolmogorov's limit law.
- **Mean of many numbers**, Hotelling's T2 of the inputs' summaries, whitened by the reference: one window mean against
  one reference mean in all directions together; p by Paulson's (1942) normal approximation of F.

They say that inputs changed, not that answers became worse: they warn, and demote nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, exp, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.policy.drift.summary import summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.domain.drift import Distribution, InputReference

_TERMS: Final = 100
_SMOOTHING: Final = 0.5


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a window lies from its reference: the statistic and its p, the chance of as much without drift."""

    psi: float
    psi_p: float
    ks: float
    ks_p: float


@dataclass(frozen=True, slots=True)
class InputDifference:
    """``t2`` of the summaries' mean with its p, and KS of the rows' squared distances from the reference's centre."""

    t2: float
    t2_p: float
    ks: float
    ks_p: float


def compare(reference: Distribution, values: NDArray[Any]) -> Difference:
    """Compare ``values`` (rows,), at least one, with ``reference``; those beyond its edges count to the outer bins."""
    inner = np.asarray(reference.edges[1:-1])
    counts = np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1)  # (bins,)
    known = np.asarray(reference.counts, dtype=np.float64)
    n, m = float(counts.sum()), float(known.sum())
    p = (counts + _SMOOTHING) / (n + _SMOOTHING * len(counts))
    q = (known + _SMOOTHING) / (m + _SMOOTHING * len(known))
    psi = float(((p - q) * np.log(p / q)).sum())
    ks = float(np.abs(np.cumsum(counts) / n - np.cumsum(known) / m).max())
    psi_p = chi_square_p(psi / (1.0 / n + 1.0 / m), len(counts) - 1)
    return Difference(psi, psi_p, ks, kolmogorov_p(ks * sqrt(n * m / (n + m))))


def compare_inputs(reference: InputReference, rows: NDArray[Any]) -> InputDifference:
    """Compare raw input ``rows`` (rows, ...), at least one, with ``reference``."""
    return compare_summaries(reference, summarise(rows))


def compare_summaries(reference: InputReference, summaries: NDArray[np.float64]) -> InputDifference:
    """Compare ``summaries`` (rows, numbers) with ``reference``."""
    white = (summaries - np.asarray(reference.means)) @ np.asarray(reference.whitening)  # (rows, numbers)
    n, m, k = len(white), reference.rows, white.shape[1]
    t2 = n * m / (n + m) * float(np.square(white.mean(0)).sum())
    distances = np.sort(np.square(white).sum(1))
    grid = np.asarray(reference.distances)
    ks = float(np.abs(np.searchsorted(distances, grid, side="right") / n - np.linspace(0.0, 1.0, len(grid))).max())
    t2_p = fisher_p(t2 * (m - k) / (k * max(m - 1, 1)), k, m - k) if m > k else 1.0
    return InputDifference(t2, t2_p, ks, kolmogorov_p(ks * sqrt(n * m / (n + m))))


def kolmogorov_p(scaled: float) -> float:
    """Return the chance that Kolmogorov's limit variable exceeds ``scaled``, sqrt(n) times the distance."""
    if scaled < 0.2:  # noqa: PLR2004 - the series converges slowly there, and its sum is 1 to twelve digits
        return 1.0
    terms = (2.0 * (-1.0) ** (term - 1) * exp(-2.0 * (term * scaled) ** 2) for term in range(1, _TERMS))
    return min(max(sum(terms), 0.0), 1.0)


def chi_square_p(value: float, degrees: int) -> float:
    """Return the chance that chi-square exceeds ``value``, by Wilson and Hilferty's (1931) cube root."""
    spread = 2.0 / (9.0 * degrees)
    return _normal_p(((max(value, 0.0) / degrees) ** (1 / 3) - (1.0 - spread)) / sqrt(spread))


def fisher_p(value: float, first: int, second: int) -> float:
    """Return the chance that F with these degrees of freedom exceeds ``value``, by Paulson's approximation."""
    a, b, root = 2.0 / (9.0 * first), 2.0 / (9.0 * second), max(value, 0.0) ** (1 / 3)
    return _normal_p(((1.0 - b) * root - (1.0 - a)) / sqrt(b * root * root + a))


def _normal_p(z: float) -> float:
    return 0.5 * erfc(z / sqrt(2.0))
