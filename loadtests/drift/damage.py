"""Damage to the weights of an ONNX file: bits that flip, as a bad disk, bad memory or a bad transfer leaves them.

Bits of float weights flip only below the exponent's top bit: that one makes numbers of 1e38, after which every answer is
the same, which is the easiest fault of all to notice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

LEAST_WEIGHTS: Final = 16
"""Smaller tensors are scales, shapes and zero points; the file would rather fail than be a little wrong."""
_FLOAT_BITS: Final = 30
_BYTE_BITS: Final = 8


def flip_bits(file: bytes, flips: int, seed: int) -> bytes:
    """Return the file with ``flips`` random bits of its weights inverted; fewer flips of a seed are among more."""
    model = onnx.load_from_string(file)
    chance = np.random.default_rng(seed)
    weights = [item for item in model.graph.initializer if _is_weight(item)]
    arrays = [numpy_helper.to_array(item).copy() for item in weights]
    sizes = np.array([array.size for array in arrays])
    for _ in range(flips):
        which = int(chance.choice(len(arrays), p=sizes / sizes.sum()))
        place, bit = int(chance.integers(sizes[which])), int(chance.integers(2**16))
        flat = arrays[which].reshape(-1)
        is_float = flat.dtype == np.float32
        words = flat.view(np.uint32 if is_float else np.uint8)
        words[place] ^= words.dtype.type(1 << bit % (_FLOAT_BITS if is_float else _BYTE_BITS))
    for item, array in zip(weights, arrays, strict=True):
        item.CopyFrom(numpy_helper.from_array(array, item.name))
    return bytes(model.SerializeToString())


def _is_weight(item: onnx.TensorProto) -> bool:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return item.data_type in kinds and int(np.prod(item.dims)) >= LEAST_WEIGHTS
