"""Means over the last samples, with an interval.

The interval is Wilson's (1927) at 95 % for a mean of n values in 0..1, which for 0/1 values is a share's. It holds for
ONE look at a window chosen beforehand. Whoever acts on a change looks after every sample and needs ``sequential``; this
is for people and for plots.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import sqrt
from typing import Final

Z_95: Final = 1.959963984540054
Z_ONE_SIDED_90: Final = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of ``count`` values, 0..1, and its 95 % interval; with no value 0 to 1 about one half."""

    value: float
    low: float
    high: float
    count: int


class RollingMean:
    """The mean of the last ``size`` values, each 0..1."""

    __slots__ = ("_sum", "_values")

    def __init__(self, size: int) -> None:
        """Begin with none."""
        self._values: deque[float] = deque(maxlen=size)
        self._sum = 0.0

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """Take a value, forgetting the oldest where the window is full."""
        if len(self._values) == self._values.maxlen:
            self._sum -= self._values[0]
        self._values.append(value)
        self._sum += value

    def keep_last(self, count: int) -> None:
        """Forget all but the last ``count`` values."""
        while len(self._values) > count:
            self._values.popleft()
        self._sum = sum(self._values)

    @property
    def interval(self) -> Interval:
        """The mean and its interval."""
        return wilson(self._sum, len(self._values))


def wilson(total: float, count: int, z: float = Z_95) -> Interval:
    """Return the interval of ``total / count``."""
    if count == 0:
        return Interval(0.5, 0.0, 1.0, 0)
    share = min(max(total / count, 0.0), 1.0)
    square = z * z
    middle = share + square / (2 * count)
    spread = z * sqrt(share * (1 - share) / count + square / (4 * count * count))
    scale = 1 + square / count
    return Interval(share, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale), count)
