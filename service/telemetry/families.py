"""Families of time series, made under one prefix in one registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.registry import Collector

from service.telemetry.tallies import CountFamily, HistogramFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

BY_VARIANT: Final = ("model", "variant")


class Families:
    """Makes families and registers them; ``registry`` is what a scrape reads.

    ``tally`` and ``histogram`` are for what happens at every request, ``counter`` and ``gauge`` for what is rare.
    """

    def __init__(self) -> None:
        """Start with an empty registry."""
        self.registry = CollectorRegistry(auto_describe=True)

    def before_reading(self, settle: Callable[[], None]) -> None:
        """Call this before anything that is registered from now on is read."""
        self.registry.register(_Settling(settle))

    def counter(self, name: str, help_text: str, labels: Sequence[str]) -> Counter:
        """Return a counter that may be counted from any thread; ``_total`` is added to its name."""
        return Counter(f"tiergate_{name}", f"{help_text}.", labels, registry=self.registry)

    def gauge(self, name: str, help_text: str, labels: Sequence[str]) -> Gauge:
        """Return a gauge."""
        return Gauge(f"tiergate_{name}", f"{help_text}.", labels, registry=self.registry)

    def tally(self, name: str, help_text: str, labels: Sequence[str]) -> CountFamily:
        """Return a counter for one counting thread at a time; ``_total`` is added to its name."""
        family = CountFamily(f"tiergate_{name}", f"{help_text}.", labels)
        self.registry.register(family)
        return family

    def histogram(self, name: str, help_text: str, labels: Sequence[str], edges: Sequence[float]) -> HistogramFamily:
        """Return a histogram with these bucket edges."""
        family = HistogramFamily(f"tiergate_{name}", f"{help_text}.", labels, edges)
        self.registry.register(family)
        return family


class _Settling(Collector):
    """Has no metrics: a registry reads its collectors in order, and this one has something to do first."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        self._settle()
        return ()
