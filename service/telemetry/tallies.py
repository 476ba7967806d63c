"""Counters and histograms for what happens at every request.

prometheus_client takes a lock for each value and looks at every bucket of a histogram: some 25 us for one request's
metrics. Here counting is an addition, buckets are found by bisection, and the exposition is made when it is scraped.
Requests and runs, of which each has many values, are counted in batches besides (``later``).

Additions to one tally come from one thread at a time: its owner sees to that. A scrape reads while others count, and
may find a histogram's sum one batch behind its buckets; the count is the sum of the buckets, so that these agree.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from prometheus_client.metrics_core import Metric


class Count:
    """One counter of a family; add to ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Start at zero."""
        self.value = 0.0


class Histogram:
    """One histogram of a family; ``counts`` holds how many values fell into each bucket alone.

    ``exemplars`` has the last traced value of each bucket.
    """

    __slots__ = ("_sorted", "counts", "edges", "exemplars", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        """Start empty; a value belongs to the first edge that it does not exceed."""
        self.edges = edges
        self._sorted = np.array(edges)
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count values, (N,); many together take far less time than one by one."""
        places = np.bincount(np.searchsorted(self._sorted, values), minlength=len(self.counts))
        self.counts = [count + more for count, more in zip(self.counts, places.tolist(), strict=True)]
        self.total += float(values.sum())

    def exemplify(self, value: float, trace_id: str) -> None:
        """Keep a value that was counted as the example of its bucket, with the trace that tells its story."""
        self.exemplars[bisect_left(self.edges, value)] = Exemplar({"trace_id": trace_id}, value, time.time())


class CountFamily(Collector):
    """Counters of one name by their labels."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        """Start without any label set."""
        self._describe = (name, documentation, None, labels)
        self._counts: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: str) -> Count:
        """Return the counter of a label set, made at zero when it is new."""
        return self._counts.setdefault(values, Count())

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands."""
        family = CounterMetricFamily(*self._describe)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count.value)
        yield family


class HistogramFamily(Collector):
    """Histograms of one name by their labels, all with the same bucket edges."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], edges: Sequence[float]) -> None:
        """Start without any label set."""
        self._describe = (name, documentation, None, None, labels)
        self._edges = tuple(edges)
        self._names = [floatToGoString(edge) for edge in (*self._edges, math.inf)]  # type: ignore[no-untyped-call] # the library leaves it so
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def labels(self, *values: str) -> Histogram:
        """Return the histogram of a label set, made empty when it is new."""
        return self._histograms.setdefault(values, Histogram(self._edges))

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands, with cumulative buckets; only OpenMetrics can say the exemplars."""
        family = HistogramMetricFamily(*self._describe)
        for values, histogram in list(self._histograms.items()):
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            total, reached = histogram.total, 0
            for place, (name, count) in enumerate(zip(self._names, list(histogram.counts), strict=True)):
                reached += count
                exemplar = histogram.exemplars.get(place)
                buckets.append((name, float(reached), exemplar) if exemplar else (name, float(reached)))
            family.add_metric(values, buckets, total)
        yield family
