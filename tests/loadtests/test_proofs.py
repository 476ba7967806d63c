"""Why the load generator's figures may be believed."""

from __future__ import annotations

import importlib.util
import json
import resource
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
    from collections.abc import Iterator

    import psutil

    from loadtests.figures import Summary
    from loadtests.plan import Protocol

PATIENCE_S: Final = 300.0
SLOWEST_HZ: Final = 100.0
AT_ONCE: Final = 8_000
"""Requests of one job: where a machine answers slowly, all of them may be open at the same time."""
ROOT = Path(loadtests.__file__).parents[1]


class Stopper:
    """Stops a process once; it stands for ``least_s`` at the least."""

    def __init__(self, process: psutil.Process, after_s: float, for_s: float) -> None:
        self._process = process
        self._after_s, self._for_s = after_s, for_s
        self._stands_since = 0.0
        self.stopped_at = 0.0
        self.least_s = 0.0

    def hear(self, passed_s: float) -> None:
        if passed_s >= self._after_s and not self.stopped_at:
            self.stopped_at = time.monotonic()
            self._process.send_signal(signal.SIGSTOP)
            self._stands_since = time.monotonic()
            threading.Timer(self._for_s, self._resume).start()

    def _resume(self) -> None:
        self.least_s = time.monotonic() - self._stands_since
        self._process.send_signal(signal.SIGCONT)


def test_the_p99_of_a_stopped_server_tells_how_long_it_stood() -> None:
    # Of T seconds the server stands for f: of all requests the share (f - x) / T waits longer than x, so the p99 is
    # f - 0.01 T. A generator that waits for answers before it goes on would send one late request, and miss it all.
    # Within 5 %, and what a busy machine needs beyond f until it has worked through what waited: the run ends then.
    length_s, stop_s, rate_hz = 10.0, 4.0, 60.0
    with null_server() as (address, process):
        stopper = Stopper(process, after_s=length_s - stop_s, for_s=stop_s)
        job = make_job(address, arrivals.constant(rate_hz, length_s), connections=256, timeout_s=PATIENCE_S)
        run = run_job(job, Listener(on_progress=stopper.hear))
        over_s = time.monotonic() - stopper.stopped_at - stopper.least_s
    assert set(run.recording.status) == {Status.OK}
    p99_s = float(np.percentile(run.recording.latency_s, 99))
    told_s = stopper.least_s - 0.01 * length_s
    assert p99_s > told_s - 1.0 / rate_hz  # exactly as long, less one arrival
    assert p99_s == pytest.approx(told_s, rel=0.05, abs=over_s)


@pytest.mark.skipif(importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed")
def test_the_referee_sees_the_same_latencies_at_the_same_rate(tmp_path: Path) -> None:
    # Answers take one to three seconds, uniformly: long beside the noise of a shared machine, and no percentile is a
    # constant. Both measure at the same time, each a server of its own, whose delays are the same ones.
    rate_hz, duration_s, delays = 100.0, 10.0, ("--delay-ms", "1000", "3000")
    with null_server(*delays) as (address, _), null_server(*delays) as (other, _):
        command = [sys.executable, "-m", "tests.loadtests.referee", other.http, str(rate_hz), str(duration_s)]
        with subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as referee:
            run = run_job(make_job(address, poisson(rate_hz, duration_s), connections=64, timeout_s=PATIENCE_S))
            said, _ = referee.communicate()
    assert referee.returncode == 0
    referees: dict[str, float] = json.loads(said.splitlines()[-1])
    ours = {name: float(np.percentile(run.recording.latency_s, float(name))) for name in referees}
    # What held up the sending of a request cannot be told from what the server took, and each was held up by itself.
    assert ours == pytest.approx(referees, rel=0.05, abs=2.0 * run.lag.p99_s)


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
    """Send some, as fast as this machine lets a server read: a connection that is lost counts on one side alone."""
    times_s = np.sort(np.random.default_rng(0).uniform(0.0, requests / rate_hz, requests))
    job = make_job(address, times_s, protocol=protocol, model=ModelPlan().name, timeout_s=PATIENCE_S, mix=MIX)
    summary = summarise(run_job(job), MIX.classes, None)
    if summary.client_counts.keys() <= NAMES.keys() or rate_hz < SLOWEST_HZ:
        return summary
    return counted(address, protocol, requests, rate_hz / 3.0)


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Let this process, and those that it starts, open as many files as the system allows: each connection is one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("_many_files")
def test_client_and_server_count_the_same_hundred_thousand_requests(tmp_path: Path) -> None:
    # Answered, shed before a queue of four, expired in it, or wrong: every way to end is counted alike on both sides.
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: {max_queued: 4}\n", encoding="utf-8")
    root = write_repository(tmp_path / "repository", [ModelPlan(variants=(VariantPlan("full", "full", 0.9, 0.001),))])
    flags = ("--policy", str(policy), "--inline-compute-ms", "0", "--log-level", "error", "--read-timeout-s", "300")
    at_once = min(AT_ONCE, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2)
    seen: Counter[str] = Counter()
    limits = {"TIERGATE_MAX_TIMEOUT_S": "0.003", "TIERGATE_MAX_CONNECTIONS": str(2 * AT_ONCE)}
    with running_gateway(root, *flags, **limits) as gateway:
        address = Address(gateway.http, gateway.grpc, gateway.admin)
        for protocol, (requests, rate_hz) in OFFERED.items():
            for start in range(0, requests, at_once):
                summary = counted(address, protocol, min(at_once, requests - start), rate_hz)
                assert {NAMES[name]: count for name, count in summary.client_counts.items()} == summary.server_counts
                seen.update(summary.server_counts)
        last = scrape(address)
    assert last is not None
    assert last.queued == 0
    assert seen.total() == 100_000
    assert seen.keys() == set(NAMES.values())
