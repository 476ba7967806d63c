"""A gateway that records its arrivals, is tuned on them, and tells when its traffic is another one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from service.cli import main
from service.domain.policy_file import PolicyFile
from service.engine.arrival_log import HEADER
from tests.integration.gateway_process import running_gateway, until, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

INFER = "/v2/models/sums/infer"
ARRIVALS = "/v2/models/sums/arrivals"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0] * 4}]}).encode()
RECORDED = 2000


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that goes on with a recording of a hundred requests a second.

    At that rate every window is judged, however few requests a busy machine can send in it.
    """
    write_sums(tmp_path / "repository")
    (tmp_path / "arrivals").mkdir()
    rows = [f"{number / 100:.2f},{400 + number % 200},,normal,\n".encode() for number in range(RECORDED)]
    (tmp_path / "arrivals" / "sums.csv").write_bytes(HEADER + b"".join(rows))
    with running_gateway(tmp_path / "repository", "--record-arrivals", str(tmp_path / "arrivals")) as running:
        yield running


def ask(gateway: GatewayProcess, budget_ms: float) -> None:
    headers = {"Content-Type": "application/json", "x-latency-budget-ms": str(budget_ms)}
    assert gateway.call("POST", INFER, BODY, headers)[0] == 200


def departed(gateway: GatewayProcess) -> set[str]:
    rows = gateway.call("GET", "/metrics")[2].decode().splitlines()
    left = [row for row in rows if row.startswith("tiergate_policy_region_left{") and row.endswith(" 1.0")]
    return {row.split('figure="')[1].split('"')[0] for row in left}


def test_a_policy_is_proposed_from_recorded_arrivals_and_its_region_is_watched(
    recording: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, headers, content = recording.call("GET", ARRIVALS, where=recording.admin)
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert len(content.splitlines()) == 1 + RECORDED
    admin = f"http://{recording.admin}"
    where = ["--repository", str(tmp_path / "repository"), "--from", admin, "--apply", admin]
    effort = ["--runs", "4", "--processes", "1", "--lanes", "2", "--slo", "p50=500ms"]
    assert main(["tune", "sums", *where, *effort]) == 0, capsys.readouterr()
    policy = PolicyFile.model_validate(yaml.safe_load(recording.call("GET", "/v2/policy", where=recording.admin)[2]))
    assert policy.provenance is not None
    low_ms, high_ms = policy.provenance.regions["sums"].budget_ms
    assert 400.0 <= low_ms <= high_ms <= 600.0
    assert not departed(recording)
    asked = 0

    def has_left_after_one_more() -> bool:
        nonlocal asked
        ask(recording, 5000.0)
        asked += 1
        return "budget" in departed(recording)

    until(has_left_after_one_more)
    assert "traffic has left what the policy was tuned for" in (tmp_path / "gateway.log").read_text(encoding="utf-8")
    content = recording.call("GET", ARRIVALS, where=recording.admin)[2]
    assert len(content.splitlines()) == 1 + RECORDED + asked


def test_what_was_recorded_is_the_administrators(recording: GatewayProcess) -> None:
    assert recording.call("GET", ARRIVALS)[0] == 403
    assert recording.call("GET", "/v2/models/../arrivals", where=recording.admin)[0] == 404
    status, _, answer = recording.call("GET", "/v2/models/strange/arrivals", where=recording.admin)
    assert (status, "loaded are sums" in answer["error"]) == (404, True)


def test_a_gateway_that_records_nothing_says_how_it_would(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sums(tmp_path / "repository")
    status, _, answer = gateway.call("GET", ARRIVALS, where=gateway.admin)
    assert status == 404
    assert "--record-arrivals" in answer["error"]
    where = ["--repository", str(tmp_path / "repository"), "--from", f"http://{gateway.admin}"]
    assert main(["tune", "sums", *where, "--slo", "p99=20ms"]) == 2
    assert "--record-arrivals" in capsys.readouterr().err
