"""Damage to the weights of an ONNX file: bits that flip, as a bad disk, bad memory or a bad transfer leaves them.

Bits of float weights flip only below the exponent's top bit: that one makes numbers of 1e38, after which every answer
is the same, which is the easiest fault of all to notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from variants.runtime import run_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LEAST_WEIGHTS: Final = 16
"""Smaller tensors are scales, shapes and zero points; the file would rather fail than be a little wrong."""
_KINDS: Final[dict[int, tuple[type[np.unsignedinteger[Any]], int]]] = {
    onnx.TensorProto.FLOAT: (np.uint32, 30),
    onnx.TensorProto.FLOAT16: (np.uint16, 14),
    onnx.TensorProto.INT8: (np.uint8, 8),
    onnx.TensorProto.UINT8: (np.uint8, 8),
}
"""As what a weight's bits are read, and how many of them flip; weights of four bits are stored in pairs, as uint8."""
_ANY_BIT: Final = 240
"""A multiple of 30 and of 8, and nearly one of 14, so that each bit is as likely as another."""
_TRIES: Final = 14
_FIRST_FLIPS: Final = 64
_LARGEST: Final = 1e6


class NoWeights(ValueError):
    """A file has no weights that could be damaged."""


@dataclass(slots=True)
class Damaged:
    """A file under more and more flips of one seed, asked for ``inputs`` (rows, ...) that have ``labels`` (rows,).

    What a number of flips leaves of the accuracy is computed once.
    """

    file: bytes
    seed: int
    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    _left: dict[int, float] = field(default_factory=dict)

    def answers(self, flips: int) -> Floats:
        """Return what it answers after so many flips, (rows, classes), all of it finite.

        Raises:
            NoWeights: There is nothing to damage.
        """
        output = run_logits(flip_bits(self.file, flips, self.seed), self.inputs)
        return np.nan_to_num(output, posinf=_LARGEST, neginf=-_LARGEST)

    def flips_to(self, accuracy: float, near: float) -> int:
        """Return how many flips leave about this accuracy, by doubling and halving; 0 if none do.

        Raises:
            NoWeights: There is nothing to damage.
        """
        low, high, flips = 0, 0, _FIRST_FLIPS
        for _ in range(_TRIES):
            left = self._accuracy(flips)
            if abs(left - accuracy) <= near:
                return flips
            low, high = (flips, high) if left > accuracy else (low, flips)
            flips = 4 * flips if high == 0 else (low + high) // 2
        return 0

    def _accuracy(self, flips: int) -> float:
        if flips not in self._left:
            self._left[flips] = float((self.answers(flips).argmax(1) == self.labels).mean())
        return self._left[flips]


def flip_bits(file: bytes, flips: int, seed: int) -> bytes:
    """Return the file with ``flips`` random bits of its weights inverted; fewer flips of a seed are among more.

    Raises:
        NoWeights: There is nothing to damage.
    """
    model = onnx.load_from_string(file)
    places, bits, chosen = (np.random.default_rng([seed, part]) for part in range(3))
    weights = [item for item in model.graph.initializer if _is_weight(item)]
    if not weights:
        raise NoWeights(f"the file has no weights of at least {LEAST_WEIGHTS} float32, float16 or 8-bit numbers")
    arrays = [numpy_helper.to_array(item).copy() for item in weights]
    sizes = np.array([array.size for array in arrays])
    which = chosen.choice(len(arrays), flips, p=sizes / sizes.sum())
    where, bit = places.random(flips), bits.integers(_ANY_BIT, size=flips)
    for number, (item, array) in enumerate(zip(weights, arrays, strict=True)):
        _flip(array.reshape(-1), item.data_type, where[which == number], bit[which == number])
        item.CopyFrom(numpy_helper.from_array(array, item.name))
    return bytes(model.SerializeToString())


def _flip(flat: NDArray[Any], kind: int, where: NDArray[np.float64], bit: NDArray[np.int64]) -> None:
    form, bits = _KINDS[kind]
    words = flat.view(form)
    masks = np.left_shift(1, bit % bits).astype(form)
    np.bitwise_xor.at(words, (where * len(words)).astype(np.int64), masks)


def _is_weight(item: onnx.TensorProto) -> bool:
    return item.data_type in _KINDS and int(np.prod(item.dims)) >= LEAST_WEIGHTS
