from __future__ import annotations

import json

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.h2load import LoadError
from loadtests.peers.bentoml_native import read as read_nested
from loadtests.peers.litserve import read as read_flat
from loadtests.shots import Answer, Row, protocol_targets, read_binary, read_json, read_proto

ROW = Row("x", np.array([[0.137, 0.25, 1.0]], np.float32))
OUTPUT = np.array([[1.5, 2.5]], np.float32)


def shots() -> dict[str, bytes]:
    return {target.protocol: target.shot.body for target in protocol_targets("a", "mlp", ROW, (8000, 8001))}


def test_json_holds_the_shortest_decimals_of_the_same_floats() -> None:
    document = json.loads(shots()["HTTP JSON"])

    assert document == {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.137, 0.25, 1.0]}]}
    assert b"0.137," in shots()["HTTP JSON"]


def test_binary_form_says_where_its_tensor_begins() -> None:
    target = next(item for item in protocol_targets("a", "mlp", ROW, (8000, 8001)) if item.protocol == "HTTP binary")

    head = int(dict(target.shot.headers)["inference-header-content-length"])

    assert json.loads(target.shot.body[:head])["inputs"][0]["parameters"] == {"binary_data_size": 12}
    assert target.shot.body[head:] == ROW.data.tobytes()


def test_grpc_form_is_one_frame() -> None:
    body = shots()["gRPC"]

    message = service_pb2.ModelInferRequest.FromString(body[5:])

    assert body[:1] == b"\0"
    assert int.from_bytes(body[1:5], "big") == len(body) - 5
    assert (message.model_name, message.raw_input_contents[0]) == ("mlp", ROW.data.tobytes())


def test_targets_go_to_their_ports() -> None:
    urls = {target.protocol: target.shot.url for target in protocol_targets("a", "mlp", ROW, (8000, 8001))}

    assert urls["HTTP JSON"] == urls["HTTP binary"] == "http://127.0.0.1:8000/v2/models/mlp/infer"
    assert urls["gRPC"] == "http://127.0.0.1:8001/inference.GRPCInferenceService/ModelInfer"


def test_outputs_are_read_from_every_form() -> None:
    described = {"name": "y", "datatype": "FP32", "shape": [1, 2]}
    as_json = json.dumps({"outputs": [{**described, "data": [1.5, 2.5]}]}).encode()
    head = json.dumps({"outputs": [described]}).encode()
    raw = service_pb2.ModelInferResponse(raw_output_contents=[OUTPUT.tobytes()])
    raw.outputs.add(name="y", datatype="FP32", shape=(1, 2))
    typed = service_pb2.ModelInferResponse()
    typed.outputs.add(name="y", datatype="FP32", shape=(1, 2)).contents.fp32_contents.extend([1.5, 2.5])

    found = [
        read_json(Answer(as_json)),
        read_binary(Answer(head + OUTPUT.tobytes(), len(head))),
        read_proto(Answer(raw.SerializeToString())),
        read_proto(Answer(typed.SerializeToString())),
        read_nested(Answer(b"[[1.5, 2.5]]")),
        read_flat(Answer(b'{"data": [1.5, 2.5], "shape": [1, 2]}')),
    ]

    assert [output.tolist() for output in found] == [[[1.5, 2.5]]] * len(found)


def test_binary_answer_without_its_header_is_refused() -> None:
    with pytest.raises(LoadError, match="no header inference-header-content-length"):
        read_binary(Answer(b"{}"))
