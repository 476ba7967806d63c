"""The packed form of an ONNX file: few weights, few distinct values, entropy-coded; unpacked to the very same bytes.

A file whose weights are mostly zeros, the rest one of some dozen values, holds little information, and nothing is
gained by it at run time: ONNX Runtime multiplies zeros as it does anything else. What it saves is the way from disk or
network. The three stages are those of Han, Mao, Dally 2016 ("Deep Compression": prune, share values, entropy-code)::

    literal    everything of the file but the cut-out weights
    gaps       how many zeros stand before each other weight, in bytes; 255 says "255 zeros, no weight yet"
    symbols    which value of its tensor's codebook each weight has, in bytes
    codebook   the values, float32

each coded by LZMA, whose adaptive range coder comes within a few per cent of the entropy of such streams (Huffman
codes, the paper's, lose up to half a bit a symbol more). The weights' order is the file's.

Unpacking needs numpy and the standard library, reads no pickle, and asks for no more memory than the size that its
caller allows: every count is checked against it before anything is set aside, and a stream that yields more than it
says is refused. The result is ONNX protobuf again, because only the raw bytes of tensors are cut out.
"""

from __future__ import annotations

import json
import lzma
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAGIC: Final = b"tiergate packed 1\n"
STREAMS: Final = ("literal", "gaps", "symbols", "codebook")
SKIP: Final = 255
MOST_VALUES: Final = 256
FLOAT_BYTES: Final = 4
MOST_HEADER_BYTES: Final = 2**20
DICTIONARY_BYTES: Final = 2**20
_LENGTH: Final = struct.Struct("<I")


class PackedError(ValueError):
    """Bytes are not the packed form of a file, or of a larger one than allowed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Weights cut out of a file: where their float32 bytes begin, and each one's value by its place in ``codebook``.

    ``symbols`` (count,) are -1 for zeros; ``codebook`` (at most 256,) holds the other values.
    """

    at: int
    symbols: NDArray[np.int64]
    codebook: NDArray[np.float32]


def pack(file: bytes, cuts: Sequence[Cut]) -> bytes:
    """Return the packed form of ``file``; ``cuts`` are in the file's order and do not overlap."""
    literal, at = bytearray(), 0
    for cut in cuts:
        literal += file[at : cut.at]
        at = cut.at + FLOAT_BYTES * len(cut.symbols)
    literal += file[at:]
    symbols = np.concatenate([cut.symbols for cut in cuts]) if cuts else np.zeros(0, np.int64)
    streams = {
        "literal": bytes(literal),
        "gaps": _gaps(np.flatnonzero(symbols >= 0)).tobytes(),
        "symbols": symbols[symbols >= 0].astype(np.uint8).tobytes(),
        "codebook": b"".join(cut.codebook.astype("<f4").tobytes() for cut in cuts),
    }
    coded = {name: lzma.compress(streams[name], lzma.FORMAT_RAW, filters=_filters()) for name in STREAMS}
    header = {
        "bytes": len(file),
        "streams": [[len(streams[name]), len(coded[name])] for name in STREAMS],
        "tensors": [[cut.at, len(cut.symbols), int((cut.symbols >= 0).sum()), len(cut.codebook)] for cut in cuts],
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([MAGIC, _LENGTH.pack(len(head)), head, *coded.values()])


def unpack(data: bytes, most_bytes: int) -> bytes:
    """Return the file that was packed, of at most ``most_bytes``.

    Raises:
        PackedError: The bytes are not a packed file, are damaged, or hold a larger one.
    """
    try:
        plan, streams = _read(data, most_bytes)
        weights = _weights(plan, streams)
        return _splice(plan, streams["literal"], weights)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error, lzma.LZMAError) as error:
        raise PackedError(f"not a packed file that can be read: {error}") from None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the header says: ``tensors`` (tensors, 4) hold offset, count, weights other than zero, and values."""

    size: int
    tensors: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.tensors[:, 1].sum())


def _read(data: bytes, most_bytes: int) -> tuple[_Plan, dict[str, bytes]]:
    if not data.startswith(MAGIC):
        raise ValueError("it does not begin as one does")
    start = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes; {MOST_HEADER_BYTES} are allowed")
    header: dict[str, Any] = json.loads(data[start : start + length])
    tensors = np.array(header["tensors"], np.int64).reshape(-1, 4)
    plan = _Plan(int(header["bytes"]), tensors)
    sizes = np.array(header["streams"], np.int64).reshape(len(STREAMS), 2)
    _check(plan, dict(zip(STREAMS, sizes[:, 0].tolist(), strict=True)), most_bytes)
    streams, at = {}, start + length
    for name, (plain, coded) in zip(STREAMS, sizes.tolist(), strict=True):
        streams[name] = _decode(data[at : at + coded], plain)
        at += coded
    return plan, streams


def _check(plan: _Plan, sizes: dict[str, int], most_bytes: int) -> None:
    """Refuse counts that contradict each other or the size allowed, before memory is set aside for them."""
    if not 0 <= plan.size <= most_bytes:
        raise ValueError(f"it holds {plan.size} bytes; {most_bytes} are allowed")
    tensors = plan.tensors
    if (tensors < 0).any() or (tensors > plan.size).any() or (tensors[:, 2] > tensors[:, 1]).any():
        raise ValueError("a tensor is larger than the file")
    ends = tensors[:, 0] + FLOAT_BYTES * tensors[:, 1]
    if (tensors[1:, 0] < ends[:-1]).any() or (ends > plan.size).any() or (tensors[:, 3] > MOST_VALUES).any():
        raise ValueError("tensors overlap, or have too many values")
    wanted = {
        "literal": plan.size - FLOAT_BYTES * plan.total,
        "symbols": int(tensors[:, 2].sum()),
        "codebook": FLOAT_BYTES * int(tensors[:, 3].sum()),
    }
    if any(sizes[name] != size for name, size in wanted.items()) or not 0 <= sizes["gaps"] <= 2 * plan.total + 1:
        raise ValueError(f"streams of {sizes}; expected {wanted}")


def _decode(coded: bytes, size: int) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters())
    plain = decoder.decompress(coded, max_length=size + 1)
    if len(plain) != size:
        raise ValueError(f"a stream of {len(plain)} bytes; {size} were promised")
    return plain


def _weights(plan: _Plan, streams: dict[str, bytes]) -> NDArray[np.float32]:
    """Return all weights (total,), tensor after tensor."""
    gaps = np.frombuffer(streams["gaps"], np.uint8)
    steps = np.where(gaps == SKIP, SKIP, gaps.astype(np.int64) + 1)
    places = (np.cumsum(steps) - 1)[gaps != SKIP]
    symbols = np.frombuffer(streams["symbols"], np.uint8).astype(np.int64)
    counts, values = plan.tensors[:, 2], plan.tensors[:, 3]
    if len(places) != len(symbols) or (symbols >= np.repeat(values, counts)).any():
        raise ValueError("weights without a place or a value")
    first = np.repeat(np.cumsum(values) - values, counts)
    result = np.zeros(plan.total, "<f4")
    result[places] = np.frombuffer(streams["codebook"], "<f4")[symbols + first]
    return result


def _splice(plan: _Plan, literal: bytes, weights: NDArray[np.float32]) -> bytes:
    parts, at, taken, used = [], 0, 0, 0
    for start, count in plan.tensors[:, :2].tolist():
        parts += [literal[taken : taken + start - at], weights[used : used + count].tobytes()]
        taken, used, at = taken + start - at, used + count, start + FLOAT_BYTES * count
    return b"".join([*parts, literal[taken:]])


def _gaps(places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the distances of ascending ``places`` as bytes."""
    before = np.diff(places, prepend=-1) - 1  # zeros before each weight
    skips = before // SKIP
    gaps = np.full(int(skips.sum()) + len(places), SKIP, np.uint8)
    gaps[np.cumsum(skips + 1) - 1] = before - SKIP * skips
    return gaps


def _filters() -> list[dict[str, Any]]:
    """Return what LZMA is told: bytes without a context, as one says nothing of the next."""
    return [{"id": lzma.FILTER_LZMA2, "dict_size": DICTIONARY_BYTES, "lc": 0, "lp": 0, "pb": 0, "preset": 9}]
