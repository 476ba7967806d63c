"""Why the load generator's figures may be believed."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

import loadtests
from loadtests import arrivals
from loadtests.gateway import scrape
from loadtests.outcome import summarise
from loadtests.plan import Address, Mix, RequestClass
from loadtests.recording import Status
from loadtests.runner import Listener, run_job
from tests.builders import ModelPlan, VariantPlan, write_repository
from tests.integration.gateway_process import running_gateway
from tests.loadtests.servers import KIND, make_job, null_server, poisson

if TYPE_CHECKING:
    import psutil

    from loadtests.figures import Summary
    from loadtests.plan import Protocol

SLOWEST_HZ: Final = 400.0
ATTEMPTS: Final = 3
ROOT = Path(loadtests.__file__).parents[1]


class Stopper:
    """Stops a process once, for a time that it then knows exactly."""

    def __init__(self, process: psutil.Process, after_s: float, for_s: float) -> None:
        self._process = process
        self._after_s, self._for_s = after_s, for_s
        self._stopped_at = 0.0
        self.stopped_s = 0.0

    def hear(self, passed_s: float) -> None:
        if passed_s >= self._after_s and not self._stopped_at:
            self._stopped_at = time.monotonic()
            self._process.send_signal(signal.SIGSTOP)
            threading.Timer(self._for_s, self._resume).start()

    def _resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.stopped_s = time.monotonic() - self._stopped_at


def test_the_p99_of_a_stopped_server_tells_how_long_it_stood() -> None:
    # Of T seconds the server stands for f: of all requests the share (f - x) / T waits longer than x, so the p99 is
    # f - 0.01 T. A generator that waits for answers before it goes on would send one late request, and miss it all.
    length_s, stop_s, rate_hz = 6.0, 2.0, 100.0
    with null_server() as (address, process):
        stopper = Stopper(process, after_s=2.0, for_s=stop_s)
        job = make_job(address, arrivals.constant(rate_hz, length_s), connections=256)
        run = run_job(job, Listener(on_progress=stopper.hear))
    assert set(run.recording.status) == {Status.OK}
    p99_s = float(np.percentile(run.recording.latency_s, 99))
    assert p99_s == pytest.approx(stopper.stopped_s - 0.01 * length_s, rel=0.05)


def both_see(address: Address, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the percentiles that the generator and the referee see, one after the other, at one Poisson rate."""
    rate_hz, duration_s = 200.0, 10.0
    folder.mkdir()
    run = run_job(make_job(address, poisson(rate_hz, duration_s), connections=64))
    command = [sys.executable, "-m", "tests.loadtests.referee", address.http, str(rate_hz), str(duration_s)]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {name: float(np.percentile(run.recording.latency_s, float(name))) for name in seen}, seen


@pytest.mark.skipif(importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed")
def test_the_referee_sees_the_same_latencies_at_the_same_rate(tmp_path: Path) -> None:
    # Answers take 20 to 60 ms, uniformly: long beside the noise of a shared machine, and no percentile is a constant.
    # They measure one after the other: what else the machine does may disturb one of them. A generator that measures
    # wrongly is off each time.
    with null_server("--delay-ms", "20", "60") as (address, _):
        for attempt in range(ATTEMPTS):
            ours, referees = both_see(address, tmp_path / str(attempt))
            if ours == pytest.approx(referees, rel=0.05):
                break
    assert ours == pytest.approx(referees, rel=0.05)


OFFERED: Final[dict[Protocol, tuple[int, float]]] = {
    "http-binary": (46_000, 4000.0),
    "http-json": (32_000, 3000.0),
    "grpc": (22_000, 2000.0),
}
"""Requests, and how many a second; together a hundred thousand."""

MIX: Final = Mix((KIND, RequestClass("strange", 1.0, hardware="abacus")), (9.0, 1.0))
"""One request in ten names a hardware class that nobody knows."""

NAMES: Final = {"ok": "ok", "shed": "overloaded", "expired": "deadline", "invalid": "invalid"}


def counted(address: Address, protocol: Protocol, requests: int, rate_hz: float) -> Summary:
    """Send as fast as this machine lets a server read: connections that are given up count on one side alone."""
    times_s = np.sort(np.random.default_rng(0).uniform(0.0, requests / rate_hz, requests))
    job = make_job(address, times_s, protocol=protocol, model=ModelPlan().name, timeout_s=20.0, mix=MIX)
    summary = summarise(run_job(job), MIX.classes, None)
    if summary.client_counts.keys() <= NAMES.keys() or rate_hz < SLOWEST_HZ:
        return summary
    return counted(address, protocol, requests, rate_hz / 3.0)


@pytest.mark.timeout(900)
def test_client_and_server_count_the_same_hundred_thousand_requests(tmp_path: Path) -> None:
    # Answered, shed before a queue of four, expired in it, or wrong: every way to end is counted alike on both sides.
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: {max_queued: 4}\n", encoding="utf-8")
    root = write_repository(tmp_path / "repository", [ModelPlan(variants=(VariantPlan("full", "full", 0.9, 0.001),))])
    flags = ("--policy", str(policy), "--inline-compute-ms", "0", "--log-level", "error")
    seen: Counter[str] = Counter()
    with running_gateway(root, *flags, TIERGATE_MAX_TIMEOUT_S="0.003") as gateway:
        address = Address(gateway.http, gateway.grpc, gateway.admin)
        for protocol, (requests, rate_hz) in OFFERED.items():
            summary = counted(address, protocol, requests, rate_hz)
            assert {NAMES[name]: count for name, count in summary.client_counts.items()} == summary.server_counts
            seen.update(summary.server_counts)
        last = scrape(address)
    assert last is not None
    assert last.queued == 0
    assert seen.total() == 100_000
    assert seen.keys() == set(NAMES.values())
