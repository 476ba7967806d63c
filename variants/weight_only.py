"""Four-bit weights: products whose weights are unpacked while they are multiplied.

Each column of a weight matrix is cut into blocks of 32 numbers along the inner dimension; a block keeps one scale and
one zero point, and 4 bits for each number, rounded to nearest (ONNX Runtime's ``MatMulNBits``; the block-wise scheme
is that of Dettmers et al. 2022, "LLM.int8()", and of Frantar et al. 2022, "GPTQ", whose second-order correction is
not used here as it needs data)::

    w = scale_of_block * (q - zero_of_block)        q in 0..15, so (4 + (32 + 4) / 32) bits a weight with float scales

Nothing is calibrated. Activations stay floats in the file; ``accuracy_level=4`` lets the kernel round them to 8 bits
block by block, which is what makes it quick on processors. It pays where time goes to fetching weights: large products
of few rows, so language models a token at a time. It is no use to convolutions, which are left as they are, and a small
model's weights are too few for it to matter.

The quantizer looks at ``MatMul`` alone and passes over ``Gemm`` without a word, which is what exporters write for a
linear layer; so those are rewritten first as a product and an addition.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK: Final = 32
ACCURACY_LEVEL: Final = 4  # activations in int8; 0, the default, computes in floats and is no faster than they


def pack_weights(file: bytes) -> bytes:
    """Return the file with the weights of its products in 4 bits; one without such products comes back as it is."""
    model = onnx.load_from_string(split_gemms(file))
    make = _import_quantizer()
    quantizer = make(model, block_size=BLOCK, is_symmetric=False, accuracy_level=ACCURACY_LEVEL)
    quantizer.process()
    packed: onnx.ModelProto = quantizer.model.model
    packed.ClearField("metadata_props")
    packed.graph.ClearField("value_info")
    data: bytes = packed.SerializeToString(deterministic=True)
    return data


def split_gemms(file: bytes) -> bytes:
    """Return the file with every ``Gemm`` of constant weights as ``MatMul`` and ``Add``; answers stay the same."""
    model = onnx.load_from_string(file)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [part for node in model.graph.node for part in _split(node, constants)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def has_four_bits(file: bytes) -> bool:
    """Tell whether the file's bytes are 4-bit weights alone: two products of 4 and 8 bits fit 16 bits many times."""
    kinds = {node.op_type for node in onnx.load_from_string(file).graph.node}
    return "MatMulNBits" in kinds and not kinds & {"QuantizeLinear", "DynamicQuantizeLinear"}


def _import_quantizer() -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return the quantizer's class; importing its module sets up the process's logging, which is undone here."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    from onnxruntime.quantization import matmul_nbits_quantizer as module  # noqa: PLC0415 - see above

    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(module.__name__).setLevel(logging.WARNING)  # it tells of every node
    return module.MatMulNBitsQuantizer


def _split(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Iterator[onnx.NodeProto]:
    """Yield what ``node`` becomes; new weights join ``constants``."""
    if node.op_type != "Gemm" or node.input[1] not in constants:
        yield node
        return
    numbers = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    bias = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - the operator's optional third input
    is_plain = not numbers.get("transA", 0) and (not bias or numbers.get("beta", 1.0) == 1.0)
    if not is_plain:
        yield node
        return
    weight = _product_weight(node, numbers, constants)
    product = f"{node.output[0]}_product" if bias else node.output[0]
    yield helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)
    if bias:
        yield helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.name}_bias")


def _product_weight(node: onnx.NodeProto, numbers: Mapping[str, Any], constants: dict[str, onnx.TensorProto]) -> str:
    """Return the name of the weight as ``MatMul`` takes it: (inner, outer), the factor ``alpha`` in it."""
    stored = numpy_helper.to_array(constants[node.input[1]])
    turned = stored.T if numbers.get("transB", 0) else stored  # (inner, outer)
    name = f"{node.input[1]}_of_{node.output[0]}"
    scaled = np.ascontiguousarray(turned * stored.dtype.type(numbers.get("alpha", 1.0)))
    constants[name] = numpy_helper.from_array(scaled, name)
    return name
