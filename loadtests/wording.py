"""How figures are written for people: the same in the terminal, in pages and in comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtests.figures import Estimate

NONE = "-"
_SECOND_S, _MILLISECOND_S = 1.0, 1e-3


def duration(time_s: float | None) -> str:
    """Return a time with three digits and a unit."""
    if time_s is None:
        return NONE
    if abs(time_s) >= _SECOND_S:
        return f"{time_s:.3g} s" if abs(time_s) < 1000 else f"{time_s:.0f} s"  # noqa: PLR2004 - three digits
    if abs(time_s) >= _MILLISECOND_S:
        return f"{time_s * 1e3:.3g} ms"
    return f"{time_s * 1e6:.0f} us"


def percent(ratio: float | None) -> str:
    """Return a ratio as percent with one digit after the point."""
    return NONE if ratio is None else f"{100 * ratio:.1f} %"


def count(number: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,.0f}"


def share(estimate: Estimate | None) -> str:
    """Return a share and how far its interval reaches from it, in points."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    half = (estimate.high - estimate.low) / 2
    return f"{100 * estimate.value:.1f} ±{100 * half:.1f} %"
