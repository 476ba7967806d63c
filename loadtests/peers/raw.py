"""The frontends without a gateway behind them: decode, one ONNX Runtime call, encode, nothing else.

What a protocol costs on a server at the least; the gateway's own cost is the difference. Run as
``python -m loadtests.peers.raw http|grpc MODEL.onnx PORT``, or under pyvoy as ``loadtests.peers.raw:app`` with the
model's path in ``TIERGATE_RAW_MODEL``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnxruntime as ort
import uvicorn
from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]

MODEL_VARIABLE = "TIERGATE_RAW_MODEL"
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_FRAME_HEAD = 5


@cache
def _session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(os.environ[MODEL_VARIABLE], options, providers=["CPUExecutionProvider"])


def _run(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = _session()
    output: np.ndarray[Any, Any] = session.run(None, {session.get_inputs()[0].name: data})[0]
    return output


def answer_json(body: bytes) -> bytes:
    """Answer a JSON infer request."""
    tensor = json.loads(body)["inputs"][0]
    output = _run(np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
    outputs = [{"name": "logits", "datatype": "FP32", "shape": list(output.shape), "data": output.ravel().tolist()}]
    return json.dumps({"model_name": "raw", "id": "0", "outputs": outputs}).encode()


def answer_proto(message: bytes) -> bytes:
    """Answer a ``ModelInferRequest``."""
    request = service_pb2.ModelInferRequest.FromString(message)
    data = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
    output = _run(data)
    response = service_pb2.ModelInferResponse(model_name="raw", raw_output_contents=[output.tobytes()])
    response.outputs.add(name="logits", datatype="FP32", shape=output.shape)
    encoded: bytes = response.SerializeToString()
    return encoded


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer as ASGI: JSON over HTTP, or gRPC with trailers where the server has them."""
    if scope["type"] != "http":
        return
    if scope["method"] != "POST":  # a host's own probe
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] != _METHOD:
        answer = answer_json(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        return
    answer = answer_proto(body[_FRAME_HEAD:])
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": b"\0" + len(answer).to_bytes(4, "big") + answer})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


async def _serve_grpc(port: int) -> None:
    async def infer(message: bytes, _: object) -> bytes:
        return answer_proto(message)

    _, service, method = _METHOD.split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(infer)})
    server = grpc.aio.server(handlers=[handler])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve one protocol on loopback."""
    kind, model, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ[MODEL_VARIABLE] = model
    if kind == "grpc":
        asyncio.run(_serve_grpc(port))
    else:
        uvicorn.run(
            app, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
        )


if __name__ == "__main__":
    main()
