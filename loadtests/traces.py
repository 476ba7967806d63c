"""Arrival traces: read the layouts that are published, scale them, and say what they are like.

| layout | what a row is |
|---|---|
| a column of times | one request; numbers are seconds, texts are ISO times; any other columns are passed over |
| Azure LLM inference | one request, ``TIMESTAMP`` with its date and time |
| Azure Functions 2019 | one function, and its invocations in each minute of a day, columns ``1`` to ``1440`` |
| BurstGPT | one request, ``Timestamp`` in seconds |

A trace of counts says nothing about the moments within a minute; they are drawn uniformly, from a seed. All times are
shifted so that the first is 0.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Times = NDArray[np.float64]
    Row = tuple[int, Sequence[str]]

_COLUMNS: Final = ("arrival_s", "time_s", "timestamp", "time", "arrival", "start_time")
_MINUTE_S: Final = 60.0
_MINUTES_A_DAY: Final = 1440
_ENOUGH_WINDOWS: Final = 2
_MOST_ARRIVALS: Final = 20_000_000
"""Of one trace in memory."""
_NO_NUMBERS: Final = ("", "nan", "inf", "-inf")


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
        column: The column of times by its name, or by its place from 1 up, where the file is of none of the known
            layouts.
        seed: For layouts that give counts.

    Raises:
        LoadError: The file cannot be read, or holds no two moments.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            rows = ((lines.line_num, row) for row in lines if any(map(str.strip, row)))
            times = _read_rows(rows, column, seed)
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LoadError(f"trace {path} cannot be read: {reason}") from None
    if len(times) < 2:  # noqa: PLR2004 - a rate needs two
        raise LoadError(f"trace {path} has {len(times)} arrivals; at least 2 are needed")
    ordered: Times = np.sort(times) - times.min()
    if not ordered[-1] > 0.0:
        raise LoadError(f"trace {path} has {len(times)} arrivals, all at one moment; a rate needs two moments")
    return ordered


def play(times_s: Times, count: int, duration_s: float) -> Times:
    """Return the first ``count`` arrivals, played so much faster or slower that they take ``duration_s``.

    All relative gaps stay. The trace is played again from its start where it has too few.

    Raises:
        LoadError: So few arrivals are all at the trace's first moment.
    """
    length_s = float(times_s[-1]) + _mean_gap(times_s)
    turns = count // len(times_s) + 1
    times = repeat(times_s, turns * length_s + float(times_s[1]))
    end_s = times[count] if count < len(times) else turns * length_s
    if not end_s > 0.0:
        raise LoadError(f"the trace's first {count + 1} arrivals are all at one moment; send more, or scale by rate")
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
    """Return the trace, played again from its start as often as it takes, cut at ``duration_s``.

    Raises:
        LoadError: It has so many arrivals a second that they would not fit into memory.
    """
    length_s = float(times_s[-1]) + _mean_gap(times_s)
    turns = max(1, int(np.ceil(duration_s / length_s)))
    if turns > 1 and turns * len(times_s) > _MOST_ARRIVALS:
        raise LoadError(
            f"the trace has {len(times_s) / length_s:.3g} arrivals a second; {duration_s:g} s of it are over "
            f"{_MOST_ARRIVALS:,}"
        )
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
    windows = int(length_s / window_s)
    counts = _counts(times_s, length_s, window_s)
    if windows < _ENOUGH_WINDOWS or not counts.any():
        return float("nan")
    mean = float(counts.sum()) / windows
    return float(np.square(counts - mean).sum() + (windows - len(counts)) * mean**2) / windows / mean


def _counts(times_s: Times, length_s: float, window_s: float) -> NDArray[np.int64]:
    """Return the counts of the whole windows that have any; a trace may be nearly empty for years."""
    places, counts = np.unique((times_s / window_s).astype(np.int64), return_counts=True)
    return counts[places < int(length_s / window_s)]


def _mean_gap(times_s: Times) -> float:
    return float(times_s[-1]) / (len(times_s) - 1)


def _read_rows(rows: Iterator[Row], column: str | None, seed: int) -> Times:
    number, header = next(rows, (0, []))
    names = [name.strip().lower() for name in header]
    if column is None and str(_MINUTES_A_DAY) in names:
        return _read_counts(names, rows, seed)
    place = _place(header, names, column)
    is_header = bool(header) and not _is_time(header[place])
    return _read_times(rows if is_header else chain([(number, header)] if header else [], rows), place)


def _place(header: Sequence[str], names: Sequence[str], column: str | None) -> int:
    """Return which column has the times: the one asked for, one of the usual names, or the only one."""
    if column is not None:
        asked = column.strip().lower()
        if asked in names:
            return names.index(asked)
        if asked.isdecimal() and 0 < int(asked) <= len(names):
            return int(asked) - 1
        raise ValueError(f"it has no column '{column}'; it has {', '.join(header)}")
    known = next((names.index(name) for name in _COLUMNS if name in names), None)
    if known is None and len(names) > 1:
        raise ValueError(
            f"it has {len(names)} columns ({', '.join(header[:8])}), of which none is called {', '.join(_COLUMNS)}; "
            "say which has the times, by name or by its place from 1 up"
        )
    return known or 0


def _read_times(rows: Iterable[Row], place: int) -> Times:
    times = []
    for number, row in rows:
        if len(row) <= place:
            raise ValueError(f"line {number} has {len(row)} columns; the times are in column {place + 1}")
        try:
            times.append(_seconds(row[place].strip()))
        except (ValueError, OverflowError):
            raise ValueError(f"line {number}: '{row[place]}' is neither a number of seconds nor an ISO time") from None
    return np.array(times, np.float64)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def _is_time(text: str) -> bool:
    try:
        _seconds(text.strip())
    except (ValueError, OverflowError):
        return text.strip().lower() in _NO_NUMBERS  # a row of data, which is then refused as one
    return True


def _read_counts(names: Sequence[str], rows: Iterable[Row], seed: int) -> Times:
    first = names.index("1")
    totals = np.zeros(_MINUTES_A_DAY, np.int64)
    for number, row in rows:
        counts = row[first : first + _MINUTES_A_DAY]
        if len(counts) < _MINUTES_A_DAY or not all(text.strip().isdecimal() for text in counts):
            raise ValueError(f"line {number} has no count from 0 up for each of {_MINUTES_A_DAY:,} minutes")
        totals += np.array(counts, np.int64)
    if totals.sum() > _MOST_ARRIVALS:
        raise ValueError(f"it has {totals.sum():,} arrivals; at most {_MOST_ARRIVALS:,} can be played: keep fewer rows")
    minutes = np.repeat(np.arange(_MINUTES_A_DAY), totals)
    return _MINUTE_S * (minutes + np.random.default_rng([seed, 3]).random(len(minutes)))
