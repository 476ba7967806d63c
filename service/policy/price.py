"""What a CPU-second must gain in accuracy to be spent: the objective of the operator, and the price of a shortage.

Under the objective ``accuracy`` idle time costs nothing. Under a price p (accuracy per CPU-second) the candidate is
chosen that maximises accuracy - p * seconds. The objective ``cost`` asks for the smallest bill within a stated loss of
accuracy, which is the cheapest candidate not further below the best than that.

**Shortage.** The level (``policy.pace``) spends all the time that the queue leaves. Arrivals that come in bursts then
find lanes that are busy with accurate work, and requests are lost that a second of the cheapest candidate would have
saved. How dear a second is can be learnt from the losses: let f be the share of requests lost lately for want of time,
a_min and c_min the accuracy and the cost of the cheapest candidate, and b the part of the queue's time that its work
fills already (0..1). A second saves 1 / c_min requests worth a_min each, if it turns out to be missing:

    price = (burst_price + shortage_weight * f^2) * b * a_min / c_min

It is the newsvendor's rule: ``burst_price`` is the chance that is reckoned with in advance, a threshold of the policy
file that a tuner finds from a trace, and the second term is what losses tell: few come from bursts too steep to prepare
for, many from a load at which only the cheapest candidate keeps up. Forecasts over seconds, from rates or from counts
conditional on the last ones, gave no more than this in simulation; for the next moments see ``policy.arrivals``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.policy.costs import Step

_REMEMBERED: Final = 3000.0
"""Arrivals over which losses are averaged."""

_FIRST: Final = 200.0


@dataclass(slots=True)
class Losses:
    """The share of arrivals lost lately for want of time; the caller holds a lock.

    A mean over all arrivals at first and an exponentially weighted one over the last ``_REMEMBERED`` later; the first
    loss after few arrivals is not taken for a habit.
    """

    ratio: float = 0.0
    _arrivals: float = _FIRST

    def arrived(self) -> None:
        """Count an arrival."""
        self._arrivals = min(self._arrivals + 1.0, _REMEMBERED)
        self.ratio -= self.ratio / self._arrivals

    def lost(self, count: int = 1) -> None:
        """Count requests that were refused for load, or became late while they waited."""
        self.ratio = min(1.0, self.ratio + count / self._arrivals)

    def turned_away(self, count: int) -> None:
        """Count so many arrivals of which each was lost, as ``arrived`` and ``lost`` would one by one."""
        first = min(count, int(_REMEMBERED - self._arrivals))
        kept = (1.0 - self.ratio) * self._arrivals / (self._arrivals + first)
        self._arrivals += first
        self.ratio = 1.0 - kept * (1.0 - 1.0 / _REMEMBERED) ** (count - first)


def shortage_price_per_s(fastest: Step, shortage: float, filled: float) -> float:
    """Return the price of a CPU-second from ``shortage``, burst_price + weight * f^2, and the part taken."""
    return shortage * min(1.0, filled) * fastest.accuracy / max(fastest.cost_s, 1e-9)
