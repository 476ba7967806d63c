"""A real run that does not come back: the gateway answers on, and ends when it is told to."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.builders import onnx_model, replace_file, write_model
from tests.integration.gateway_process import ROOMY_MS, SUMS, running_gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

FOR_EVER = 1e12


def looping_onnx() -> bytes:
    """Return a file that sums each row, after as many turns of a loop as the largest input says."""
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
    return onnx_model(nodes, [numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), "ones")])


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
