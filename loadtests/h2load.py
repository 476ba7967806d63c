"""Closed-loop load by ``h2load`` (Debian package ``nghttp2-client``): one C client for HTTP/1.1 and for gRPC.

A Python client would be slower than the servers under test. h2load sends one prepared body over N connections, one
request at a time on each, and logs every request, from which the percentiles are taken.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_OK: Final = 200
_COLUMNS: Final = 3
_GRACE_S: Final = 60.0
_SHORTER: Final = 0.98
_DATA: Final = re.compile(r"\((\d+)\) data")


class LoadError(RuntimeError):
    """The load generator is missing, or did not get answers."""


class NothingAnswered(LoadError):
    """Not one request was answered within the time: the server is broken, or slower than the run is long."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One prepared request: where it goes, what it carries, and whether it is gRPC (HTTP/2) or HTTP/1.1.

    ``answer_bytes`` is the length of a right answer's data, where it is known; by it gRPC errors are counted.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_grpc: bool
    answer_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a server is asked: connections with one request each at a time, for how long, from which cores."""

    connections: int
    duration_s: float
    warm_up_s: float = 0.5
    cpus: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave: right answers, answers per second, latency percentiles in seconds, and what went wrong.

    ``errors`` are answers with another status than 200, and gRPC answers without a message. The percentiles are of
    what was answered with 200: a run with errors must not be compared.
    """

    requests: int
    rate_hz: float
    p50_s: float
    p99_s: float
    errors: int = 0


@contextlib.contextmanager
def on_cpus(cpus: frozenset[int] | None) -> Iterator[None]:
    """Let this thread, and processes that it starts meanwhile, run on these cores alone; ``None`` changes nothing."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(shot: Shot, load: Load) -> Figures:
    """Send ``shot`` as ``load`` says, after a warm-up that is not counted.

    Raises:
        NothingAnswered: No request was answered.
        LoadError: h2load is not installed, failed, or no answer was 200.
    """
    if shutil.which("h2load") is None:
        raise LoadError("h2load is not installed; on Debian: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(shot.body)
        command = ["h2load", "--clients", str(load.connections), "--max-concurrent-streams", "1", "--data", str(body)]
        command += [part for name, value in shot.headers for part in ("--header", f"{name}: {value}")]
        command += [] if shot.is_grpc else ["--h1"]
        # The warm-up is a run of its own: h2load's --warm-up-time counts its bytes, and not its requests.
        _run([*command, "--duration", f"{round(load.warm_up_s * 1000)}ms", shot.url], load.warm_up_s, load.cpus)
        command += ["--duration", f"{round(load.duration_s * 1000)}ms", "--log-file", str(log), shot.url]
        data = _DATA.search(_run(command, load.duration_s, load.cpus))
        return _read(log, shot, load.connections, int(data[1]) if data else 0)


def _run(command: list[str], duration_s: float, cpus: frozenset[int] | None) -> str:
    url, limit_s = command[-1], duration_s + _GRACE_S
    try:
        with on_cpus(cpus):
            # h2load by name, with arguments made here.
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise LoadError(f"h2load did not end within {limit_s:.0f} s on {url}") from None
    if done.returncode:
        raise LoadError(f"h2load failed on {url}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _read(log: Path, shot: Shot, connections: int, data_bytes: int) -> Figures:
    lines = log.read_text().splitlines()
    rows: np.ndarray[Any, Any] = np.array([line.split("\t")[:_COLUMNS] for line in lines], dtype=np.int64)
    if not len(rows):
        raise NothingAnswered(f"{shot.url} answered nothing")
    cut_off = rows[:, 1] == 0  # when the time is over, a request on each connection may be under way
    if cut_off.sum() <= connections:
        rows = rows[~cut_off]
    if not len(rows):
        raise NothingAnswered(f"{shot.url} answered nothing in time")
    right = rows[rows[:, 1] == _OK]
    if not len(right):
        raise LoadError(f"{shot.url} answered none of {len(rows)} requests with 200 (the first: status {rows[0, 1]})")
    span_s = float((right[:, 0] + right[:, 2]).max() - right[:, 0].min()) / 1e6
    p50_us, p99_us = np.percentile(right[:, 2], (50, 99))
    errors = len(rows) - len(right) + (_empty(len(right), data_bytes, shot.answer_bytes) if shot.is_grpc else 0)
    return Figures(len(right), len(right) / span_s, float(p50_us) / 1e6, float(p99_us) / 1e6, errors)


def _empty(answers: int, data_bytes: int, answer_bytes: int) -> int:
    """Return how many gRPC answers were errors at the least: those come with status 200 and without a message.

    Right answers differ by some bytes where they tell times; errors that are fewer than that allowance stay unseen.
    """
    return max(0, answers - round(data_bytes / (answer_bytes * _SHORTER))) if answer_bytes else 0
