"""Starting, reloading, draining and ending, over real sockets and with real signals."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.builders import ModelPlan, onnx_model, replace_file, write_model
from tests.integration.clients import Question, ask_grpc, ask_plain
from tests.integration.gateway_process import ROOMY_MS, SUMS, TIGHT_MS, running_gateway, until, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

TIGHT = Question(parameters={"latency_budget_ms": TIGHT_MS})
PATIENCE_S = 300.0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of its own, for tests that break things."""
    write_sums(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def own(repository: Path) -> Iterator[GatewayProcess]:
    """A gateway of its own, for tests that change or end it."""
    with running_gateway(repository, "--lanes", "1") as running:
        yield running


def refuse_to_start(*arguments: str) -> str:
    """Run ``tiergate serve`` where it must not start; return what it says."""
    command = [sys.executable, "-m", "service.cli", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gateway_ends_cleanly_on_a_signal(own: GatewayProcess, number: int) -> None:
    assert own.stop(number) == 0


def test_requests_inside_are_finished_when_the_gateway_drains(own: GatewayProcess) -> None:
    body = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}],
            "parameters": {"tier": "full"},
        }
    )
    sockets = [http.client.HTTPConnection(own.http, timeout=PATIENCE_S) for _ in range(12)]
    for connection in sockets:
        connection.request("POST", "/v2/models/sums/infer", body, {"Content-Type": "application/json"})
    first = sockets[0].getresponse()  # the rest is inside, or will be read before the listener's connections close
    first.read()
    own.process.send_signal(signal.SIGTERM)
    statuses = Counter(connection.getresponse().status for connection in sockets[1:])
    for connection in sockets:
        connection.close()
    assert first.status == 200
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 1
    assert own.process.wait(PATIENCE_S) == 0


def test_gateway_is_not_ready_but_answers_in_its_grace_and_a_second_signal_ends_it(repository: Path) -> None:
    with running_gateway(repository, "--drain-grace-s", "600") as gateway:
        assert gateway.call("GET", "/v2/health/ready")[0] == 200
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.call("GET", "/v2/health/ready")[0] != 200)
        assert gateway.call("GET", "/v2/health/live")[0] == 200
        assert not ask_plain(gateway, Question()).refused
        assert not ask_grpc(gateway, Question()).refused
        assert gateway.stop() == 0


@pytest.mark.parametrize("setting", ["http", "grpc", "admin"])
def test_second_instance_is_refused_by_a_taken_port(own: GatewayProcess, repository: Path, setting: str) -> None:
    taken = {"http": own.http, "grpc": own.grpc, "admin": own.admin}
    ports = dict.fromkeys(taken, "0") | {setting: taken[setting].rpartition(":")[2]}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", port)]
    said = refuse_to_start(str(repository), *flags)
    assert ports[setting] in said
    assert f"--{setting}-port" in said


def test_wrong_settings_are_refused_with_what_is_allowed(repository: Path, tmp_path: Path) -> None:
    assert "lanes: Input should be greater than or equal to 0" in refuse_to_start(str(repository), "--lanes", "-1")
    assert "admin_token_file" in refuse_to_start(str(repository), "--admin-host", "0.0.0.0")  # noqa: S104
    assert "cannot be read" in refuse_to_start(str(tmp_path / "absent"))
    (tmp_path / "policy.yaml").write_text("models: {sums: {default_budget_ms: -1}}")
    assert "default_budget_ms" in refuse_to_start(str(repository), "--policy", str(tmp_path / "policy.yaml"))
    (tmp_path / "settings.yaml").write_text("lane: 1")
    assert "unknown settings: lane" in refuse_to_start(str(repository), "--config", str(tmp_path / "settings.yaml"))


def test_policy_file_sets_the_default_budget(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(f"models: {{sums: {{default_budget_ms: {TIGHT_MS}}}}}")
    with running_gateway(repository, "--policy", str(tmp_path / "policy.yaml")) as gateway:
        assert ask_plain(gateway, Question()).answer["variant"] == "quantized"


def test_corrupt_variant_is_left_out_and_named_while_the_others_serve(repository: Path) -> None:
    file = repository / "sums" / "1" / "quantized.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with running_gateway(repository) as gateway:
        assert ask_plain(gateway, TIGHT).answer["variant"] == "distilled"
        assert ask_plain(gateway, Question(parameters={"tier": "quantized"})).refused == "not_ready"
        (row,) = gateway.call("POST", "/v2/repository/index")[2]
        assert row["state"] == "READY"
        assert "variant quantized" in row["reason"]
        assert "sha256" in row["reason"]
        metrics = gateway.call("GET", "/metrics")[2].decode()
        assert 'tiergate_variant_failures_total{model="sums",variant="quantized"} 1.0' in metrics
        assert str(repository) not in row["reason"]
    assert "sha256" in (repository.parent / "gateway.log").read_text()


def test_gateway_with_nothing_but_a_broken_model_lives_and_is_not_ready(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "repository", SUMS)
    (folder / "manifest.json").write_text('{"schema_version": 99}')
    with running_gateway(tmp_path / "repository") as gateway:
        assert gateway.call("GET", "/v2/health/live")[0] == 200
        assert gateway.call("GET", "/v2/health/ready")[0] == 503
        assert ask_plain(gateway, Question()).refused == "not_ready"
        (row,) = gateway.call("POST", "/v2/repository/index")[2]
        assert (row["state"], "schema_version 99" in row["reason"]) == ("UNAVAILABLE", True)


def test_admin_loads_a_new_version_and_keeps_the_old_one_when_that_is_broken(
    own: GatewayProcess, repository: Path
) -> None:
    def admin(action: str) -> int:
        return own.call("POST", f"/v2/repository/models/sums/{action}", b"", where=own.admin)[0]

    second = write_model(repository, replace(SUMS, version="2"))
    assert admin("load") == 200
    assert own.call("GET", "/v2/models/sums")[2]["versions"] == ["2"]
    third = write_model(repository, replace(SUMS, version="3"))
    (third / "manifest.json").write_text("{}")
    assert admin("load") == 503
    assert own.call("GET", "/v2/models/sums")[2]["versions"] == ["2"]
    assert not ask_plain(own, Question()).refused
    (row,) = own.call("POST", "/v2/repository/index")[2]
    assert "reload failed" in row["reason"]
    assert admin("unload") == 200
    assert ask_plain(own, Question()).refused in ("not_ready", "not_found")
    assert own.call("GET", "/v2/health/ready")[0] == 503
    (third / "manifest.json").unlink()
    assert second.exists()
    assert admin("load") == 200
    assert not ask_plain(own, Question()).refused


def test_admin_listener_asks_for_its_token(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame\n")
    with running_gateway(repository, "--admin-token-file", str(tmp_path / "token")) as gateway:
        path = "/v2/repository/models/sums/load"
        assert gateway.call("POST", path, b"", where=gateway.admin)[0] == 401
        wrong = {"Authorization": "Bearer sesame"}
        assert gateway.call("POST", path, b"", wrong, where=gateway.admin)[0] == 401
        right = {"Authorization": "Bearer open sesame"}
        assert gateway.call("POST", path, b"", right, where=gateway.admin)[0] == 200


def test_burst_is_downgraded_rather_than_refused(own: GatewayProcess) -> None:
    # Time enough for one full run, or for a few, as this machine is now; never for as many as wait while one runs.
    candidates = own.call("GET", f"/v2/models/sums/route?budget_ms={ROOMY_MS}")[2]["candidates"]
    (full_ms,) = [item["predicted_ms"] for item in candidates if item["variant"] == "full"]
    question = Question(headers={"x-latency-budget-ms": str(4.0 * full_ms)})
    with ThreadPoolExecutor(48) as pool:
        replies = list(pool.map(lambda _: ask_plain(own, question), range(96)))
    assert not [reply.message for reply in replies if reply.refused]
    who = Counter((reply.answer["variant"], reply.answer["reason"]) for reply in replies)
    assert who[("quantized", "downgraded")] > 0, who


def test_client_that_leaves_frees_its_place(own: GatewayProcess) -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,1,1,1]}],"parameters":{"tier":"full"}}'
    head = f"POST /v2/models/sums/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    host, _, port = own.http.partition(":")
    leaving = [socket.create_connection((host, int(port))) for _ in range(16)]
    for connection in leaving:
        connection.sendall(head + body)
    for connection in leaving:
        connection.close()
    line = 'tiergate_requests_total{model="sums",outcome="cancelled",protocol="http",variant=""}'
    until(lambda: own.metric(line) > 0)  # the gateway notices in its own time
    assert not ask_plain(own, Question()).refused


def test_variant_that_fails_on_a_request_is_replaced_by_the_next(repository: Path) -> None:
    folder = repository / "sums" / "1"
    replace_file(folder, "full", failing_onnx())
    with running_gateway(repository) as gateway:
        good = ask_plain(gateway, Question(parameters={"latency_budget_ms": 60_000}))
        assert (good.answer["variant"], good.answer["reason"]) == ("quantized", "fallback")
        body = (
            b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,1,1,1]}],"parameters":{"tier":"full"}}'
        )
        headers = {"Content-Type": "application/json", "x-request-id": "mine"}
        status, _, content = gateway.call("POST", "/v2/models/sums/infer", body, headers)
        assert (status, set(content)) == (500, {"error"})
        assert str(repository) not in content["error"]
    assert "id=mine" in (repository.parent / "gateway.log").read_text()


def failing_onnx() -> bytes:
    """Return a file that works on zeros, as warm-up sends them, and fails on ones: it gathers a row that is absent."""
    table = numpy_helper.from_array(np.zeros((1, 1), dtype=np.float32), "table")
    first = numpy_helper.from_array(np.array([[1.0], [0.0], [0.0], [0.0]], dtype=np.float32), "first")
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["picked"]),
        helper.make_node("Cast", ["picked"], ["index"], to=7),
        helper.make_node("GatherND", ["table", "index"], ["row"]),
        helper.make_node("Add", ["row", "picked"], ["y"]),
    ]
    return onnx_model(nodes, [table, first])


def test_many_models_are_served_side_by_side(tmp_path: Path) -> None:
    names = ("first", "second", "third")
    for name in names:
        write_model(tmp_path / "repository", ModelPlan(name=name))
    with running_gateway(tmp_path / "repository") as gateway:
        failures: list[Any] = []

        def ask(name: str) -> None:
            replies = [ask_plain(gateway, Question(model=name)) for _ in range(20)]
            failures.extend(reply for reply in replies if reply.refused)

        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        index = gateway.call("POST", "/v2/repository/index")[2]
        assert {row["name"] for row in index} == set(names)
