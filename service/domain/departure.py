"""One figure of live traffic that is not what a policy was tuned for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REGION_FIGURES: Final = ("rate", "peak", "budget", "overrun")
"""What a tuned region bounds: requests a second, those of the busiest moment, budgets, answers later than claimed."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A figure's name, its value in the last window, and the bounds that it was held to."""

    figure: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.figure} {self.value:.4g} is outside {self.low:.4g} to {self.high:.4g}"
