"""Variants timed side by side, so that a bad second of the machine falls on all of them.

In each round of a cell (batch size, threads) every variant runs a few times, one after the other, and gives the median
of its runs. A ratio of two variants is the median over rounds of the ratio within a round; its interval is made of the
order statistics that enclose that median with 95 %, whatever the distribution. Sessions are those of a gateway's lane.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.intervals import percentile_interval
from variants.runtime import feed_of, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from loadtests.building.subjects import Subject

ROUNDS: Final = 9
HEADLINE_ROUNDS: Final = 31
BLOCK_S: Final = 0.005
HEADLINE_BLOCK_S: Final = 0.015
MOST_RUNS: Final = 40
WARMUPS: Final = 3


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one thing is another, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def time_model(subject: Subject, inputs: NDArray[Any], progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the cells of a model's manifest, timed anew on ``inputs`` (rows, ...).

    Each has ``batch`` and ``threads``, and by variant ``predicted_s``, the manifest's p50, and ``blocks_s``, the median
    of each round.
    """
    grid = {(row.threads, row.batch_size) for variant in subject.timed for row in variant.latency.rows}
    cells = []
    for threads in sorted({threads for threads, _ in grid}):
        progress(f"{subject.manifest.model}: {threads} thread{'s' if threads > 1 else ''}")
        sessions = {variant.name: open_session(subject.file(variant), threads) for variant in subject.timed}
        for batch in sorted(batch for those, batch in grid if those == threads):
            rows = np.resize(inputs, (batch, *inputs.shape[1:]))
            cells.append(
                {
                    "batch": batch,
                    "threads": threads,
                    "predicted_s": _predicted(subject, batch, threads),
                    "blocks_s": _time_cell(sessions, rows, is_headline=batch == threads == 1),
                }
            )
    return cells


def ratio(cell: Mapping[str, Any], slow: str, fast: str) -> Ratio:
    """Return how many times as long ``slow`` takes as ``fast``."""
    return median_ratio(np.array(cell["blocks_s"][slow]) / np.array(cell["blocks_s"][fast]))


def median_ratio(ratios: NDArray[np.float64]) -> Ratio:
    """Return the median of rounds' ratios (rounds,) with its interval."""
    low, high = percentile_interval(np.sort(ratios), 0.5)
    return Ratio(float(np.median(ratios)), low, high)


def p50(cell: Mapping[str, Any], variant: str) -> float:
    """Return the median of a variant's rounds, seconds."""
    return float(np.median(cell["blocks_s"][variant]))


def headline(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cell of one row and one thread."""
    return next(cell for cell in cells if cell["batch"] == cell["threads"] == 1)


def _predicted(subject: Subject, batch: int, threads: int) -> dict[str, float]:
    return {
        variant.name: row.p50_s
        for variant in subject.timed
        for row in variant.latency.rows
        if (row.batch_size, row.threads) == (batch, threads)
    }


def _time_cell(sessions: Mapping[str, Any], rows: NDArray[Any], *, is_headline: bool) -> dict[str, list[float]]:
    rounds, block_s = (HEADLINE_ROUNDS, HEADLINE_BLOCK_S) if is_headline else (ROUNDS, BLOCK_S)
    feeds = {name: feed_of(session.get_inputs()[0].name, rows) for name, session in sessions.items()}
    runs = {name: _runs_of(session, feeds[name], block_s) for name, session in sessions.items()}
    blocks: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            times_s = [_run_once(session, feeds[name]) for _ in range(runs[name])]
            blocks[name].append(float(f"{np.median(times_s):.4g}"))
    return blocks


def _runs_of(session: Any, feed: Mapping[str, Any], block_s: float) -> int:  # noqa: ANN401 - onnxruntime ships no types
    """Return how many runs fill a block, after warming up."""
    fastest_s = min(_run_once(session, feed) for _ in range(WARMUPS))
    return max(1, min(MOST_RUNS, round(block_s / fastest_s)))


def _run_once(session: Any, feed: Mapping[str, Any]) -> float:  # noqa: ANN401 - onnxruntime ships no types
    start_s = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start_s
