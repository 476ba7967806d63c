"""Intervals and tests for proportions: how sure a finite test split lets us be.

Wilson (1927) interval for one proportion p of n, with z = 1.96 for 95 %::

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

It stays within 0..1 and keeps its coverage near 1, where the textbook p +- z sqrt(p(1-p)/n) fails: exactly where good
models live.

McNemar's exact test for two models on the same rows: of ``lost + gained`` rows where exactly one is right, under the
null either is right with probability 1/2, so the two-sided p is twice the smaller binomial tail, at most 1.

Tango (1998) score interval for the paired difference d = (gained - lost) / n: all d that the score test

    |gained - lost - n d| / sqrt(n (2 q + d (1 - d))) <= z

does not reject, q being the maximum-likelihood share of lost rows given d. Unlike Wald's it does not shrink to nothing
when no row differs: with no flip in n rows the lower end is -z^2 / (n + z^2), which is what keeps 560 rows from
"proving" a tenth of a point.

Non-inferiority at margin m is judged one-sided at 5 %, so z = 1.645: ``pass`` if the whole interval lies above -m,
``fail`` if it lies below, else ``inconclusive``. A large test split decides; a small one says that it cannot.
"""

from __future__ import annotations

from math import comb, sqrt
from typing import TYPE_CHECKING, Final

from variants.evidence import NonInferiority

if TYPE_CHECKING:
    from variants.evidence import Verdict

Z_TWO_SIDED_95: Final = 1.959963984540054
Z_ONE_SIDED_95: Final = 1.6448536269514722
BISECTIONS: Final = 60


def wilson(successes: int, rows: int, z: float = Z_TWO_SIDED_95) -> tuple[float, float]:
    """Return the Wilson interval of ``successes / rows``."""
    share = successes / rows
    middle = share + z * z / (2 * rows)
    spread = z * sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p of ``lost`` against ``gained`` rows."""
    differing = lost + gained
    tail = sum(comb(differing, count) for count in range(min(lost, gained) + 1))
    return float(min(1.0, 2 * tail / 2**differing))


def paired_difference(lost: int, gained: int, rows: int, z: float = Z_ONE_SIDED_95) -> tuple[float, float]:
    """Return Tango's interval of ``(gained - lost) / rows``."""
    middle = (gained - lost) / rows

    def edge(inside: float, outside: float) -> float:
        for _ in range(BISECTIONS):
            probe = (inside + outside) / 2
            if abs(_tango_score(lost, gained, rows, probe)) <= z:
                inside = probe
            else:
                outside = probe
        return inside

    return edge(middle, -1.0), edge(middle, 1.0)


def _tango_score(lost: int, gained: int, rows: int, difference: float) -> float:
    """Return the score statistic of ``difference``; Tango 1998, equations 2 to 4."""
    square = 2 * rows
    linear = -gained - lost + (2 * rows - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    lost_share = (sqrt(max(0.0, linear * linear - 4 * square * constant)) - linear) / (2 * square)
    variance = rows * (2 * lost_share + difference * (1 - difference))
    surplus = gained - lost - rows * difference
    if variance <= 0.0:
        return 0.0 if abs(surplus) < 1e-12 * rows else float("inf")
    return surplus / sqrt(variance)


def judge(lost: int, gained: int, rows: int, margin: float) -> NonInferiority:
    """Return whether a variant is at most ``margin`` worse than the reference, as far as ``rows`` can tell."""
    low, high = paired_difference(lost, gained, rows)
    verdict: Verdict = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    return NonInferiority(margin=margin, verdict=verdict, difference=(gained - lost) / rows, low=low, high=high)
