"""Raw tensors: the elements' bytes in row-major order, little endian; a BYTES element is a 4-byte length and its bytes.

HTTP's binary tensor extension and gRPC's raw contents carry the same bytes. Reading does not copy: the array is a
read-only view of the body, and it may be unaligned. Hosts are little endian; nothing here runs on others.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.domain.errors import InvalidRequest
from service.domain.tensors import DTYPES, element_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.domain.tensors import Tensor

_LENGTH: Final = struct.Struct("<I")


def decode_raw(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> NDArray[Any]:
    """Return the raw bytes of an input as an array of its shape; the datatype is known to exist.

    Raises:
        InvalidRequest: The shape is impossible, or the bytes are not exactly those of its elements.
    """
    count = element_count(shape, name)
    if datatype == "BYTES":
        return _decode_elements(name, count, memoryview(data)).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        message = (
            f"input '{name}' has {len(data)} bytes of data; "
            f"{datatype} of shape {list(shape)} takes {count * dtype.itemsize}"
        )
        raise InvalidRequest(message)
    array = np.frombuffer(data, dtype)
    if datatype == "BOOL" and array.view(np.uint8).max() > 1:
        raise InvalidRequest(f"input '{name}' has a BOOL byte above 1; allowed are 0 and 1")
    return array.reshape(shape)


def encode_raw(tensor: Tensor) -> bytes:
    """Return a tensor's elements as raw bytes."""
    if tensor.datatype != "BYTES":
        return tensor.data.tobytes()
    elements: list[bytes] = tensor.data.ravel().tolist()
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def _decode_elements(name: str, count: int, data: memoryview) -> NDArray[Any]:
    if count * _LENGTH.size > len(data):
        message = f"input '{name}' has {len(data)} bytes of data; {count} BYTES elements take at least {4 * count}"
        raise InvalidRequest(message)
    elements: list[bytes] = []
    offset, end = 0, len(data)
    for index in range(count):
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(data, offset)[0] if start <= end else end + 1
        if offset > end:
            raise InvalidRequest(f"input '{name}': element {index} runs past the end of the data of {end} bytes")
        elements.append(bytes(data[start:offset]))
    if offset != end:
        raise InvalidRequest(f"input '{name}' has {end - offset} bytes after its {count} elements")
    array = np.empty(count, np.object_)
    array[:] = elements
    return array
