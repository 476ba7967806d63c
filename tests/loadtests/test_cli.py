"""``tiergate load`` from end to end against a gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import loadtests
from loadtests.cli import run_load
from loadtests.simulator.ladder import read_answer_sheet
from tests.builders import ModelPlan, VariantPlan, write_repository
from tests.integration.gateway_process import ROOMY_MS, running_gateway, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_process import GatewayProcess

ROOT = Path(loadtests.__file__).parents[1]
PATIENCE_S = 300.0
SCENARIO: dict[str, Any] = {
    "name": "short",
    "model": "sums",
    "duration_s": 2.0,
    "warmup_s": 0.5,
    "arrivals": {"kind": "poisson", "rate_hz": 60.0},
    "timeout_s": PATIENCE_S,
    "mix": [{"name": "all", "budget_ms": ROOMY_MS}],
}
# The small variant's sums are one tenth too large, and so wrong where the row sums up to ten or more.
PLAN = ModelPlan(
    variants=(VariantPlan("full", "full", 0.92, 0.002), VariantPlan("small", "distilled", 0.8, 0.001, scale=1.1))
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("load") / "repository", [PLAN])


@pytest.fixture(scope="module")
def gateway(repository: Path) -> Iterator[GatewayProcess]:
    with running_gateway(repository, "--log-level", "error") as running:
        yield running


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    sums = np.arange(20)
    rows = np.zeros((20, 4), np.float32)
    rows[:, 0] = sums + 0.01  # an answer is the whole part of the sum
    path = tmp_path / "rows.npz"
    np.savez(path, inputs=rows, labels=sums)
    return path


LONG: dict[str, Any] = {"duration_s": 12.0, "arrivals": {"kind": "poisson", "rate_hz": 20.0}}
"""Where something happens at half-time, which takes a busy machine a while."""


def write(folder: Path, **changes: object) -> str:
    path = folder / "short.yaml"
    path.write_text(yaml.safe_dump({**SCENARIO, **changes}), encoding="utf-8")
    return str(path)


def place(gateway: GatewayProcess) -> list[str]:
    return ["--url", f"http://{gateway.http}", "--grpc", gateway.grpc, "--admin", gateway.admin]


@pytest.mark.parametrize("protocol", ["http-json", "http-binary", "grpc"])
def test_a_run_reports_in_every_form(
    protocol: str, gateway: GatewayProcess, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, report = tmp_path / "run.json", tmp_path / "run.html"
    words = [write(tmp_path), *place(gateway), "--protocol", protocol, "--inputs", str(inputs), "--json"]
    status = run_load([*words, "--save", str(saved), "--report", str(report)])
    printed = json.loads(capsys.readouterr().out)
    summary = printed["summary"]
    assert status == (3 if summary["faults"] else 0)
    assert summary["all"]["correct"] == summary["all"]["answered"] == summary["all"]["offered"] > 50
    assert summary["server_counts"] == {"ok": summary["client_counts"]["ok"]}
    assert [group["name"] for group in summary["variants"]] == ["full"]
    assert "Load test: short" in report.read_text(encoding="utf-8")
    assert "requests" not in printed
    assert run_load(["compare", str(saved), str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_paired"] is True


def test_the_terminal_summary_names_kinds_and_variants(
    gateway: GatewayProcess, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = [{"name": "patient", "budget_ms": ROOMY_MS}, {"name": "pinned", "budget_ms": ROOMY_MS, "variant": "small"}]
    run_load([write(tmp_path, mix=mix), *place(gateway), "--inputs", str(inputs)])
    printed = capsys.readouterr().out
    for word in ("patient", "pinned", "full", "small", "schedule lag", "goodput"):
        assert word in printed


def test_events_unload_and_load_the_model(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"at_ratio": 0.0, "do": "unload"}, {"at_ratio": 0.5, "do": "load"}]
    path = write(tmp_path, events=events, warmup_s=0.0, **LONG)
    run_load([path, *place(gateway), "--json"])
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["all"]["statuses"]["not_ready"] > 10
    assert summary["all"]["statuses"]["ok"] > 10
    assert not any("event" in fault for fault in summary["faults"])


def test_a_gateway_of_its_own_loses_its_best_variant(
    repository: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, events=[{"at_ratio": 0.5, "do": "break_variant"}], **LONG)
    words = [path, "--repository", str(repository), "--inputs", str(inputs), "--json"]
    run_load(words)
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert [group["name"] for group in summary["variants"]] == ["full", "small"]
    assert (repository / "sums" / "1" / "full.onnx").is_file()


def test_an_answer_sheet_says_what_each_variant_gets_right(
    gateway: GatewayProcess, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.npz"
    assert run_load(["sheet", str(path), *place(gateway), "--model", "sums", "--inputs", str(inputs)]) == 0
    sheet = read_answer_sheet(path)
    assert sheet.variants == ("full", "small")
    assert sheet.correct.sum(1).tolist() == [20, 10]
    assert not sheet.margins.any()  # one output has no second largest element
    assert "full: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "bundled are"),
        (["steady", "--url", "http://127.0.0.1:9"], "cannot be reached"),
        (["steady", "--url", "ftp://x"], "no address"),
        (["steady", "--repository", "/nowhere"], "ended with status"),
        (["compare", "a.json", "b.json"], "no saved load test"),
        (["steady", "--seed", "-1"], "seed: Input should be greater"),
        (["steady", "--save", "/nowhere/run.json"], "there is no folder /nowhere"),
        (["steady", "--url", "http://127.0.0.1:9", "--grpc", "here"], "--grpc is 'here'; expected HOST:PORT"),
        (["steady", "--url", "http://127.0.0.1:9", "--admin", "a:b"], "--admin is 'a:b'; expected HOST:PORT"),
        (["peak", "--url", "http://127.0.0.1:9", "--start", "1e6"], "at most 100000 requests/s"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_load(words) == 2
    assert says in capsys.readouterr().err


def test_a_full_disk_takes_no_figures_with_it(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [write(tmp_path, duration_s=1.0), *place(gateway), "--json"]
    assert run_load([*words, "--save", "/dev/full"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["summary"]["all"]["offered"] > 10
    assert "/dev/full cannot be written: No space left" in said.err


def test_a_peak_of_a_variant_that_is_not_there_is_refused(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_load(["peak", *place(gateway), "--model", "sums", "--variant", "nope", "--start", "200"]) == 2
    assert "its variant 'nope'" in capsys.readouterr().err


def test_an_interrupted_run_keeps_what_it_measured(gateway: GatewayProcess, tmp_path: Path) -> None:
    path, saved = write(tmp_path, duration_s=60.0), tmp_path / "run.json"
    command = [sys.executable, "-m", "service.cli", "load", path, *place(gateway), "--save", str(saved), "--json"]

    def asked() -> int:
        assert process.poll() is None
        return int(gateway.call("GET", "/v2/models/sums/stats")[2]["model_stats"][0]["inference_count"])

    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        before = asked()
        until(lambda: asked() >= before + 100)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    summary = json.loads(printed)["summary"]
    assert summary["is_interrupted"] is True
    assert 20 < summary["all"]["offered"] < 3000
    assert "unsent" not in summary["all"]["statuses"]
    assert saved.is_file()
