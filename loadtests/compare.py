"""Compare two runs: B against A, with ratios, differences and intervals. Latency is that of answers, as in reports.

Where both ran the same schedule (same scenario, seed, rate), request by request the same was asked at the same moment;
the difference is then bootstrapped in pairs, which takes out what the requests have in common. Otherwise each run is
drawn on its own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table

from loadtests.figures import Figures
from loadtests.intervals import middle, resample
from loadtests.recording import Status
from loadtests.wording import duration, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from rich.console import Console

    from loadtests.document import Document

    Figure = Callable[[NDArray[np.int64]], float]

_SEED: Final = 0
_SAME_MOMENT_S: Final = 1e-5


class Line(Figures):
    """One figure of both runs; ``difference`` is B - A and ``ratio`` B / A, each with its 95 % interval."""

    figure: str
    unit: str
    first: float
    second: float
    difference: float
    difference_low: float
    difference_high: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None

    @property
    def is_clear(self) -> bool:
        """Tell whether the interval of the difference leaves zero out."""
        return self.difference_low > 0.0 or self.difference_high < 0.0


class Comparison(Figures):
    """All figures, whether they were compared in pairs, and why not to believe them."""

    is_paired: bool
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]


def compare(first: Document, second: Document) -> Comparison:
    """Compare two runs."""
    is_paired = _is_paired(first, second)
    figures = [_figures(first), _figures(second)]
    counts = [len(first.requests.status), len(second.requests.status)]
    lines = [
        _line(name, (figures[0][name], figures[1][name]), counts, is_paired=is_paired)
        for name in figures[0]
        if name in figures[1]
    ]
    return Comparison(is_paired=is_paired, lines=tuple(lines), warnings=tuple(_warnings(first, second, is_paired)))


def draw(comparison: Comparison, console: Console) -> None:
    """Print a comparison."""
    how = "paired request by request" if comparison.is_paired else "not paired: the schedules differ"
    table = Table(title=f"B against A, 95 % intervals, {how}")
    for column in ("figure", "A", "B", "B - A", "interval", "B / A", "interval", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for line in comparison.lines:
        table.add_row(*_cells(line))
    console.print(table)
    for warning in comparison.warnings:
        console.print(f"[yellow]warning[/yellow]: {warning}")


def _cells(line: Line) -> tuple[str, ...]:
    write = duration if line.unit == "s" else percent
    signed = "+" if line.difference >= 0 else ""
    has_ratio = line.ratio is not None and line.ratio_low is not None and line.ratio_high is not None
    return (
        line.figure,
        write(line.first),
        write(line.second),
        f"{signed}{write(line.difference)}",
        f"{write(line.difference_low)} .. {write(line.difference_high)}",
        f"{line.ratio:.3f}" if has_ratio else "",
        f"{line.ratio_low:.3f} .. {line.ratio_high:.3f}" if has_ratio else "",
        "clear" if line.is_clear else "open",
    )


def _is_paired(first: Document, second: Document) -> bool:
    times = [np.array(document.requests.scheduled_s) for document in (first, second)]
    same = len(times[0]) == len(times[1]) and bool(np.all(np.abs(times[0] - times[1]) < _SAME_MOMENT_S))
    return same and first.requests.row == second.requests.row and first.requests.kind == second.requests.kind


def _figures(document: Document) -> dict[str, Figure]:
    """Return the figures of a run, each as a function of the requests that count."""
    requests = document.requests
    on_time = np.array(requests.on_time)
    latency_s = np.array([np.nan if item is None else item for item in requests.latency_s], np.float64)
    latency_s[np.array(requests.status) != Status.OK] = np.nan  # a refusal is soon there, and no answer
    found: dict[str, Figure] = {"on time": lambda where: float(on_time[where].mean())}
    if requests.correct is not None:
        correct = np.array(requests.correct)
        found["correct and on time"] = lambda where: float((correct & on_time)[where].mean())
        found["right of all offered"] = lambda where: float(correct[where].mean())
    if np.isfinite(latency_s).any():
        for level in (50, 90, 99):
            found[f"latency p{level}"] = partial(_percentile, latency_s, level)
    return found


def _percentile(latency_s: NDArray[np.float64], level: float, where: NDArray[np.int64]) -> float:
    """Return a percentile of those that ended; NaN where a draw has none."""
    ended_s = latency_s[where]
    ended_s = ended_s[np.isfinite(ended_s)]
    return float(np.percentile(ended_s, level)) if len(ended_s) else float("nan")


def _line(name: str, figures: tuple[Figure, Figure], counts: list[int], *, is_paired: bool) -> Line:
    first, second = (figure(np.arange(count)) for figure, count in zip(figures, counts, strict=True))
    difference = _interval(figures, counts, lambda a, b: b - a, is_paired=is_paired)
    ratio = _interval(figures, counts, lambda a, b: b / a if a else np.nan, is_paired=is_paired)
    return Line(
        figure=name,
        unit="s" if name.startswith("latency") else "ratio",
        first=first,
        second=second,
        difference=second - first,
        difference_low=difference[0],
        difference_high=difference[1],
        ratio=second / first if first else None,
        ratio_low=ratio[0] if first else None,
        ratio_high=ratio[1] if first else None,
    )


def _interval(
    figures: tuple[Figure, Figure], counts: list[int], join: Callable[[float, float], float], *, is_paired: bool
) -> tuple[float, float]:
    if is_paired:
        return middle(resample(lambda where: join(figures[0](where), figures[1](where)), counts[0], _SEED))
    draws = [
        resample(figure, count, seed).tolist() for seed, (figure, count) in enumerate(zip(figures, counts, strict=True))
    ]
    return middle(np.array([join(a, b) for a, b in zip(*draws, strict=True)]))


def _warnings(first: Document, second: Document, is_paired: bool) -> list[str]:
    found = [
        f"{name} is invalid: {'; '.join(item.summary.faults)}"
        for name, item in (("A", first), ("B", second))
        if item.summary.faults
    ]
    if not is_paired:
        found.append("the runs did not send the same requests at the same moments; give both one scenario and seed")
    if _machine(first) != _machine(second):
        found.append("the runs are from different machines")
    return found


def _machine(document: Document) -> tuple[Any, Any]:
    return document.machine.get("cpu"), document.machine.get("cores")
