"""Arrival traces: read the layouts that are published, scale them, and say what they are like.

| layout | what a row is |
|---|---|
| a column of times | one request; numbers are seconds, texts are ISO times |
| Azure LLM inference | one request, ``TIMESTAMP`` with its date and time |
| Azure Functions 2019 | one function, and its invocations in each minute of a day, columns ``1`` to ``1440`` |
| BurstGPT | one request, ``Timestamp`` in seconds |

A trace of counts says nothing about the moments within a minute; they are drawn uniformly, from a seed. All times are
shifted so that the first is 0.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Times = NDArray[np.float64]

_COLUMNS: Final = ("arrival_s", "timestamp", "time", "arrival", "start_time")
_MINUTE_S: Final = 60.0
_MINUTES_A_DAY: Final = 1440
_ENOUGH_WINDOWS: Final = 2
_FRACTION_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """What a trace is like, by the figures that decide how hard it is to serve.

    ``gap_cv`` is the coefficient of variation of the gaps (Poisson: 1). An index of dispersion is the variance of the
    counts in windows of that length over their mean (Poisson: 1 at every length); NaN where the trace has fewer than
    two windows. ``peak_ratio`` is the busiest whole second's count over the mean count.
    """

    requests: int
    duration_s: float
    rate_hz: float
    gap_cv: float
    dispersion_1s: float
    dispersion_60s: float
    peak_ratio: float


def read_trace(path: Path, *, column: str | None = None, seed: int = 0) -> Times:
    """Return the arrival times of a CSV file, ascending from 0.

    Args:
        path: The file; its layout is recognised by its header.
        column: The column of times, where the file is of none of the known layouts.
        seed: For layouts that give counts.

    Raises:
        LoadError: The file cannot be read, or holds no times.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            times = _read_rows(next(rows, []), rows, column, seed)
    except (OSError, ValueError, csv.Error) as error:
        raise LoadError(f"trace {path} cannot be read: {error}") from None
    if len(times) < 2:  # noqa: PLR2004 - a rate needs two
        raise LoadError(f"trace {path} has {len(times)} arrivals; at least 2 are needed")
    ordered: Times = np.sort(times) - times.min()
    return ordered


def play(times_s: Times, count: int, duration_s: float) -> Times:
    """Return the first ``count`` arrivals, played so much faster or slower that they take ``duration_s``.

    All relative gaps stay. The trace is played again from its start where it has too few.
    """
    length_s = float(times_s[-1]) + _mean_gap(times_s)
    turns = count // len(times_s) + 1
    times = repeat(times_s, turns * length_s + float(times_s[1]))
    end_s = times[count] if count < len(times) else turns * length_s
    return times[:count] * (duration_s / float(end_s))


def scale_rate(times_s: Times, factor: float, seed: int = 0) -> Times:
    """Return the trace with ``factor`` times as many requests at the same speed.

    Below 1 requests are left out at random; above 1 each one is repeated, the copies spread over the gap that follows,
    so that bursts grow in height and keep their length.
    """
    rng = np.random.default_rng([seed, 2])
    whole, part = int(factor), factor - int(factor)
    copies = whole + (rng.random(len(times_s)) < part)
    gaps = np.diff(times_s, append=times_s[-1] + _mean_gap(times_s))
    first = np.concatenate([[0], np.cumsum(copies)[:-1]])
    place = np.arange(copies.sum()) - np.repeat(first, copies)
    spread: Times = place / np.repeat(np.maximum(copies, 1), copies) * np.repeat(gaps, copies)
    return np.repeat(times_s, copies) + spread


def repeat(times_s: Times, duration_s: float) -> Times:
    """Return the trace, played again from its start as often as it takes, cut at ``duration_s``."""
    length_s = float(times_s[-1]) + _mean_gap(times_s)
    turns = max(1, int(np.ceil(duration_s / length_s)))
    times = np.concatenate([times_s + turn * length_s for turn in range(turns)])
    return times[times < duration_s]


def describe(times_s: Times, duration_s: float | None = None) -> Shape:
    """Return what a trace is like; without a duration it ends with its last request."""
    length_s = float(times_s[-1]) if duration_s is None else duration_s
    gaps = np.diff(times_s)
    rate_hz = len(times_s) / length_s
    return Shape(
        requests=len(times_s),
        duration_s=length_s,
        rate_hz=rate_hz,
        gap_cv=float(gaps.std() / gaps.mean()),
        dispersion_1s=dispersion(times_s, length_s, 1.0),
        dispersion_60s=dispersion(times_s, length_s, 60.0),
        peak_ratio=float(_counts(times_s, length_s, 1.0).max(initial=0)) / rate_hz,
    )


def dispersion(times_s: Times, length_s: float, window_s: float) -> float:
    """Return the variance of the counts in whole windows over their mean, NaN for fewer than two windows."""
    counts = _counts(times_s, length_s, window_s)
    if len(counts) < _ENOUGH_WINDOWS or not counts.any():
        return float("nan")
    return float(counts.var() / counts.mean())


def _counts(times_s: Times, length_s: float, window_s: float) -> NDArray[np.int64]:
    windows = int(length_s / window_s)
    return np.bincount((times_s / window_s).astype(np.int64), minlength=windows)[:windows]


def _mean_gap(times_s: Times) -> float:
    return float(times_s[-1]) / (len(times_s) - 1)


def _read_rows(header: Sequence[str], rows: Iterable[Sequence[str]], column: str | None, seed: int) -> Times:
    names = [name.strip().lower() for name in header]
    if column is None and str(_MINUTES_A_DAY) in names:
        return _read_counts(names, rows, seed)
    if column is not None:
        if column.lower() not in names:
            raise ValueError(f"it has no column '{column}'; it has {', '.join(header)}")
        return _read_times(row[names.index(column.lower())] for row in rows if row)
    place = next((names.index(name) for name in _COLUMNS if name in names), 0)
    texts = [row[place] for row in rows if row]
    has_header = bool(header) and not _is_number(header[place])
    return _read_times(texts if has_header else [header[place], *texts] if header else texts)


def _read_times(texts: Iterable[str]) -> Times:
    return np.array([_seconds(text.strip()) for text in texts if text.strip()])


def _seconds(text: str) -> float:
    if _is_number(text):
        return float(text)
    whole, _, fraction = text.partition(".")  # Azure writes seven digits, of which Python 3.10 reads none
    moment = datetime.fromisoformat(f"{whole}.{fraction[:_FRACTION_DIGITS].ljust(_FRACTION_DIGITS, '0')}")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _read_counts(names: Sequence[str], rows: Iterable[Sequence[str]], seed: int) -> Times:
    first = names.index("1")
    totals = np.zeros(_MINUTES_A_DAY, np.int64)
    for row in rows:
        totals += np.array(row[first : first + _MINUTES_A_DAY], np.int64)
    minutes = np.repeat(np.arange(_MINUTES_A_DAY), totals)
    return _MINUTE_S * (minutes + np.random.default_rng([seed, 3]).random(len(minutes)))
