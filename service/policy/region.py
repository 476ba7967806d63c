"""Whether traffic and predictions still are what a policy was tuned for.

Traffic is looked at in windows, each of which yields four figures: the rate, the rate of its busiest sixtieth, the mean
budget, and the share of answers that took longer than was claimed for them. A figure is outside where it is beyond what
the tune saw by a factor, and by three standard deviations of a Poisson count besides, so that a quiet model is not
called odd for a handful of requests. Two windows in a row take a figure out of the region, two in a row bring it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from service.domain.departure import REGION_FIGURES, Departure

if TYPE_CHECKING:
    from service.domain.policy_file import TunedRegion

PARTS: Final = 60
"""Parts of a window, the busiest of which is its peak."""

_RATE_FACTOR: Final = 1.5
_BUDGET_FACTOR: Final = 1.25
_SIGMAS: Final = 3.0
_WINDOWS: Final = 2
_LEAST_REQUESTS: Final = 20


@dataclass(slots=True)
class _Window:
    """Counts of one window that began at ``began_s``."""

    began_s: float
    parts: list[int] = field(default_factory=lambda: [0] * PARTS)
    requests: int = 0
    budgeted: int = 0
    budgets_s: float = 0.0
    answers: int = 0
    overruns: int = 0


class RegionWatch:
    """Holds one model's traffic against its region. Times are seconds on any clock that does not go back."""

    def __init__(self, region: TunedRegion, now_s: float) -> None:
        """Begin a window now."""
        self._region = region
        self._window = _Window(now_s)
        self._outside = dict.fromkeys(REGION_FIGURES, 0)
        self._inside = dict.fromkeys(REGION_FIGURES, 0)
        self.departures: dict[str, Departure] = {}

    def saw(self, now_s: float, budget_s: float | None, *, overran: bool | None) -> bool:
        """Count one request; ``overran`` is ``None`` where it got no answer.

        Returns:
            Whether ``departures`` have changed, because this request is the first of a new window.
        """
        window, length_s = self._window, self._region.window_s
        changed = False
        if now_s - window.began_s >= length_s:
            changed = self._judge(window)
            # Windows without a request say nothing: a model that nobody asks needs no other policy.
            began_s = window.began_s + length_s * math.floor((now_s - window.began_s) / length_s)
            window = self._window = _Window(began_s)
        window.parts[min(PARTS - 1, max(0, int((now_s - window.began_s) / length_s * PARTS)))] += 1
        window.requests += 1
        if budget_s is not None:
            window.budgeted += 1
            window.budgets_s += budget_s
        if overran is not None:
            window.answers += 1
            window.overruns += overran
        return changed

    def _judge(self, window: _Window) -> bool:
        before = set(self.departures)
        for figure, found in self._figures(window).items():
            is_out = found is not None and not found.low <= found.value <= found.high
            self._outside[figure] = self._outside[figure] + 1 if is_out else 0
            self._inside[figure] = 0 if is_out else self._inside[figure] + 1
            if found is not None and is_out and (figure in before or self._outside[figure] >= _WINDOWS):
                self.departures[figure] = found
            elif self._inside[figure] >= _WINDOWS:
                self.departures.pop(figure, None)
        return set(self.departures) != before

    def _figures(self, window: _Window) -> dict[str, Departure | None]:
        """Return each figure with its bounds, ``None`` where the window has too few requests to say."""
        if window.requests < _LEAST_REQUESTS and self._region.rate_hz[0] * self._region.window_s < _LEAST_REQUESTS:
            return dict.fromkeys(REGION_FIGURES)
        region, length_s = self._region, self._region.window_s
        budget = None
        if window.budgeted:
            low_ms, high_ms = region.budget_ms
            mean_ms = 1e3 * window.budgets_s / window.budgeted
            budget = Departure("budget", mean_ms, low_ms / _BUDGET_FACTOR, high_ms * _BUDGET_FACTOR)
        overrun = None
        if window.answers:
            share = region.overrun_ratio
            allowed = share + _SIGMAS * math.sqrt(share * (1.0 - share) / window.answers) + 1.0 / window.answers
            overrun = Departure("overrun", window.overruns / window.answers, 0.0, allowed)
        return {
            "rate": _rate("rate", window.requests, length_s, region.rate_hz),
            "peak": _rate("peak", max(window.parts), length_s / PARTS, region.peak_hz),
            "budget": budget,
            "overrun": overrun,
        }


def _rate(figure: str, count: int, length_s: float, bounds_hz: tuple[float, float]) -> Departure:
    fewest, most = bounds_hz[0] * length_s / _RATE_FACTOR, bounds_hz[1] * length_s * _RATE_FACTOR
    low = max(0.0, fewest - _SIGMAS * math.sqrt(fewest)) / length_s
    high = (most + _SIGMAS * math.sqrt(most)) / length_s
    return Departure(figure, count / length_s, low, high)
