"""Real runs that do not come back: the gateway answers on, and ends when it is told to."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from tests.builders import onnx_model, replace_file, write_model
from tests.integration.gateway_process import ROOMY_MS, SUMS, running_gateway, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

FOR_EVER = 1e12


def looping_onnx(*, always: bool = False) -> bytes:
    """Return a file that sums each row, after as many turns of a loop as the largest input says, or for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["sum"], ["same"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["rows", 1]),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "ones"], ["first"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "first"], ["y"], body=body),
    ]
    if always:
        nodes[2] = helper.make_node("Cast", ["for_ever"], ["turns"], to=TensorProto.INT64)
    ones, for_ever = np.ones((4, 1), dtype=np.float32), np.array(FOR_EVER, dtype=np.float32)
    return onnx_model(nodes, [numpy_helper.from_array(ones, "ones"), numpy_helper.from_array(for_ever, "for_ever")])


def ask(gateway: GatewayProcess, value: float, **parameters: object) -> tuple[int, Any]:
    """Ask for the sum of one value and three zeros; return the status and the answer."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value, 0, 0, 0]}
    body = {"inputs": [tensor], "parameters": {"latency_budget_ms": ROOMY_MS} | parameters}
    connection = http.client.HTTPConnection(gateway.http, timeout=300)
    try:
        connection.request("POST", "/v2/models/sums/infer", json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_gateway_answers_on_when_a_run_hangs(tmp_path: Path) -> None:
    replace_file(write_model(tmp_path / "repository", SUMS), "full", looping_onnx())
    with running_gateway(tmp_path / "repository", "--lanes", "1", "--inline-compute-ms", "0") as gateway:
        status, answer = ask(gateway, FOR_EVER)
        assert (status, answer["parameters"]["variant"]) == (200, "quantized")
        status, answer = ask(gateway, FOR_EVER, tier="full")
        assert (status, answer) == (500, {"error": "a run of variant 'full' hung"})
        status, answer = ask(gateway, 1.0)
        assert (status, answer["outputs"][0]["data"]) == (200, [1.0])
        _, _, metrics = gateway.call("GET", "/metrics", where=gateway.admin)
        assert b'tiergate_lanes_replaced_total{model="sums",variant="full"} 2.0' in metrics
        assert gateway.stop() == 0


def is_computing(process: psutil.Process, before_s: float = 0.0) -> bool:
    """Tell whether another thread than the first computes: the one that loads, in the first run of a variant."""
    return sum(item.user_time for item in process.threads() if item.id != process.pid) > before_s + 1.0


def test_gateway_that_loads_a_variant_whose_runs_hang_ends_when_it_is_told_to(tmp_path: Path) -> None:
    replace_file(write_model(tmp_path / "repository", SUMS), "full", looping_onnx(always=True))
    ports = [part for name in ("http", "grpc", "admin") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "service.cli", "serve", str(tmp_path / "repository"), *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        seen = psutil.Process(process.pid)
        try:
            until(lambda: is_computing(seen))
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate()
        finally:
            if process.poll() is None:
                process.kill()
    assert (process.returncode, said) == (0, "")


def test_gateway_that_loads_a_new_version_whose_runs_hang_ends_when_it_is_told_to(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "repository", SUMS)
    with running_gateway(tmp_path / "repository", "--drain-timeout-s", "0.5") as gateway:
        replace_file(folder, "full", looping_onnx(always=True))
        seen = psutil.Process(gateway.process.pid)
        before_s = sum(item.user_time for item in seen.threads() if item.id != seen.pid)
        connection = http.client.HTTPConnection(gateway.admin)
        connection.request("POST", "/v2/repository/models/sums/load")
        until(lambda: is_computing(seen, before_s))
        assert gateway.stop() == 0
        connection.close()
