"""An infer request as protobuf carries it: inputs come as raw contents or as typed contents, never as both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.api.binary_codec import decode_raw
from service.api.http_codec import RequestHead, refuse_output_parameters
from service.api.knobs import decode_knobs
from service.api.names import check_request_id, check_tensor_names, shown
from service.api.proto_message import Outline, RawInput
from service.domain.errors import InvalidRequest, NotSupported, PayloadTooLarge
from service.domain.inference import InferenceRequest, RequestedOutput
from service.domain.tensors import DTYPES, MAX_RANK, Tensor, dtype_of, element_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.api.proto_message import InferMessage

_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> the field of ``InferTensorContents`` that holds it; FP16 and BF16 have none."""

_NARROWEST_BYTES: Final = 4  # typed contents have no field for smaller integers
_PACKED_TYPES: Final = ("INT64", "UINT64", "BYTES")
_MAX_PACKED_ELEMENTS: Final = 1 << 20
_LOOKED_AT: Final = "Ob"
"""Kinds of dtypes some of whose bytes are no elements: BYTES and BOOL."""


def decode_request(message: InferMessage, head: RequestHead, deadline_s: float | None) -> InferenceRequest:
    """Read an infer request; tensors sent raw are views of what came.

    Args:
        message: The request as it came.
        head: What the model's name and the metadata said.
        deadline_s: Seconds left until the call's deadline.

    Raises:
        InvalidRequest: The message is malformed.
        NotSupported: It asks for shared memory or classification.
    """
    request_id = check_request_id(message.id) if message.id else head.id
    said, raws = message.said, message.raws
    outline = said.outline
    if outline is None:
        outline = _outline(said.proto, len(raws))
        if raws:  # else it holds tensors, which no other request has
            said.outline = outline
    return InferenceRequest(
        model=head.model,
        id=request_id,
        inputs=_decode_raws(outline.raw_inputs, raws) if raws else outline.tensors,
        version=head.version,
        outputs=outline.outputs,
        binary_outputs=True,
        knobs=decode_knobs(outline.parameters, head.knob_headers, pinned=head.pinned, deadline_s=deadline_s),
        protocol="grpc",
    )


def _outline(message: Any, raws: int) -> Outline:  # noqa: ANN401 - protobuf ships no types
    inputs = message.inputs
    check_tensor_names("input", [tensor.name for tensor in inputs])
    if not inputs:
        raise InvalidRequest("the request has no inputs; at least one is needed")
    _check_count(raws, len(inputs))
    return Outline(
        tuple([_outline_input(wire) for wire in inputs]) if raws else (),
        () if raws else tuple([_decode_typed(wire) for wire in inputs]),
        _decode_outputs(message.outputs) if message.outputs else (),
        _parameters(message.parameters),
    )


def _check_count(raws: int, inputs: int) -> None:
    if raws and raws != inputs:
        raise InvalidRequest(f"the request has {raws} raw_input_contents for {inputs} inputs; give one each")


def _parameters(entries: Any) -> dict[str, Any]:  # noqa: ANN401 - a protobuf map
    """Return protobuf parameters as plain values; an entry with nothing set is ``None``, which means not said."""
    values = {}
    for name in entries:
        choice = entries[name].WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(entries[name], choice)
    return values


def _decode_raws(inputs: tuple[RawInput, ...], raws: Sequence[bytes | memoryview]) -> tuple[Tensor, ...]:
    _check_count(len(raws), len(inputs))
    return tuple([_decode_one(wire, raw) for wire, raw in zip(inputs, raws, strict=True)])


def _decode_one(wire: RawInput, raw: bytes | memoryview) -> Tensor:
    name, datatype = wire.name, wire.datatype
    if len(raw) == wire.size_bytes:
        return Tensor(name, datatype, np.frombuffer(raw, DTYPES[datatype]).reshape(wire.shape))
    return Tensor(name, datatype, decode_raw(name, datatype, wire.shape, raw))


def _outline_input(wire: Any) -> RawInput:  # noqa: ANN401 - protobuf ships no types
    datatype, shape = _described(wire)
    if wire.HasField("contents"):
        raise InvalidRequest(f"input '{wire.name}' has both contents and raw_input_contents; give one of them")
    dtype, count = DTYPES[datatype], element_count(shape, wire.name)
    return RawInput(wire.name, datatype, shape, -1 if dtype.kind in _LOOKED_AT else count * dtype.itemsize)


def _decode_typed(wire: Any) -> Tensor:  # noqa: ANN401 - protobuf ships no types
    datatype, shape = _described(wire)
    return Tensor(wire.name, datatype, _decode_contents(wire, shape))


def _described(wire: Any) -> tuple[str, tuple[int, ...]]:  # noqa: ANN401 - protobuf ships no types
    """Return an input's datatype, which is known then, and its shape."""
    datatype = wire.datatype if len(wire.datatype) <= len("UNKNOWN!") else shown(wire.datatype)
    dtype_of(datatype, wire.name)
    if wire.parameters and "shared_memory_region" in wire.parameters:
        raise NotSupported(f"input '{wire.name}' asks for shared memory, which this server does not offer")
    return datatype, tuple(wire.shape[: MAX_RANK + 1])  # one too many is enough to be refused


def _decode_contents(wire: Any, shape: tuple[int, ...]) -> NDArray[Any]:  # noqa: ANN401 - protobuf ships no types
    name, datatype = wire.name, wire.datatype
    count = element_count(shape, name)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidRequest(f"input '{name}' is {datatype}, which has no typed contents; send raw_input_contents")
    others = [other.name for other, _ in wire.contents.ListFields() if other.name != field]
    if others:
        raise InvalidRequest(f"input '{name}' has {others[0]}; {datatype} goes into {field}")
    values = getattr(wire.contents, field)
    if len(values) != count:
        message = f"input '{name}' has {len(values)} elements; shape {list(shape)} needs {count}"
        raise InvalidRequest(message)
    if datatype in _PACKED_TYPES and count > _MAX_PACKED_ELEMENTS:  # one byte on the wire, 16 in memory
        message = (
            f"input '{name}' has {count} elements of typed contents; {datatype} takes at most {_MAX_PACKED_ELEMENTS}, "
            "send raw_input_contents"
        )
        raise PayloadTooLarge(message)
    return _to_array(name, datatype, values).reshape(shape)


def _to_array(name: str, datatype: str, values: Any) -> NDArray[Any]:  # noqa: ANN401 - protobuf ships no types
    dtype = DTYPES[datatype]
    if dtype.kind not in "iu" or dtype.itemsize >= _NARROWEST_BYTES:
        return np.fromiter(values, dtype, len(values))
    wide = np.fromiter(values, f"{dtype.kind}{_NARROWEST_BYTES}", len(values))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    misfits = (wide < low) | (wide > high)
    if misfits.any():
        index = int(misfits.argmax())
        message = f"input '{name}': element {index} is {wide[index]}; {datatype} allows {low} to {high}"
        raise InvalidRequest(message)
    return wide.astype(dtype)


def _decode_outputs(wires: Any) -> tuple[RequestedOutput, ...]:  # noqa: ANN401 - protobuf ships no types
    check_tensor_names("requested output", [wire.name for wire in wires])
    for wire in wires:
        if wire.parameters:
            refuse_output_parameters(wire.name, _parameters(wire.parameters))
    return tuple([RequestedOutput(wire.name, binary=True) for wire in wires])
