"""Values that are read when Prometheus asks, not kept up to date in between."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from prometheus_client.metrics_core import Metric

_SHORTEST_S: Final = 0.1
"""Two scrapers at once must not see noise."""


class LiveGauges(Collector):
    """Queued requests by model, requests inside, and how busy each lane is.

    The busy share since the last scrape is right for one scraper; where there are several, the rate of the seconds is.
    """

    def __init__(
        self,
        known: AbstractSet[str],
        depths: Callable[[], Mapping[str, int]],
        inflight: Callable[[], int],
        busy_s: Callable[[], Sequence[float]],
    ) -> None:
        """Read these at every scrape; ``known`` are the models that have a queue, ``busy_s`` is summed by lane."""
        self._known = known
        self._depths = depths
        self._inflight = inflight
        self._busy_s = busy_s
        self._last_s = time.monotonic()
        self._last_busy_s = list(busy_s())
        self._ratios = [0.0] * len(self._last_busy_s)

    def collect(self) -> Iterable[Metric]:
        """Return the families as things stand."""
        depths = self._depths()
        queued = GaugeMetricFamily("tiergate_queue_depth", "Requests waiting for a lane.", labels=("model",))
        for model in sorted(self._known):
            queued.add_metric((model,), depths.get(model, 0))
        yield queued
        yield GaugeMetricFamily("tiergate_inflight_requests", "Requests inside.", value=self._inflight())
        busy = GaugeMetricFamily(
            "tiergate_lane_busy_ratio",
            "Share of the time since the last scrape that a lane computed.",
            labels=("lane",),
        )
        for lane, ratio in enumerate(self._busy_ratios()):
            busy.add_metric((str(lane),), ratio)
        yield busy
        seconds = CounterMetricFamily("tiergate_lane_busy_seconds", "Time that a lane computed.", labels=("lane",))
        for lane, busy_s in enumerate(self._busy_s()):
            seconds.add_metric((str(lane),), busy_s)
        yield seconds

    def _busy_ratios(self) -> Sequence[float]:
        now_s, busy_s = time.monotonic(), list(self._busy_s())
        elapsed_s = now_s - self._last_s
        if elapsed_s >= _SHORTEST_S:
            pairs = zip(busy_s, self._last_busy_s, strict=True)
            self._ratios = [min(1.0, max(0.0, (now - last) / elapsed_s)) for now, last in pairs]
            self._last_s, self._last_busy_s = now_s, busy_s
        return self._ratios


class DroppedArrivals(Collector):
    """Arrivals that were to be recorded and are not."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        """Read this at every scrape."""
        self._dropped = dropped

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands."""
        help_text = "Arrivals that were not recorded, because the disk failed or did not keep up."
        yield CounterMetricFamily("tiergate_arrivals_dropped", help_text, value=self._dropped())
