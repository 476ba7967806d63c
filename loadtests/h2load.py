"""Closed-loop load by ``h2load`` (Debian package ``nghttp2-client``): one C client for HTTP/1.1 and for gRPC.

A Python client would be slower than the servers under test. h2load sends one prepared body over N connections, one
request at a time on each, and logs every request, from which the percentiles are taken.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

_OK: Final = 200
_COLUMNS: Final = 3


class LoadError(RuntimeError):
    """The load generator is missing, or did not get answers."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One prepared request: where it goes, what it carries, and whether it is gRPC (HTTP/2) or HTTP/1.1."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_grpc: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave: answers per second, and latency percentiles in seconds."""

    requests: int
    rate_hz: float
    p50_s: float
    p99_s: float


def measure(shot: Shot, connections: int, duration_s: float) -> Figures:
    """Send ``shot`` over ``connections`` connections for ``duration_s``, after half a second of warm-up.

    Raises:
        LoadError: h2load is not installed, or an answer was not 200.
    """
    if shutil.which("h2load") is None:
        raise LoadError("h2load is not installed; on Debian: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(shot.body)
        command = ["h2load", "--clients", str(connections), "--warm-up-time", "500ms"]
        command += ["--duration", f"{round(duration_s * 1000)}ms"]
        command += ["--max-concurrent-streams", "1", "--data", str(body), "--log-file", str(log)]
        command += [part for name, value in shot.headers for part in ("--header", f"{name}: {value}")]
        command += [] if shot.is_grpc else ["--h1"]
        command.append(shot.url)
        # h2load by name, with arguments made here.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=duration_s + 60)  # noqa: S603
        if done.returncode:
            raise LoadError(f"h2load failed on {shot.url}: {done.stderr.strip() or done.stdout.strip()}")
        return _read(log, shot.url, connections)


def _read(log: Path, url: str, connections: int) -> Figures:
    rows = np.array([line.split("\t")[:_COLUMNS] for line in log.read_text().splitlines()], dtype=np.int64)
    if not len(rows):
        raise LoadError(f"{url} answered nothing")
    cut_off = rows[:, 1] == 0  # when the time is over, a request on each connection may be under way
    if cut_off.sum() <= connections:
        rows = rows[~cut_off]
    wrong = rows[rows[:, 1] != _OK]
    if len(wrong):
        raise LoadError(f"{url} answered {len(wrong)} of {len(rows)} requests with status {wrong[0, 1]}")
    span_s = float((rows[:, 0] + rows[:, 2]).max() - rows[:, 0].min()) / 1e6
    p50_us, p99_us = np.percentile(rows[:, 2], (50, 99))
    return Figures(len(rows), len(rows) / span_s, float(p50_us) / 1e6, float(p99_us) / 1e6)
