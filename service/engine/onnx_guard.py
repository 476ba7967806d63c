"""Refuse ONNX files that reach outside themselves, before the runtime sees them.

An ONNX file may keep weights in other files (external data), which a runtime would open by a path that the file
chooses, and may use operators of custom domains, which need a shared library. Neither is needed here. The file is a
protobuf message; instead of a full ONNX library on the serving path, this walks the wire format: a message is a
sequence of (key, value) where key = field_number * 8 + wire_type, and the few fields on the way to tensors and operator
sets have the numbers below (onnx.proto, stable since ONNX 1.0). Unknown fields are skipped unread.

    ModelProto.graph = 7            ModelProto.functions = 25
    ModelProto.training_info = 20   TrainingInfoProto.initialization, algorithm = 1, 2 (graphs)
    GraphProto.node = 1             GraphProto.initializer = 5       GraphProto.sparse_initializer = 15
    NodeProto.op_type = 4           NodeProto.attribute = 5         NodeProto.domain = 7
    FunctionProto.node = 7          FunctionProto.domain = 10        FunctionProto.attribute_proto = 11
    SparseTensorProto.values, indices = 1, 2
    AttributeProto.t, g = 5, 6      AttributeProto.tensors, graphs = 10, 11    .sparse_tensor(s) = 22, 23
    TensorProto.external_data = 13  TensorProto.data_location = 14 (1 = EXTERNAL)

Domains are checked where a node uses one, not where the file imports one: tools leave imports that nothing uses. A
domain that the file itself defines by functions is as much inside the file as its nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.domain.errors import BackendFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DEPTH: Final = 64
_MOST_KEY: Final = 2**32
"""Runtimes keep 32 bits of a key: a longer one would be another field to them than to us."""

# For each kind of message: field number -> kind of the submessage to walk into.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def refuse_outside_references(model: bytes) -> frozenset[str]:
    """Check that an ONNX file is whole in itself; return the names of the operators in it.

    Raises:
        BackendFailed: It is not an ONNX file, keeps data elsewhere, or needs a domain that is not allowed.
    """
    domains = _Domains(set(), set(), set())
    try:
        _walk(memoryview(model), "model", domains, 0)
    except (IndexError, ValueError) as error:
        raise BackendFailed(f"the file is not a readable ONNX model: {error}") from None
    foreign = sorted(domains.used - domains.defined - ALLOWED_DOMAINS)
    if foreign:
        raise BackendFailed(
            f"the model needs operators of domain {', '.join(map(repr, foreign))}; allowed are "
            f"{', '.join(map(repr, sorted(ALLOWED_DOMAINS)))}"
        )
    return frozenset(domains.operators)


@dataclass(frozen=True, slots=True)
class _Domains:
    """Operator domains that nodes use, those that the file defines itself by functions, and the nodes' operators."""

    used: set[str]
    defined: set[str]
    operators: set[str]


def _walk(message: memoryview, kind: str, domains: _Domains, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError(f"graphs are nested more than {_MOST_DEPTH} deep")
    children = _CHILDREN.get(kind, {})
    texts = {"node": {4: domains.operators, 7: domains.used}, "function": {10: domains.defined}}.get(kind, {})
    for number, wire_type, value in _fields(message):
        if kind == "tensor" and (number == 13 or (number == 14 and value == 1)):  # noqa: PLR2004 - listed above
            raise BackendFailed("the model keeps weights outside the file (external data), which is not allowed")
        if wire_type != _BYTES or not isinstance(value, memoryview):
            continue
        if number in texts:
            texts[number].add(bytes(value).decode("utf-8", "replace"))
        elif number in children:
            _walk(value, children[number], domains, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        if key >= _MOST_KEY:
            raise ValueError(f"field key {key} at byte {at}")
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, wire_type, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(message, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + size > end:
            raise ValueError(f"field {number} runs past the end")
        yield number, wire_type, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
        shift += 7
        if shift > 63:  # noqa: PLR2004 - ten bytes hold 64 bits
            raise ValueError(f"number longer than 64 bits at byte {at}")
