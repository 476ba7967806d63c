"""Sequential tests that may be looked at after every sample: has the mean loss risen above what is allowed?

**One bet.** Let x in 0..1 be a loss whose mean, given the past, is at most r. For an alternative rate q > r,

    L = 1 + (q - r) (x - r) / (r (1 - r)),        E[L | past] <= 1 whatever the distribution of x

is a fair bet or worse (Waudby-Smith and Ramdas 2024); for x in {0, 1} it is the likelihood ratio of q against r. The
bound r may differ from sample to sample as long as it is fixed before x is seen: a row on which full is sure is
allowed less disagreement than one where it hesitates, which makes a disagreement there say more.

**A change at an unknown time.** A product of bets that starts at the first sample is worth little after a long clean
run. The Shiryaev-Roberts sum starts one bet at every sample,

    R_n = (1 + R_{n-1}) L_n,        alarm when R >= c,

and because R_n - n is a supermartingale, E[n at the first alarm] >= c: the mean run length to a false alarm is at
least c (Pollak 1987; for composite and dependent nulls, the "e-detector" of Shin, Ramdas and Rinaldo 2023). A weighted
mean of such sums keeps the bound. Here it is over bounds, the one for all rows and the one by how sure full is, and
over alternatives: the rate raised, and the odds multiplied, since the errors of damaged weights gather where full
hesitates.

**What is guaranteed:** nothing is assumed of dependence or distribution but the bounds on the conditional means. The
measured run length is far longer than c, since true rates lie below their bounds and R overshoots. **When it is
wrong:** where an allowed rate, which is itself measured on a few hundred validation rows, is below the true one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.domain.drift import AllowedLoss

_RISES: Final = (1.0, 6.0)
"""Additive alternatives, in units of the drop that must be found."""
_ODDS: Final = (4.0, 20.0)
_NEARLY_ALL: Final = 0.95
_LEAST_RATE: Final = 2e-3
"""A few hundred rows show no rate to be less; it also bounds what one sample can say."""
_MOST: Final = 1e30
_MOST_EXPONENT: Final = 60.0


@dataclass(slots=True)
class RiseTest:
    """An e-detector for a mean loss above an allowed one; ``drop`` is the rise to be found soonest, 0..1.

    Evidence grows to ``most`` and no further: what was long wrong and is right again has that much to live down.

    ``recent`` is not the evidence but the same bets begun once, at the moment that is the best for them by now (Page's
    CUSUM). Where nothing happens it stays at about 1, while the sum grows to some tens by the number of samples alone:
    it tells whether it is worth looking closer. It has no guarantee, and proves nothing.
    """

    drop: float
    most: float = _MOST
    _sums: dict[int, list[float]] = field(default_factory=dict)
    _products: dict[int, list[float]] = field(default_factory=dict)

    def observe(self, loss: float, *bounds: float) -> None:
        """Take one loss, 0..1, whose mean is allowed to be each of ``bounds``; their number stays the same."""
        for place, bound in enumerate(bounds):
            rate = min(max(bound, _LEAST_RATE), 1.0 - _LEAST_RATE)
            stake = (loss - rate) / (rate * (1.0 - rate))
            bets = [1.0 + (other - rate) * stake for other in _alternatives(rate, self.drop)]
            sums = self._sums.get(place, [0.0] * len(bets))
            products = self._products.get(place, [1.0] * len(bets))
            self._sums[place] = [min((1.0 + old) * bet, self.most) for old, bet in zip(sums, bets, strict=True)]
            self._products[place] = [min(max(old, 1.0) * bet, _MOST) for old, bet in zip(products, bets, strict=True)]

    @property
    def run_length(self) -> float:
        """The evidence: under the null the mean time until it first reaches c is at least c samples."""
        return _mean_of(self._sums)

    @property
    def recent(self) -> float:
        """How much speaks for a rise that began at some moment and goes on; about 1 where nothing does."""
        return _mean_of(self._products)

    def reset(self) -> None:
        """Begin anew."""
        self._sums.clear()
        self._products.clear()


def bounds_at(allowed: AllowedLoss, full_log_odds: float) -> tuple[float, ...]:
    """Return the bounds on the loss of a row on which full has these log-odds."""
    if allowed.slope is None:
        return (allowed.rate,)
    exponent = allowed.intercept + allowed.slope * full_log_odds
    return allowed.rate, 1.0 / (1.0 + exp(min(max(-exponent, -_MOST_EXPONENT), _MOST_EXPONENT)))


@dataclass(slots=True)
class FallTest:
    """The same the other way round: has the mean loss fallen below ``limit``, to about ``aim``?

    The null is that losses still have a mean of at least ``limit``; the mean time to a false alarm is at least the
    ``run_length`` asked for.
    """

    limit: float
    aim: float
    _sum: float = 0.0

    def observe(self, loss: float) -> None:
        """Take one loss, 0..1."""
        limit = min(max(self.limit, 2.0 * _LEAST_RATE), 1.0 - _LEAST_RATE)
        aim = min(max(self.aim, _LEAST_RATE), limit)
        bet = 1.0 + (aim - limit) * (loss - limit) / (limit * (1.0 - limit))
        self._sum = min((1.0 + self._sum) * bet, _MOST)

    @property
    def run_length(self) -> float:
        """Evidence in samples."""
        return self._sum

    def reset(self) -> None:
        """Begin anew."""
        self._sum = 0.0


def _mean_of(arms: dict[int, list[float]]) -> float:
    values = [value for arm in arms.values() for value in arm]
    return sum(values) / len(values) if values else 0.0


def _alternatives(rate: float, drop: float) -> list[float]:
    left = 1.0 - rate
    added = [rate + min(drop * rise, _NEARLY_ALL * left) for rise in _RISES]
    return added + [odds * rate / (left + odds * rate) for odds in _ODDS]
