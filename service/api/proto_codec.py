"""An infer request and its response as protobuf carries them.

Inputs come as raw contents or as typed contents, never as both. Outputs always go as raw contents, because Triton's
client reads nothing else. Numbers among the response parameters go as text: they would need ``double_param``, which
KServe's and MLServer's copies of the protocol lack, and their clients fail on a parameter with nothing set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

from service.api.binary_codec import decode_raw, encode_raw
from service.api.http_codec import RequestHead, refuse_output_parameters
from service.api.knobs import decode_knobs
from service.api.names import check_request_id, check_tensor_names, shown
from service.domain.errors import InvalidRequest, NotSupported, PayloadTooLarge
from service.domain.inference import InferenceRequest, RequestedOutput
from service.domain.tensors import DTYPES, MAX_RANK, Tensor, dtype_of, element_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from service.api.answers import Parameter
    from service.domain.inference import InferenceResponse

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


def decode_request(message: Any, head: RequestHead, deadline_s: float | None) -> InferenceRequest:  # noqa: ANN401 - protobuf ships no types
    """Read a ``ModelInferRequest``; tensors sent raw are views of the message.

    Args:
        message: The protobuf message.
        head: What the model's name and the metadata said.
        deadline_s: Seconds left until the call's deadline.

    Raises:
        InvalidRequest: The message is malformed.
        NotSupported: It asks for shared memory or classification.
    """
    return InferenceRequest(
        model=head.model,
        id=check_request_id(message.id) if message.id else head.id,
        inputs=_decode_inputs(message),
        version=head.version,
        outputs=_decode_outputs(message.outputs) if message.outputs else (),
        binary_outputs=True,
        knobs=decode_knobs(
            _parameters(message.parameters), head.knob_headers, pinned=head.pinned, deadline_s=deadline_s
        ),
        protocol="grpc",
    )


def encode_response(response: InferenceResponse, parameters: Iterable[Parameter]) -> Any:  # noqa: ANN401 - protobuf ships no types
    """Return the ``ModelInferResponse``."""
    message = service_pb2.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for name, text, kind in parameters:
        if kind is bool:
            message.parameters[name].bool_param = text == "true"
        else:
            message.parameters[name].string_param = text
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape)
        message.raw_output_contents.append(encode_raw(tensor))
    return message


def _parameters(entries: Any) -> dict[str, Any]:  # noqa: ANN401 - a protobuf map
    """Return protobuf parameters as plain values; an entry with nothing set is ``None``, which means not said."""
    values = {}
    for name in entries:
        choice = entries[name].WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(entries[name], choice)
    return values


def _decode_inputs(message: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 - protobuf ships no types
    inputs = message.inputs
    raws = message.raw_input_contents
    check_tensor_names("input", [tensor.name for tensor in inputs])
    if not inputs:
        raise InvalidRequest("the request has no inputs; at least one is needed")
    if raws and len(raws) != len(inputs):
        raise InvalidRequest(f"the request has {len(raws)} raw_input_contents for {len(inputs)} inputs; give one each")
    return tuple([_decode_input(tensor, raws[index] if raws else None) for index, tensor in enumerate(inputs)])


def _decode_input(wire: Any, raw: bytes | None) -> Tensor:  # noqa: ANN401 - protobuf ships no types
    datatype = wire.datatype if len(wire.datatype) <= len("UNKNOWN!") else shown(wire.datatype)
    dtype_of(datatype, wire.name)
    if wire.parameters and "shared_memory_region" in wire.parameters:
        raise NotSupported(f"input '{wire.name}' asks for shared memory, which this server does not offer")
    shape = tuple(wire.shape[: MAX_RANK + 1])  # one too many is enough to be refused
    if raw is None:
        return Tensor(wire.name, datatype, _decode_contents(wire, shape))
    if wire.HasField("contents"):
        raise InvalidRequest(f"input '{wire.name}' has both contents and raw_input_contents; give one of them")
    return Tensor(wire.name, datatype, decode_raw(wire.name, datatype, shape, raw))


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
