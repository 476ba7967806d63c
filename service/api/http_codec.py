"""An infer request and its response as HTTP carries them: JSON alone, or JSON and then raw tensors.

With the binary tensor extension the header ``Inference-Header-Content-Length`` tells where the JSON ends; the raw
tensors follow in the order of the inputs that have ``binary_data_size``, and so do the outputs of the answer. C++
clients send the header for pure JSON too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.api.binary_codec import decode_raw, encode_raw
from service.api.json_codec import WireInput, WireOutput, decode_parameters, decode_shape, decode_wire_request
from service.api.json_data import decode_data, encode_data
from service.api.knobs import decode_knobs
from service.api.long_lists import STAND_IN, cut_out
from service.api.names import check_request_id, shown
from service.domain.errors import InvalidRequest, NotSupported, TiergateError
from service.domain.inference import InferenceRequest, RequestedOutput
from service.domain.tensors import Tensor, dtype_of, element_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.domain.inference import InferenceResponse

_MOST_KEPT_BYTES: Final = 1024
_NOTHING: Final = memoryview(b"")
_encode_json: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class RequestHead:
    """What is known of a request before its body is read."""

    model: str
    id: str
    version: str = ""
    pinned: str | None = None
    knob_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Input:
    """One input as the JSON describes it: ``size`` raw bytes, or where that is ``None`` its data as JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: msgspec.Raw


@dataclass(slots=True)
class _Said:
    """What the JSON of an infer request says; requests that say the same share it, so nobody may change it."""

    id: str
    inputs: tuple[_Input, ...]
    outputs: tuple[RequestedOutput, ...]
    binary_outputs: bool
    parameters: Mapping[str, Any]


def decode_request(body: bytes, json_length: int | None, head: RequestHead) -> InferenceRequest:
    """Read the body of an infer request; tensors sent as binary data are views of the body.

    Args:
        body: The whole body, decompressed.
        json_length: The header ``Inference-Header-Content-Length``, or ``None``.
        head: What path and headers said.

    Raises:
        InvalidRequest: The body is malformed; the message names the element.
        NotSupported: It asks for shared memory or classification.
    """
    if json_length is None:
        cut = cut_out(body)
        if cut is not None:
            with suppress(TiergateError):  # what is wrong is said of the request as it came
                return _as_said(_read(cut.text), _NOTHING, head, cut.lists)
        return _as_said(_read(body), _NOTHING, head)
    text, raw = body[: check_json_length(json_length, body)], memoryview(body)[json_length:]
    return _as_said(_read(text) if json_length > _MOST_KEPT_BYTES else _read_kept(bytes(text)), raw, head)


def _as_said(said: _Said, raw: memoryview, head: RequestHead, lists: Sequence[bytes] = ()) -> InferenceRequest:
    return InferenceRequest(
        model=head.model,
        id=said.id or head.id,
        inputs=_decode_inputs(said.inputs, raw, lists),
        version=head.version,
        outputs=said.outputs,
        binary_outputs=said.binary_outputs,
        knobs=decode_knobs(said.parameters, head.knob_headers, pinned=head.pinned),
    )


def _read(text: bytes) -> _Said:
    wire = decode_wire_request(text)
    parameters = decode_parameters(wire.parameters, "the request")
    binary_outputs = _flag(parameters, "binary_data_output", default=False)
    return _Said(
        check_request_id(wire.id) if wire.id else "",
        tuple([_read_input(item, index) for index, item in enumerate(wire.inputs)]),
        tuple([_decode_output(output, binary_outputs) for output in wire.outputs]) if wire.outputs else (),
        binary_outputs,
        parameters,
    )


_read_kept: Final = lru_cache(maxsize=512)(_read)
"""The same for what stands before raw tensors: short, and the same from request to request."""


def check_json_length(json_length: int, body: bytes) -> int:
    """Return the length of the JSON part.

    Raises:
        InvalidRequest: The body is shorter.
    """
    if not 0 < json_length <= len(body):
        message = (
            f"header 'Inference-Header-Content-Length' is {json_length}; "
            f"allowed is from 1 to the body's {len(body)} bytes"
        )
        raise InvalidRequest(message)
    return json_length


def encode_response(
    request: InferenceRequest, response: InferenceResponse, parameters: str
) -> tuple[bytes, int | None]:
    """Return the body, and the length of its JSON part where raw tensors follow it; ``parameters`` are JSON already.

    Raises:
        InvalidRequest: An output was asked for as JSON, which cannot carry it.
    """
    binary = {output.name: output.binary for output in request.outputs} if request.outputs else {}
    raws: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for tensor in response.outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.data.shape}
        if binary.get(tensor.name, request.binary_outputs):
            raw = encode_raw(tensor)
            output["parameters"] = {"binary_data_size": len(raw)}
            raws.append(raw)
        else:
            output["data"] = encode_data(tensor)
        outputs.append(output)
    text = b'%b%b,"parameters":%b,"outputs":%b}' % (
        _opening(response.model, response.version),
        _encode_json(response.id),
        parameters.encode(),
        _encode_json(outputs),
    )
    return (b"".join([text, *raws]), len(text)) if raws else (text, None)


@lru_cache(maxsize=256)
def _opening(model: str, version: str) -> bytes:
    return _encode_json({"model_name": model, "model_version": version})[:-1] + b',"id":'


def _read_input(wire: WireInput, index: int) -> _Input:
    dtype_of(wire.datatype, wire.name)
    shape = decode_shape(wire.shape, wire.name)
    size = _binary_size(wire, index)
    if size is None:
        element_count(shape, wire.name)
    return _Input(wire.name, wire.datatype, shape, size, wire.data)


def _decode_inputs(inputs: Sequence[_Input], raw: memoryview, lists: Sequence[bytes]) -> tuple[Tensor, ...]:
    """Read the data of the inputs: raw bytes, JSON, or one of the lists for which a stand-in was left in the JSON."""
    tensors = []
    offset = found = 0
    for index, item in enumerate(inputs):
        size = item.size
        if size is None:
            text = bytes(item.data)
            if found < len(lists) and text == STAND_IN:
                text = lists[found]
                found += 1
            array = decode_data(text, item.datatype, item.shape, f"$.inputs[{index}].data")
        else:
            if size > len(raw) - offset:
                message = (
                    f"input '{item.name}' has binary_data_size {size}, "
                    f"but only {len(raw) - offset} bytes of binary data are left"
                )
                raise InvalidRequest(message)
            array = decode_raw(item.name, item.datatype, item.shape, raw[offset : offset + size])
            offset += size
        tensors.append(Tensor(item.name, item.datatype, array))
    if found != len(lists):
        raise InvalidRequest("a long list is not the data of an input")
    if offset != len(raw):
        message = f"the request has {len(raw)} bytes of binary data; its inputs' binary_data_size sum to {offset}"
        raise InvalidRequest(message)
    return tuple(tensors)


def _binary_size(wire: WireInput, index: int) -> int | None:
    """Return how many raw bytes an input has, or ``None`` where its data is JSON."""
    parameters = decode_parameters(wire.parameters, f"input '{wire.name}'")
    if "shared_memory_region" in parameters:
        raise NotSupported(f"input '{wire.name}' asks for shared memory, which this server does not offer")
    size = parameters.get("binary_data_size")
    has_data = bool(memoryview(wire.data))
    if size is None and not has_data:
        message = f"input '{wire.name}' has no data: give $.inputs[{index}].data or the parameter binary_data_size"
        raise InvalidRequest(message)
    if size is None:
        return None
    if has_data:
        raise InvalidRequest(f"input '{wire.name}' has both data and binary_data_size; give one of them")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        message = f"input '{wire.name}' has binary_data_size {shown(size)}; allowed is a whole number from 0"
        raise InvalidRequest(message)
    return size


def _decode_output(wire: WireOutput, binary_outputs: bool) -> RequestedOutput:
    parameters = decode_parameters(wire.parameters, f"output '{wire.name}'")
    if parameters:
        refuse_output_parameters(wire.name, parameters)
    return RequestedOutput(wire.name, _flag(parameters, "binary_data", default=binary_outputs))


def refuse_output_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what an output may ask of other servers.

    Raises:
        NotSupported: It asks for shared memory or classification.
    """
    if "shared_memory_region" in parameters:
        raise NotSupported(f"output '{name}' asks for shared memory, which this server does not offer")
    if parameters.get("classification"):
        raise NotSupported(f"output '{name}' asks for classification, which this server does not offer")


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter '{name}' is {shown(value)}; allowed are true and false")
    return value
