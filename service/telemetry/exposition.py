"""Reading an exposition: what a gateway's ``/metrics`` said at a moment, and what happened between two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """Every sample by name and labels; ``moment_s`` is in Unix time. What is not there counts as 0."""

    moment_s: float
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a name's samples that have these labels."""
        return sum(value for _, value in self.each(name, **labels))

    def each(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """Return the samples of a name that have these labels, with all their labels."""
        wanted = labels.items()
        for found, value in self.samples.get(name, {}).items():
            if found >= wanted and not math.isnan(value):
                yield dict(found), value

    def values(self, name: str, label: str, **labels: str) -> list[str]:
        """Return the values that a label has, in the order of the exposition."""
        return list(dict.fromkeys(found[label] for found, _ in self.each(name, **labels) if label in found))

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Return a quantile of a histogram as ``histogram_quantile`` of Prometheus estimates it; ``None`` if empty."""
        buckets: dict[float, float] = {}
        for found, value in self.each(f"{name}_bucket", **labels):
            edge = float(found["le"])
            buckets[edge] = buckets.get(edge, 0.0) + value
        return _quantile(sorted(buckets.items()), share)


def read_scrape(text: str, moment_s: float) -> Scrape:
    """Read Prometheus's text format.

    Raises:
        ValueError: It is something else.
    """
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(moment_s, samples)


def between(before: Scrape, now: Scrape) -> Scrape:
    """Return what was added from one scrape to the next; what became less was started anew, and counts from 0."""
    return Scrape(
        now.moment_s,
        {
            name: {
                labels: _added(before.samples.get(name, {}).get(labels, 0.0), value) for labels, value in row.items()
            }
            for name, row in now.samples.items()
        },
    )


def _added(before: float, now: float) -> float:
    return now if now < before else now - before


def _quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Interpolate in cumulative buckets; beyond the last finite edge nothing is known but that edge."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for edge, reached in buckets:
        if reached >= rank and reached > below:
            return low if math.isinf(edge) else low + (edge - low) * (rank - below) / (reached - below)
        low, below = edge, reached
    return low
