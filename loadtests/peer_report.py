"""What `make bench-peers` makes of its figures: ratios to the gateway round by round, bars met or missed, a table.

A ratio is taken within one round, in which both servers were asked right after one another, and the median over rounds
is given with the range. Above 1 the gateway is ahead: its rate over the peer's, and the peer's p99 over its own.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtests.peer_rounds import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REFERENCE: Final = "tiergate"
RATE_BARS: Final = {"Triton": 1.2, "MLServer": 4.0, "BentoML native": 8.0, "LitServe": 1.0, "Ray Serve": 1.0}
P99_BAR: Final = 1.0
ADDED_P50_BAR_S: Final = 0.001
SAMPLES_OF_A_P99: Final = 459
"""With fewer answers in all a p99 cannot be claimed with 99 % confidence."""
_LARGE_MODEL: Final = "image"
HEADER: Final = (
    "model", "protocol", "connections", "server", "requests/s", "p50 ms", "p99 ms", "p50 over bare, ms",
    "tiergate's rate over it", "its p99 over tiergate's", "bar",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over rounds, with the least and the greatest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table; a ratio is ``None`` where there is nothing to compare with."""

    server: str
    model: str
    protocol: str
    connections: int
    rate_hz: float
    p50_s: float
    p99_s: float
    over_bare_s: float | None
    rate_ratio: Spread | None
    p99_ratio: Spread | None
    errors: int
    reference_errors: int
    requests: int

    @property
    def is_short_of_samples(self) -> bool:
        """Tell whether the p99 stands on too few answers."""
        return self.requests < SAMPLES_OF_A_P99

    @property
    def bar(self) -> str:
        """Say whether the gateway meets its bars against this server, in this row: by throughput and by p99."""
        if self.errors:
            return f"{self.errors} errors"
        if self.server == REFERENCE and self.model == _LARGE_MODEL and self.connections == 1:
            return _verdict(self.over_bare_s is not None and self.over_bare_s <= ADDED_P50_BAR_S, "p50")
        if self.reference_errors:
            return f"not compared: {REFERENCE} had errors"
        if self.rate_ratio is None or self.p99_ratio is None or self.server not in RATE_BARS:
            return ""
        missed = [
            name
            for name, is_met in (
                ("rate", self.rate_ratio.median >= RATE_BARS[self.server]),
                ("p99", self.p99_ratio.median >= P99_BAR),
            )
            if not is_met
        ]
        return _verdict(not missed, ", ".join(missed))


def lines(document: Mapping[str, Any]) -> list[Line]:
    """Return the table of a results document, sorted by what was asked, then by throughput."""
    rows = document["results"]
    by_cell = {_cell(row): row["rounds"] for row in rows if row["server"] == REFERENCE}
    bare_s = {row["model"]: _median(row["rounds"], "p50_s") for row in rows if row["server"] == BARE}
    found = [_line(row, by_cell.get(_cell(row)), bare_s.get(row["model"])) for row in rows if row["server"] != BARE]
    return sorted(found, key=lambda line: (line.model != "mlp", line.protocol, line.connections, -line.rate_hz))


def bare_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Say what the runtime does alone."""
    for row in document["results"]:
        if row["server"] == BARE:
            rate_hz, p50_s = _median(row["rounds"], "rate_hz"), _median(row["rounds"], "p50_s")
            yield f"{row['model']}: the bare runtime call takes {p50_s * 1e6:.0f} us (p50), {rate_hz:,.0f} calls/s"


def cells(line: Line) -> list[str]:
    """Return one line as texts, in the order of ``HEADER``."""
    return [
        line.model,
        line.protocol,
        str(line.connections),
        line.server,
        f"{line.rate_hz:,.0f}",
        f"{line.p50_s * 1e3:.3f}",
        f"{line.p99_s * 1e3:.3f}" + ("*" if line.is_short_of_samples else ""),
        "" if line.over_bare_s is None or line.connections > 1 else f"{line.over_bare_s * 1e3:.3f}",
        "" if line.rate_ratio is None else str(line.rate_ratio),
        "" if line.p99_ratio is None else str(line.p99_ratio),
        line.bar,
    ]


def ratios(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], field: str) -> Spread:
    """Return ``own`` over ``other``, round by round; the rounds pair up in order, and a longer tail is left out."""
    values = [mine[field] / theirs[field] for mine, theirs in zip(own, other, strict=False)]
    return Spread(statistics.median(values), min(values), max(values))


def _line(row: Mapping[str, Any], reference: Sequence[Mapping[str, Any]] | None, bare_s: float | None) -> Line:
    rounds = row["rounds"]
    is_compared = reference is not None and row["server"] != REFERENCE
    p50_s = _median(rounds, "p50_s")
    return Line(
        server=row["server"],
        model=row["model"],
        protocol=row["protocol"],
        connections=row["connections"],
        rate_hz=_median(rounds, "rate_hz"),
        p50_s=p50_s,
        p99_s=_median(rounds, "p99_s"),
        over_bare_s=None if bare_s is None else p50_s - bare_s,
        rate_ratio=ratios(reference, rounds, "rate_hz") if is_compared and reference else None,
        p99_ratio=ratios(rounds, reference, "p99_s") if is_compared and reference else None,
        errors=sum(item["errors"] for item in rounds),
        reference_errors=sum(item["errors"] for item in reference or ()) if is_compared else 0,
        requests=sum(item["requests"] for item in rounds),
    )


def _cell(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["protocol"], row["connections"]


def _median(rounds: Sequence[Mapping[str, Any]], field: str) -> float:
    return float(statistics.median(item[field] for item in rounds))


def _verdict(is_met: bool, what: str) -> str:
    return "met" if is_met else f"missed: {what}"
