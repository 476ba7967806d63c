"""The requests that servers under test are sent, and how their answers are read to see that they are right."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from loadtests.h2load import LoadError, Shot

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, np.dtype[np.float32]]

GRPC_PATH: Final = "inference.GRPCInferenceService/ModelInfer"
JSON_HEADERS: Final = (("content-type", "application/json"),)
_TIMEOUT_S: Final = 30.0
_OK: Final = 200
_FRAME_HEAD_BYTES: Final = 5
_SKIPPED_BY_GRPC: Final = ("content-type", "te")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its body (of gRPC the message alone) and, over HTTP, the length of the JSON before binary tensors."""

    body: bytes
    head_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One server and protocol under test; ``read`` finds the model's output in an answer."""

    name: str
    protocol: str
    shot: Shot
    read: Callable[[Answer], Array]


@dataclass(frozen=True, slots=True)
class Row:
    """One input: a name and a batch of one, FP32."""

    name: str
    data: Array

    @property
    def values(self) -> list[float]:
        """The elements, flat, in the shortest decimal form that gives the same float32 again."""
        return [float(text) for text in self.data.ravel().astype("U")]

    @property
    def nested(self) -> list[Any]:
        """The same elements as lists in lists."""
        nested: list[Any] = np.reshape(np.array(self.values), self.data.shape).tolist()
        return nested


def json_target(name: str, url: str, document: object, read: Callable[[Answer], Array]) -> Target:
    """Return a request with a JSON document of the server's own form."""
    return Target(name, "HTTP JSON", Shot(url, JSON_HEADERS, json.dumps(document).encode(), is_grpc=False), read)


def protocol_targets(name: str, model: str, row: Row, ports: tuple[int, int]) -> list[Target]:
    """Return the three forms of one request in the Open Inference Protocol; ``ports`` are HTTP's and gRPC's."""
    data = row.data
    tensor: dict[str, Any] = {"name": row.name, "shape": list(data.shape), "datatype": "FP32"}
    document = {"inputs": [{**tensor, "data": row.values}]}
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": data.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    url = f"http://127.0.0.1:{ports[0]}/v2/models/{model}/infer"
    binary = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    return [
        json_target(name, url, document, read_json),
        Target(name, "HTTP binary", Shot(url, binary, head + data.tobytes(), is_grpc=False), read_binary),
        grpc_target(name, model, row, ports[1]),
    ]


def grpc_target(name: str, model: str, row: Row, port: int, metadata: tuple[tuple[str, str], ...] = ()) -> Target:
    """Return the request as a ``ModelInfer`` call."""
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row.data.tobytes()])
    message.inputs.add(name=row.name, datatype="FP32", shape=row.data.shape)
    encoded = message.SerializeToString()
    headers = (("content-type", "application/grpc"), ("te", "trailers"), *metadata)
    frame = b"\0" + len(encoded).to_bytes(4, "big") + encoded
    return Target(name, "gRPC", Shot(f"http://127.0.0.1:{port}/{GRPC_PATH}", headers, frame, is_grpc=True), read_proto)


def read_json(answer: Answer) -> Array:
    """Read the first output of a JSON infer response."""
    output = json.loads(answer.body)["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def read_binary(answer: Answer) -> Array:
    """Read the first output of an infer response with binary tensors."""
    if answer.head_bytes is None:
        raise LoadError("the answer has no header inference-header-content-length: it holds no binary tensor")
    output = json.loads(answer.body[: answer.head_bytes])["outputs"][0]
    return np.frombuffer(answer.body[answer.head_bytes :], np.float32).reshape(output["shape"])


def read_proto(answer: Answer) -> Array:
    """Read the first output of a ``ModelInferResponse``, from raw bytes or from the typed field."""
    response = service_pb2.ModelInferResponse.FromString(answer.body)
    output = response.outputs[0]
    raw = response.raw_output_contents
    values = np.frombuffer(raw[0], np.float32) if raw else np.array(output.contents.fp32_contents, np.float32)
    return values.reshape(output.shape)


def ask(shot: Shot) -> Answer:
    """Send a request once.

    Raises:
        LoadError: The answer was not 200, or not OK.
    """
    return _call(shot) if shot.is_grpc else _post(shot)


def _post(shot: Shot) -> Answer:
    parts = urllib.parse.urlsplit(shot.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", parts.path, shot.body, dict(shot.headers))
        response = connection.getresponse()
        body, head = response.read(), response.getheader("inference-header-content-length")
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"{shot.url} did not answer: {error}") from None
    finally:
        connection.close()
    if response.status != _OK:
        raise LoadError(f"{shot.url} answered {response.status}: {body[:300].decode(errors='replace')}")
    return Answer(body, int(head) if head else None)


def _call(shot: Shot) -> Answer:
    parts = urllib.parse.urlsplit(shot.url)
    metadata = tuple(pair for pair in shot.headers if pair[0] not in _SKIPPED_BY_GRPC)
    with grpc.insecure_channel(parts.netloc) as channel:
        call = channel.unary_unary(parts.path, request_serializer=bytes, response_deserializer=bytes)
        try:
            return Answer(call(shot.body[_FRAME_HEAD_BYTES:], timeout=_TIMEOUT_S, metadata=metadata))
        except grpc.RpcError as error:
            raise LoadError(f"{shot.url} answered {error}") from None


def check(target: Target, expected: Array) -> Target:
    """Ask once and compare with what the runtime gives; return the target, which now knows how long its answers are.

    Raises:
        LoadError: There was no answer, or a wrong one.
    """
    answer = ask(target.shot)
    try:
        given = target.read(answer)
    except (ValueError, LookupError, TypeError) as error:
        raise LoadError(f"{target.name}, {target.protocol}: an answer of another form: {error!r}") from None
    if given.shape != expected.shape or not np.allclose(given, expected, rtol=1e-4, atol=1e-5):
        raise LoadError(f"{target.name}, {target.protocol}: answered {given.tolist()}, the runtime {expected.tolist()}")
    data_bytes = len(answer.body) + (_FRAME_HEAD_BYTES if target.shot.is_grpc else 0)
    return replace(target, shot=replace(target.shot, answer_bytes=data_bytes))
