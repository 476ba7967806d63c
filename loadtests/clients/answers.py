"""Read what came back: the protocol's answers in three wire forms, and the kinds of refusal.

The answer to one row is the position of the first output's largest element, or the element itself where the output is
a single whole number. The gateway's response parameters are read where they are; other servers send none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from loadtests.clients.bodies import DTYPES
from loadtests.recording import Reply, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_OK: Final = 200
_HTTP: Final[Mapping[int, Status]] = {
    429: Status.SHED,
    502: Status.NOT_READY,
    503: Status.NOT_READY,
    504: Status.EXPIRED,
}
_SERVER_ERRORS: Final = 500
_GRPC: Final[Mapping[int, Status]] = {
    0: Status.OK,
    1: Status.CANCELLED,
    3: Status.INVALID,  # INVALID_ARGUMENT
    4: Status.EXPIRED,  # DEADLINE_EXCEEDED
    5: Status.INVALID,  # NOT_FOUND
    7: Status.INVALID,  # PERMISSION_DENIED
    8: Status.SHED,  # RESOURCE_EXHAUSTED
    12: Status.INVALID,  # UNIMPLEMENTED
    14: Status.NOT_READY,  # UNAVAILABLE
    16: Status.INVALID,  # UNAUTHENTICATED
}


class Unreadable(ValueError):
    """What came back is not an answer of the protocol."""


class _Parameters(msgspec.Struct):
    variant: str = ""
    reason: str = ""
    predicted_ms: float = math.nan
    predicted_p99_ms: float = math.nan
    queue_ms: float = math.nan
    compute_ms: float = math.nan
    total_ms: float = math.nan
    expected_accuracy: float = math.nan


class _OutputParameters(msgspec.Struct):
    binary_data_size: int = 0


class _Output(msgspec.Struct):
    datatype: str
    data: list[float | None] = []
    parameters: _OutputParameters | None = None


class _Response(msgspec.Struct):
    outputs: list[_Output]
    parameters: _Parameters | None = None


_decode: Final = msgspec.json.Decoder(_Response).decode


def status_of_http(code: int) -> Status:
    """Return how a request ended whose answer has this HTTP status."""
    if code == _OK:
        return Status.OK
    return _HTTP.get(code, Status.FAILED if code >= _SERVER_ERRORS else Status.INVALID)


def status_of_grpc(code: int) -> Status:
    """Return how a call ended that has this status code."""
    return _GRPC.get(code, Status.FAILED)


def read_http(body: bytes, json_length: int | None) -> Reply:
    """Read the body of an answer; ``json_length`` is given where raw tensors follow the JSON.

    Raises:
        Unreadable: It is no answer of the protocol.
    """
    try:
        response = _decode(body if json_length is None else body[:json_length])
        first = response.outputs[0]
        if json_length is None:
            answer = _largest(first.data)
        else:
            size = 0 if first.parameters is None else first.parameters.binary_data_size
            answer = _largest_raw(first.datatype, body[json_length : json_length + size])
    except (msgspec.MsgspecError, LookupError, ValueError, TypeError) as error:
        raise Unreadable(str(error)) from None
    found = response.parameters or _Parameters()
    return Reply(
        answer,
        found.variant,
        found.reason,
        found.predicted_ms / 1e3,
        found.queue_ms / 1e3,
        found.compute_ms / 1e3,
        found.total_ms / 1e3,
        found.expected_accuracy,
        found.predicted_p99_ms / 1e3,
    )


def first_output(body: bytes, json_length: int) -> NDArray[Any]:
    """Return the first output of a binary answer, flat.

    Raises:
        Unreadable: It is no answer of the protocol.
    """
    try:
        first = _decode(body[:json_length]).outputs[0]
        size = 0 if first.parameters is None else first.parameters.binary_data_size
        return np.frombuffer(body[json_length : json_length + size], DTYPES[first.datatype])
    except (msgspec.MsgspecError, LookupError, ValueError) as error:
        raise Unreadable(str(error)) from None


def read_grpc(content: bytes) -> Reply:
    """Read a serialised ``ModelInferResponse``; the gateway's numbers come as text.

    Raises:
        Unreadable: It is no answer of the protocol.
    """
    message = service_pb2.ModelInferResponse()
    try:
        message.ParseFromString(content)
        answer = _largest_raw(message.outputs[0].datatype, message.raw_output_contents[0])
    except (DecodeError, LookupError, ValueError) as error:
        raise Unreadable(str(error)) from None
    found = message.parameters

    def seconds(name: str) -> float:
        return float(found[name].string_param) / 1e3 if name in found else math.nan

    return Reply(
        answer,
        found["variant"].string_param if "variant" in found else "",
        found["reason"].string_param if "reason" in found else "",
        seconds("predicted_ms"),
        seconds("queue_ms"),
        seconds("compute_ms"),
        seconds("total_ms"),
        seconds("expected_accuracy") * 1e3,
        seconds("predicted_p99_ms"),
    )


def _largest(data: Sequence[Any]) -> int:
    if len(data) == 1:
        return int(data[0])
    return data.index(max(data))


def _largest_raw(datatype: str, raw: bytes) -> int:
    return answer_of(np.frombuffer(raw, DTYPES[datatype]))


def answer_of(output: NDArray[Any]) -> int:
    """Return the answer that a flat output gives to one row."""
    return int(output[0]) if output.size == 1 else int(output.argmax())
