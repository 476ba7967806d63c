"""Tensors as the Open Inference Protocol names them, held as numpy arrays.

Every protocol datatype has one numpy dtype here. Two need a word:

* ``BYTES`` is an object array of ``bytes``.
* ``BF16`` is a uint16 array of bit patterns, because numpy has no bfloat16; a backend that understands it reads
  the bits, and nothing else computes with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(np.object_),
}
"""Protocol datatype -> numpy dtype of the array that holds it."""

MAX_RANK: Final = 16
"""More dimensions than any model here has; a longer shape is a mistake or an attack."""

MAX_ELEMENTS: Final = 2**31
"""Products above this cannot be a real request; refusing them early keeps the arithmetic exact."""


@dataclass(slots=True, eq=False)
class Tensor:
    """One named tensor; ``data`` has the dtype of ``DTYPES[datatype]`` and the tensor's shape.

    It is made for each request, and so not frozen; nobody changes one.
    """

    name: str
    datatype: str
    data: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions, outermost (batch) first."""
        return self.data.shape


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model expects or returns under a name; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, tensor: Tensor, model: str) -> None:
        """Refuse a tensor that this input does not take.

        Raises:
            InvalidRequest: The datatype, the rank or a dimension differs, or an element of BYTES is not UTF-8.
        """
        if tensor.datatype != self.datatype:
            message = f"input '{self.name}' has datatype {tensor.datatype}; model '{model}' expects {self.datatype}"
            raise InvalidRequest(message)
        shape = tensor.data.shape
        if shape != self.shape and not self._fits(shape):
            message = f"input '{self.name}' has shape {list(shape)}; model '{model}' expects {list(self.shape)}"
            raise InvalidRequest(message)
        if self.datatype == "BYTES":
            _check_text(tensor)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if len(shape) != len(self.shape):
            return False
        for want, have in zip(self.shape, shape, strict=True):  # noqa: SIM110 - a generator costs more than the look
            if want not in (-1, have):
                return False
        return True


def _check_text(tensor: Tensor) -> None:
    # ONNX strings are UTF-8; found out inside the run it would look like the runtime's failure.
    for index, element in enumerate(tensor.data.ravel()):
        try:
            element.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"input '{tensor.name}' element {index} is not UTF-8: {error.reason}") from None


def dtype_of(datatype: str, tensor_name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a protocol datatype.

    Raises:
        InvalidRequest: The datatype is not one of the protocol's.
    """
    try:
        return DTYPES[datatype]
    except (KeyError, TypeError):
        message = f"tensor '{tensor_name}' has datatype {datatype!r}; allowed are {', '.join(sorted(DTYPES))}"
        raise InvalidRequest(message) from None


def element_count(shape: Iterable[int], tensor_name: str) -> int:
    """Return how many elements a shape taken from a request has.

    Raises:
        InvalidRequest: The shape has a dimension below 1, too many dimensions, or too many elements.
    """
    dims = list(shape)
    if 0 < len(dims) <= MAX_RANK and min(dims) >= 1 and (count := math.prod(dims)) <= MAX_ELEMENTS:
        return count
    if len(dims) > MAX_RANK:
        message = f"tensor '{tensor_name}' has {len(dims)} dimensions; at most {MAX_RANK} are allowed"
        raise InvalidRequest(message)
    for dim in dims:
        if dim < 1:
            message = f"tensor '{tensor_name}' has shape {dims}; every dimension must be at least 1"
            raise InvalidRequest(message)
    count = math.prod(dims)
    if count > MAX_ELEMENTS:
        message = f"tensor '{tensor_name}' has shape {dims}; more than {MAX_ELEMENTS} elements are not allowed"
        raise InvalidRequest(message)
    return count
