"""What ``tiergate top`` makes of a gateway's metrics, and how it looks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from service import top_cli
from service.cli import main
from service.domain.errors import BackendFailed, InvalidRequest, ModelNotReady, Overloaded
from service.domain.inference import Answer, Reason
from service.domain.observer import RunReport
from service.telemetry.exposition import read_scrape
from service.telemetry.metrics import Metrics
from service.top import make_frame
from service.top_view import view
from tests.builders import LADDER, make_model, make_request, write_repository
from tests.integration.gateway_process import running_gateway

if TYPE_CHECKING:
    from pathlib import Path

    from service.telemetry.exposition import Scrape

URL = "http://127.0.0.1:8000"
START = 1000.0


class Site:
    """A gateway's metrics and what they say at a moment, without the gateway."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.metrics.model_loaded(make_model())
        self.metrics.policy.policy_loaded("c38594ecaa")
        self.queued, self.busy_s = {"sums": 3}, [0.0, 0.0]
        self.metrics.watch(lambda: self.queued, lambda: 7, lambda: self.busy_s)
        for variant in LADDER:
            self.metrics.variant_held("sums", variant, "model")

    def answer(self, variant: str, times: int, total_s: float = 0.004, *, met: bool = True) -> None:
        reason = Reason.WITHIN_BUDGET if variant == "full" else Reason.DOWNGRADED
        answer = Answer(variant, variant, reason, 0.01, 0.002, 0.01, total_s, 0.1, met, 0.9, best_accuracy=0.92)
        for _ in range(times):
            self.metrics.request_finished(make_request(), answer)

    def scrape(self, moment_s: float) -> Scrape:
        found = read_scrape(asyncio.run(self.metrics.render(""))[0].decode(), moment_s)
        started = {"process_start_time_seconds": {frozenset[tuple[str, str]](): START}}
        return replace(found, samples={**found.samples, **started})


def shown(frame_of: Scrape, before: Scrape | None = None, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(view(make_frame(frame_of, before), URL))
    return out.getvalue()


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_frame_tells_what_happened_between_two_readings(site: Site) -> None:
    site.answer("full", 100)
    before = site.scrape(START + 50)
    site.answer("full", 30)
    site.answer("quantized", 10, 0.2, met=False)
    site.metrics.request_refused(make_request(), Overloaded("x", 1.0), 0.0)
    site.metrics.request_refused(make_request(), InvalidRequest("x"), 0.0)
    site.metrics.run_finished(RunReport("sums", "full", 1, 1, 0.0, 0.01, 0.0, 0.008, cpu_s=0.5))
    site.busy_s = [0.5, 1.5]
    frame = make_frame(site.scrape(START + 52), before)
    assert (frame.window_s, frame.rate_hz, frame.lost_hz) == (2.0, 20.0, 0.5)
    assert frame.met_ratio == pytest.approx(30 / 41)
    assert frame.lanes == (0.25, 0.75)
    assert (frame.inflight, frame.policy) == (7.0, "c38594ecaa")
    assert frame.refused == {"overloaded": 0.5, "invalid": 0.5}
    (model,) = frame.models
    assert (model.name, model.queued, model.reasons) == ("sums", 3.0, {"within_budget": 0.75, "downgraded": 0.25})
    assert model.regret == pytest.approx((30 * 0.02 + 10 * 0.92 + (0.92 + 140 * 0.92) / 141) / 41)
    full, quantized = model.variants[:2]
    assert (full.name, full.share, full.rate_hz, full.met_ratio) == ("full", 0.75, 15.0, 1.0)
    assert full.cpu_ratio == 0.25
    assert full.predicted_ratio == pytest.approx(0.8)
    assert full.memory_bytes == LADDER[0].memory_bytes
    assert (quantized.met_ratio, quantized.predicted_ratio) == (0.0, None)
    assert quantized.p50_s == pytest.approx(0.175)


def test_requests_that_the_gateway_failed_are_not_on_time(site: Site) -> None:
    before = site.scrape(START + 50)
    site.answer("full", 2)
    site.metrics.request_refused(make_request(), BackendFailed("x"), 0.0)
    site.metrics.request_refused(make_request(), ModelNotReady("x"), 0.0)
    frame = make_frame(site.scrape(START + 52), before)
    assert (frame.met_ratio, frame.lost_hz) == (0.5, 1.0)
    assert frame.models[0].regret == pytest.approx(0.02)  # of those that were answered


def test_one_reading_alone_tells_of_the_time_since_the_start(site: Site) -> None:
    site.answer("full", 100)
    frame = make_frame(site.scrape(START + 50))
    assert (frame.is_since_start, frame.window_s, frame.rate_hz) == (True, 50.0, 2.0)


def test_a_restart_between_two_readings_is_no_negative_rate(site: Site) -> None:
    site.answer("full", 100)
    before = site.scrape(START)
    again = Site()
    again.answer("full", 10)
    assert make_frame(again.scrape(START + 10), before).rate_hz == 1.0


@pytest.mark.parametrize("width", [80, 120])
def test_a_frame_fits_its_terminal_and_cuts_nothing(site: Site, width: int) -> None:
    site.answer("full", 123456)
    site.answer("distilled-quantized", 99999, 0.2, met=False)
    text = shown(site.scrape(START + 3000), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for wanted in ("since start", "policy c38594", "distilled-quantized", "regret", "p99 ms", "55.2%", "queued 3"):
        assert wanted in text


def test_nothing_that_happened_is_told_as_such(site: Site) -> None:
    text = shown(site.scrape(START + 10))
    assert "on time -" in text
    assert "no answer" not in text
    site.metrics.model_unloaded("sums")
    assert "no model is loaded" in shown(site.scrape(START + 10))


def test_top_prints_one_frame_of_a_running_gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_cli, "_TIMEOUT_S", 60.0)  # however busy the machine
    repository = write_repository(tmp_path / "repository")
    with running_gateway(repository) as gateway:
        for address in (gateway.http, f"http://{gateway.admin}/"):
            assert main(["top", address, "--once"]) == 0
            text = capsys.readouterr().out
            assert "sums" in text
            assert "quantized" in text


def test_an_address_without_a_gateway_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # so that nobody else listens there meanwhile
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["top", f"127.0.0.1:{port}", "--once"]) == 2
    said = capsys.readouterr().err
    assert f"no gateway answers at http://127.0.0.1:{port}" in said
    assert "tiergate serve" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["ftp://x"], "must start with http://"), ([URL, "--interval-s", "0"], "allowed is from 0.2")],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_live_view_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository")
    master, slave = pty.openpty()
    with running_gateway(repository) as gateway:
        command = [sys.executable, "-m", "service.cli", "top", gateway.http, "--interval-s", "0.2"]
        process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"}
        )
        os.close(slave)
        seen = b""
        while b"since start" not in seen or b"last " not in seen:  # the first frame, and one of an interval
            seen += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # a terminal that its last writer has left
            while data := os.read(master, 65536):  # who does not read holds up what writes
                seen += data
        assert process.wait(60) == 0
    os.close(master)
    assert b"Traceback" not in seen
