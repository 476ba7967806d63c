"""Damage to the weights of an ONNX file: bits that flip, as a bad disk, bad memory or a bad transfer leaves them.

Bits of float weights flip only below the exponent's top bit: that one makes numbers of 1e38, after which every answer
is the same, which is the easiest fault of all to notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_WEIGHTS: Final = 16
"""Smaller tensors are scales, shapes and zero points; the file would rather fail than be a little wrong."""
_FLOAT_BITS: Final = 30
_BYTE_BITS: Final = 8


def flip_bits(file: bytes, flips: int, seed: int) -> bytes:
    """Return the file with ``flips`` random bits of its weights inverted; fewer flips of a seed are among more.

    Raises:
        ValueError: It has no weights.
    """
    model = onnx.load_from_string(file)
    places, bits, chosen = (np.random.default_rng([seed, part]) for part in range(3))
    weights = [item for item in model.graph.initializer if _is_weight(item)]
    if not weights:
        raise ValueError(f"the file has no weights of at least {LEAST_WEIGHTS} float32 or 8-bit numbers to damage")
    arrays = [numpy_helper.to_array(item).copy() for item in weights]
    sizes = np.array([array.size for array in arrays])
    which = chosen.choice(len(arrays), flips, p=sizes / sizes.sum())
    where, bit = places.random(flips), bits.integers(_FLOAT_BITS * _BYTE_BITS, size=flips)
    for number, array in enumerate(arrays):
        _flip(array.reshape(-1), where[which == number], bit[which == number])
    for item, array in zip(weights, arrays, strict=True):
        item.CopyFrom(numpy_helper.from_array(array, item.name))
    return bytes(model.SerializeToString())


def _flip(flat: NDArray[Any], where: NDArray[np.float64], bit: NDArray[np.int64]) -> None:
    is_float = flat.dtype == np.float32
    words = flat.view(np.uint32 if is_float else np.uint8)
    masks = np.left_shift(1, bit % (_FLOAT_BITS if is_float else _BYTE_BITS)).astype(words.dtype)
    np.bitwise_xor.at(words, (where * len(words)).astype(np.int64), masks)


def _is_weight(item: onnx.TensorProto) -> bool:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return item.data_type in kinds and int(np.prod(item.dims)) >= LEAST_WEIGHTS
