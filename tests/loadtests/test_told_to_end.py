"""Commands that are told to end, by a signal from elsewhere, end the gateways that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import psutil
import pytest
import yaml

import loadtests
from tests.builders import write_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(loadtests.__file__).parents[1]
LIMIT_S: Final = 300
POLL_S: Final = 0.1


@contextlib.contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as a terminal does, in a group of its own; end it, should it still run."""
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def gateways_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the gateways that a command has started."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "serve" in child.cmdline():
                found.append(child)
    return found


def answered(gateway: psutil.Process) -> int:
    """Return how many requests a gateway has answered; 0 before it listens."""
    words = gateway.cmdline()
    port = words[words.index("--http-port") + 1]
    url = f"http://127.0.0.1:{port}/v2/models/sums/stats"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=LIMIT_S) as response:
        return int(json.load(response)["model_stats"][0]["inference_count"])
    return 0


def await_gateway(process: subprocess.Popen[bytes], is_awaited: Callable[[psutil.Process], bool]) -> psutil.Process:
    """Return the first gateway that a command started, when it is as awaited."""
    while True:
        for gateway in gateways_of(process):
            if is_awaited(gateway):
                return gateway
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the command ended with status {process.wait(POLL_S)}")


@pytest.mark.parametrize(
    "tell", [psutil.Process.terminate, lambda process: os.killpg(process.pid, signal.SIGHUP)], ids=["kill", "terminal"]
)
def test_a_load_test_that_is_told_to_end_ends_its_gateway_and_tells_what_it_measured(
    tell: Callable[[psutil.Process], None], tmp_path: Path
) -> None:
    write_repository(tmp_path / "repository")
    scenario = {
        "name": "long", "model": "sums", "duration_s": 600.0, "warmup_s": 0.0,
        "arrivals": {"kind": "poisson", "rate_hz": 40.0}, "mix": [{"name": "all", "budget_ms": 1000.0}],
    }  # fmt: skip
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(scenario), encoding="utf-8")
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((1, 4), np.float32), labels=np.zeros(1, np.int64))
    where = ("--repository", str(tmp_path / "repository"), "--inputs", str(tmp_path / "rows.npz"))
    words = ("load", str(tmp_path / "long.yaml"), *where, "--json")
    with started("service.cli", *words) as process:
        gateway = await_gateway(process, lambda gateway: answered(gateway) > 50)
        tell(psutil.Process(process.pid))
        printed, _ = process.communicate(timeout=LIMIT_S)
        assert not gateway.is_running()
    summary = json.loads(printed)["summary"]
    assert summary["is_interrupted"] is True
    assert 20 < summary["all"]["offered"] < 20_000


def test_a_confirmation_that_is_told_to_end_ends_its_gateway(tmp_path: Path) -> None:
    write_repository(tmp_path / "repository")
    np.savetxt(tmp_path / "trace.csv", np.arange(240) / 40.0, header="arrival_s", comments="")
    where = ("--repository", str(tmp_path / "repository"), "--trace", str(tmp_path / "trace.csv"))
    effort = ("--slo", "p50=100ms", "--runs", "1", "--processes", "1", "--lanes", "1", "--confirm", "2")
    with started("service.cli", "tune", "sums", *where, *effort) as process:
        gateway = await_gateway(process, lambda _: True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 130
        assert not gateway.is_running()


def test_a_rehearsal_that_is_told_to_end_while_its_gateways_start_ends_them(tmp_path: Path) -> None:
    write_repository(tmp_path / "repository")
    where = ("--repository", str(tmp_path / "repository"), "--model", "sums", "--work", str(tmp_path / "work"))
    with started("loadtests.rollout", *where) as process:
        gateway = await_gateway(process, lambda _: True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 130
        assert not gateway.is_running()
