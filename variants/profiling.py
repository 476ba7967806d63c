"""How fast a variant is and how much memory it takes, measured so that variants can be compared.

Machines are shared and noisy: what is measured in a bad second looks slow. All variants are therefore timed in
rounds, each cell (batch size, threads) of every variant a few runs per round, so that a bad second falls on all alike;
ratios between variants mean more than the absolute times. Sessions are set up as the gateway's lanes set them up.

Percentiles are of single runs over all rounds ("nearest rank"). They are point estimates: of the 500 runs that a cell
at batch 1 gets where time allows, the p99 is the sixth largest, and the true p99 may lie on either side of it. (What
459 runs give at 99 % confidence is a bound, and that bound is their maximum.) Slower cells stop at their share of time
and keep fewer runs, which the row says; of fewer than 100 the p99 is the maximum.

What other processes took of the cores meanwhile is measured too (``variants.contention``): a profile of a busy
machine is written down as one.

Memory and cold start come from fresh processes (``variants.probe``), because a process that has loaded another
variant before has its pages already; the median of a few is kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.contention import AGAIN, doubt, watch_others
from variants.errors import BuildError
from variants.evidence import Latency, LatencyRow, Memory
from variants.progress import show_step
from variants.runtime import feed_of, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from variants.plans import Profiling
    from variants.progress import Progress
    from variants.recipe import Inputs

WARMUPS: Final = 5
PROBE_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one variant in a process of its own, and the time to load it and answer first."""

    memory: Memory
    cold_start_s: float


def measure_speed(
    files: Mapping[str, Path], inputs: Inputs, plan: Profiling, progress: Progress
) -> dict[str, tuple[Latency, Memory]]:
    """Return latency and memory of every file; ``inputs`` (rows, ...) are real rows to run.

    Raises:
        BuildError: A probe of memory failed.
    """
    loads = [read_load_average()]
    with show_step(progress, "profile memory", plan.memory_repeats * len(files)) as advance:
        footprints = measure_footprints(files, plan.memory_repeats, advance)
    loads.append(read_load_average())
    with show_step(progress, "profile latency", plan.rounds) as advance, watch_others() as others:
        rows = profile_latency(files, inputs, plan, advance)
    loads.append(read_load_average())
    if doubtful := doubt(others.cores, len(os.sched_getaffinity(0)), max(plan.threads)):
        progress.note(f"{doubtful}; {AGAIN}")
    busy: dict[str, Any] = {"load_average": max(loads), "others_cores": others.cores}
    return {
        name: (Latency(rows=rows[name], cold_start_s=found.cold_start_s, **busy), found.memory)
        for name, found in footprints.items()
    }


def profile_latency(
    files: Mapping[str, Path], inputs: Inputs, plan: Profiling, advance: Callable[[], None]
) -> dict[str, tuple[LatencyRow, ...]]:
    """Return a row per batch size and thread count for every file.

    ``inputs`` (rows, ...) are real rows to run; ``advance`` is called after each round.
    """
    cells = {
        (name, threads, batch): _Cell(open_session(path, threads), _take(inputs, batch), plan)
        for threads in plan.threads
        for name, path in files.items()
        for batch in plan.batch_sizes
    }
    order = sorted(cells, key=lambda cell: (cell[1], cell[2]))  # variants next to each other within a cell
    for _ in range(plan.rounds):
        for cell in order:
            cells[cell].run_round()
        advance()
    return {name: tuple(cells[cell].row(cell[1]) for cell in order if cell[0] == name) for name in files}


def measure_footprints(files: Mapping[str, Path], repeats: int, advance: Callable[[], None]) -> dict[str, Footprint]:
    """Return the footprint of every file: medians over ``repeats`` fresh processes of each kind, variants taking turns.

    What a file holds is measured beside the smallest one, which the process has loaded before.

    Raises:
        BuildError: A probe failed.
    """
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in files}
    smallest = min(files.values(), key=lambda path: path.stat().st_size)
    for _ in range(repeats):
        for name, path in files.items():
            seen[name].append(_probe(path) | _probe(path, smallest))
            advance()
    return {name: _summarise(figures) for name, figures in seen.items()}


def read_load_average() -> float:
    """Return the one-minute load average."""
    return os.getloadavg()[0]


class _Cell:
    """One variant at one batch size and thread count."""

    def __init__(self, session: Any, batch: Inputs, plan: Profiling) -> None:  # noqa: ANN401 - onnxruntime ships no types
        self._session, self._plan = session, plan
        self._feed = feed_of(session.get_inputs()[0].name, batch)
        self._batch_size = len(batch)
        self._times_s: list[float] = []
        for _ in range(WARMUPS):
            session.run(None, self._feed)

    def run_round(self) -> None:
        """Time a round's share of runs, at least two, until the round's share of time is over."""
        share = -(-self._plan.runs // self._plan.rounds)
        allowed_s = self._plan.single_row_s if self._batch_size == 1 else self._plan.cell_s
        end_s = time.perf_counter() + allowed_s / self._plan.rounds
        for done in range(share):
            start_s = time.perf_counter()
            if done >= 2 and start_s > end_s:  # noqa: PLR2004 - at least two
                break
            self._session.run(None, self._feed)
            self._times_s.append(time.perf_counter() - start_s)

    def row(self, threads: int) -> LatencyRow:
        """Return the cell's figures."""
        p50, p90, p95, p99 = np.percentile(self._times_s, (50, 90, 95, 99), method="inverted_cdf")
        return LatencyRow(
            batch_size=self._batch_size,
            threads=threads,
            warmups=WARMUPS,
            runs=len(self._times_s),
            mean_s=statistics.fmean(self._times_s),
            p50_s=float(p50),
            p90_s=float(p90),
            p95_s=float(p95),
            p99_s=float(p99),
        )


def _take(inputs: Inputs, rows: int) -> Inputs:
    """Return exactly ``rows`` rows, repeating ``inputs`` where it has fewer."""
    return np.resize(inputs, (rows, *inputs.shape[1:]))


def _probe(*paths: Path) -> dict[str, float]:
    command, path = [sys.executable, "-m", "variants.probe", *map(str, paths)], paths[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True)  # noqa: S603 - our own module and file
    except subprocess.CalledProcessError as error:
        raise BuildError(f"measuring the memory of {path.name} failed: {error.stderr.strip()[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"measuring the memory of {path.name} took over {PROBE_TIMEOUT_S} s") from None
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _summarise(figures: list[dict[str, float]]) -> Footprint:
    def median(key: str) -> float:
        return statistics.median(figure[key] for figure in figures)

    return Footprint(
        memory=Memory(loaded_bytes=int(median("loaded_bytes")), peak_bytes=int(median("peak_bytes"))),
        cold_start_s=median("cold_start_s"),
    )
