"""The traffic that a tune saw, as the bounds that the gateway holds live traffic to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from service.domain.policy_file import TunedRegion
from service.policy.region import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadtests.simulator.workload import Workload

_WINDOWS: Final = 8
_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 300.0
_DIGITS: Final = 6


def region_of(workloads: Sequence[Workload]) -> TunedRegion:
    """Return the least and the greatest of each figure over the windows of all workloads, none of them empty.

    A window is an eighth of the shortest workload, from one second to five minutes; a workload that is shorter than
    its window counts as one.
    """
    spans_s = [float(load.arrival_s[-1] - load.arrival_s[0]) for load in workloads]
    window_s = min(max(min(spans_s) / _WINDOWS, _SHORTEST_S), _LONGEST_S)
    rates, peaks, budgets = zip(*(row for load in workloads for row in _windows(load, window_s)), strict=True)
    return TunedRegion(
        window_s=window_s, rate_hz=_bounds(rates), peak_hz=_bounds(peaks), budget_ms=_bounds(1e3 * np.array(budgets))
    )


def _windows(load: Workload, window_s: float) -> list[tuple[float, float, float]]:
    """Return rate, peak rate and mean budget of each window that has a request; a part at the end counts for none."""
    times = load.arrival_s - load.arrival_s[0]
    count = max(1, int(times[-1] / window_s))
    length_s = min(window_s, float(times[-1])) or window_s
    found = []
    for place in np.unique((times / length_s).astype(np.int64)).tolist():  # years without a request cost nothing
        first, last = np.searchsorted(times, [place * length_s, (place + 1) * length_s])
        if first == last or place >= count:
            continue
        parts = ((times[first:last] - place * length_s) / length_s * PARTS).astype(np.int64)
        most = int(np.bincount(np.minimum(parts, PARTS - 1)).max())
        found.append(((last - first) / length_s, most / (length_s / PARTS), float(load.budget_s[first:last].mean())))
    return found


def _bounds(values: Iterable[float]) -> tuple[float, float]:
    found = np.round(np.array(list(values)), _DIGITS)
    return float(found.min()), float(found.max())
