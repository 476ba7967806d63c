"""Seeded arrival processes: moments at which requests are sent, in seconds from the start, ascending.

``constant`` and ``poisson`` are the two ends of calm. ``gamma_renewal`` sets the coefficient of variation (CV) of the
gaps: 1 is Poisson, above it requests clump. A Markov-modulated Poisson process (``mmpp``) has bursts that last. The
others are Poisson processes whose rate follows a curve, drawn by the time change of a unit-rate process (Cinlar
1975): if E is a Poisson process of rate 1 and L(t) the integral of the rate, the points L^-1(E) have that rate.

A renewal process starts here with a whole gap, not in equilibrium; over a run of hundreds of gaps the bias of the mean
count, (CV^2 - 1) / 2 requests, does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    Times = NDArray[np.float64]
    RateCurve = Callable[[Times], Times]

_GRID_POINTS: Final = 20_001
_MOST_MOMENTS: Final = 20_000_000
_MOST_STAYS: Final = 1_000_000


def constant(rate_hz: float, duration_s: float) -> Times:
    """Return moments with equal gaps."""
    return np.arange(int(rate_hz * duration_s)) / rate_hz


def poisson(rate_hz: float, duration_s: float, rng: Generator) -> Times:
    """Return moments with independent exponential gaps."""
    return gamma_renewal(rate_hz, 1.0, duration_s, rng)


def gamma_renewal(rate_hz: float, cv: float, duration_s: float, rng: Generator) -> Times:
    """Return moments with independent gamma gaps whose standard deviation is ``cv`` times their mean; ``cv`` > 0."""
    shape = 1.0 / cv**2
    parts: list[Times] = []
    end_s = 0.0
    while end_s < duration_s:
        gaps = rng.gamma(shape, 1.0 / (shape * rate_hz), max(64, int(rate_hz * (duration_s - end_s) * 1.1)))
        parts.append(end_s + np.cumsum(gaps))
        end_s = float(parts[-1][-1])
    times = np.concatenate(parts)
    return times[times < duration_s]


def mmpp(rates_hz: Sequence[float], stays_s: Sequence[float], duration_s: float, rng: Generator) -> Times:
    """Return a Markov-modulated Poisson process: ``stays_s`` are the states' mean stays, the next is any other.

    Raises:
        LoadError: The states change more than a million times.
    """
    if duration_s > _MOST_STAYS * min(stays_s):
        raise LoadError(f"stays_s has {min(stays_s):g} s; in {duration_s:g} s that is over {_MOST_STAYS:,} changes")
    starts, rates = [0.0], []
    state = int(rng.integers(len(rates_hz)))
    while starts[-1] < duration_s:
        rates.append(rates_hz[state])
        starts.append(starts[-1] + rng.exponential(stays_s[state]))
        state = (state + int(rng.integers(1, max(2, len(rates_hz))))) % len(rates_hz)
    return piecewise(starts, rates, duration_s, rng)


def piecewise(starts_s: Sequence[float], rates_hz: Sequence[float], duration_s: float, rng: Generator) -> Times:
    """Return a Poisson process whose rate is ``rates_hz[i]`` from ``starts_s[i]`` on, until the next start or the end.

    ``starts_s`` begins with 0 and ascends; starts at or after the end do nothing.
    """
    edges = np.clip([*starts_s[: len(rates_hz)], duration_s], 0.0, duration_s)
    expected = np.concatenate([[0.0], np.cumsum(np.diff(edges) * np.asarray(rates_hz))])
    return _time_change(edges, expected, rng)


def follow(rate: RateCurve, duration_s: float, rng: Generator) -> Times:
    """Return a Poisson process whose rate at each moment is ``rate(t)``, which takes and returns arrays."""
    grid = np.linspace(0.0, duration_s, _GRID_POINTS)
    rates = rate(grid)
    steps = np.diff(grid) * (rates[1:] + rates[:-1]) / 2.0
    return _time_change(grid, np.concatenate([[0.0], np.cumsum(steps)]), rng)


def diurnal(mean_hz: float, swing_ratio: float, period_s: float) -> RateCurve:
    """Return a day's curve: a sine from the mean, ``swing_ratio`` of it (0..1) up and down, starting at the trough."""
    return lambda t: mean_hz * (1.0 - swing_ratio * np.cos(2.0 * np.pi * t / period_s))


def flash_crowd(base_hz: float, peak_hz: float, at_s: float, phases_s: tuple[float, float, float]) -> RateCurve:
    """Return a crowd's curve: from the base up to the peak, there for a while, and away exponentially.

    ``phases_s`` are the time to climb, the time at the peak, and the time constant of the decay.
    """
    climb_s, hold_s, decay_s = phases_s
    top_s, fall_s = at_s + climb_s, at_s + climb_s + hold_s

    def rate(t: Times) -> Times:
        up = np.clip((t - at_s) / climb_s, 0.0, 1.0)
        down = np.exp(-np.maximum(0.0, t - fall_s) / decay_s)
        return base_hz + (peak_hz - base_hz) * np.where(t < top_s, up, down)

    return rate


def _time_change(moments_s: Times, expected: Times, rng: Generator) -> Times:
    """Draw a Poisson process whose expected count up to ``moments_s[i]`` is ``expected[i]``, linear in between.

    Raises:
        LoadError: They are more than fit into memory.
    """
    if not expected[-1] <= _MOST_MOMENTS:
        raise LoadError(f"{expected[-1]:.3g} arrivals are asked for; at most {_MOST_MOMENTS:,} can be drawn")
    count = int(rng.poisson(expected[-1]))
    return np.interp(np.sort(rng.uniform(0.0, expected[-1], count)), expected, moments_s)
