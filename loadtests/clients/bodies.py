"""Requests as bytes, made before the run: one body for each input row, one head for each kind of request.

What a request asks of routing travels in headers (HTTP) or metadata (gRPC), so that a body depends on its row alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from loadtests.plan import Job, RequestClass, Target

DTYPES: Final[dict[str, str]] = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""The protocol's datatypes that a load test can send, as numpy writes them."""

JSON_LENGTH: Final = "inference-header-content-length"


def json_bodies(target: Target, inputs: NDArray[Any]) -> list[bytes]:
    """Return one JSON body for each row."""
    return [
        json.dumps({"inputs": [{**_tensor(target, row), "data": row.ravel().tolist()}]}).encode()
        for row in _typed(target, inputs)
    ]


def binary_bodies(target: Target, inputs: NDArray[Any]) -> tuple[list[bytes], int]:
    """Return one binary body for each row, and the length of the JSON that each starts with."""
    rows = [row.tobytes() for row in _typed(target, inputs)]
    head = json.dumps(
        {
            "inputs": [{**_tensor(target, inputs[0]), "parameters": {"binary_data_size": len(rows[0])}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return [head + row for row in rows], len(head)


def grpc_messages(target: Target, inputs: NDArray[Any], model: str) -> list[bytes]:
    """Return one serialised ``ModelInferRequest`` for each row."""
    messages = []
    for row in _typed(target, inputs):
        message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row.tobytes()])
        message.inputs.add(name=target.input_name, datatype=target.datatype, shape=(1, *row.shape))
        messages.append(message.SerializeToString())
    return messages


def http_heads(job: Job, json_length: int | None) -> list[bytes]:
    """Return, for each kind of request, everything before the value of Content-Length, which comes last."""
    kind = "application/json" if json_length is None else "application/octet-stream"
    fixed = {"host": job.target.address.http, "content-type": kind}
    if json_length is not None:
        fixed[JSON_LENGTH] = str(json_length)
    return [
        b"".join(
            (
                f"POST /v2/models/{model_of(job.target, asked)}/infer HTTP/1.1\r\n".encode(),
                *(f"{name}: {value}\r\n".encode() for name, value in {**fixed, **knobs(asked, job.timeout_s)}.items()),
                b"content-length: ",
            )
        )
        for asked in job.classes
    ]


def knobs(asked: RequestClass, timeout_s: float) -> dict[str, str]:
    """Return what a kind of request asks of routing, by lower-case header."""
    found = {"x-request-timeout-ms": f"{timeout_s * 1e3:g}"}
    if asked.names_budget:
        found["x-latency-budget-ms"] = f"{asked.budget_s * 1e3:g}"
    if asked.hardware:
        found["x-client-hardware"] = asked.hardware
    if asked.criticality != "normal":
        found["x-criticality"] = asked.criticality
    return found


def model_of(target: Target, asked: RequestClass) -> str:
    """Return the model's name as the path carries it, with the pinned variant if there is one."""
    return f"{target.model}--{asked.variant}" if asked.variant else target.model


def _typed(target: Target, inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return iter(np.ascontiguousarray(inputs, dtype=DTYPES[target.datatype]))


def _tensor(target: Target, row: NDArray[Any]) -> dict[str, Any]:
    # The row's own shape: the model's may leave a dimension open.
    return {"name": target.input_name, "shape": [1, *row.shape], "datatype": target.datatype}
