"""ADWIN: a window that forgets its past where the past has another mean (Bifet and Gavalda 2007).

The window is kept as buckets of 1, 2, 4 ... values, at most ``_ROW`` of each size, so that n values take O(log n) room.
After every value each border between buckets is a possible cut: with n0 and n1 values and means m0, m1 on either side,
m = 1 / (1/n0 + 1/n1), d' = delta / ln n and variance v of the whole window, the older side is dropped where

    |m0 - m1| > sqrt(2 v ln(2/d') / m) + 2 ln(2/d') / (3 m)

Unlike ``sequential`` it needs no reference: it says that something changed, not that it is worse than allowed, and it
tells of a fall as of a rise. The watch does not act on it. It is here for signals that no manifest describes, such as
score distances, and as the yardstick of the drift bench, where river's is measured beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, sqrt
from typing import Final

_ROW: Final = 5
_FEWEST: Final = 5
"""Values on either side of a cut."""


@dataclass(slots=True)
class Adwin:
    """An adaptive window over numbers; ``delta`` bounds the chance of a cut without a change, at each cut."""

    delta: float = 0.002
    _buckets: list[tuple[int, float, float]] = field(default_factory=list)
    """(values, sum, sum of squares), the oldest first."""

    def add(self, value: float) -> bool:
        """Take a value and tell whether the window was cut."""
        self._buckets.append((1, value, value * value))
        self._merge()
        was_cut = False
        while self._cut():
            was_cut = True
        return was_cut

    def __len__(self) -> int:
        return sum(bucket[0] for bucket in self._buckets)

    @property
    def mean(self) -> float:
        """The mean of the window, 0 if it is empty."""
        return sum(bucket[1] for bucket in self._buckets) / max(len(self), 1)

    def _merge(self) -> None:
        """Join the two oldest buckets of every size of which there are too many."""
        size, place = 1, len(self._buckets)
        while True:
            first = place
            while first > 0 and self._buckets[first - 1][0] == size:
                first -= 1
            if place - first <= _ROW:
                return
            older, newer = self._buckets[first], self._buckets[first + 1]
            self._buckets[first : first + 2] = [(older[0] + newer[0], older[1] + newer[1], older[2] + newer[2])]
            size, place = 2 * size, first + 1

    def _cut(self) -> bool:
        """Drop the oldest bucket if some border parts different means."""
        count, total = len(self), sum(bucket[1] for bucket in self._buckets)
        if count < 2 * _FEWEST:
            return False
        variance = max(sum(bucket[2] for bucket in self._buckets) / count - (total / count) ** 2, 0.0)
        limit = log(2.0 * log(count) / self.delta)
        left, left_sum = 0, 0.0
        for values, amount, _ in self._buckets[:-1]:
            left, left_sum = left + values, left_sum + amount
            right = count - left
            if min(left, right) < _FEWEST:
                continue
            ratio = 1.0 / left + 1.0 / right
            gap = abs(left_sum / left - (total - left_sum) / right)
            if gap > sqrt(2.0 * variance * limit * ratio) + 2.0 / 3.0 * limit * ratio:
                del self._buckets[0]
                return True
        return False
