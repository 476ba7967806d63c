"""Long lists of numbers, cut out of a request's JSON before that is read.

To find where a tensor's data ends, a reader of JSON goes through it number by number; then it is read once more, as
what it is. So a long stretch between brackets, without a quote or a brace, is cut out first, and something short stands
in for it. Nothing is taken for granted by that: unless each stand-in is found again as the data of one input, in order,
and each list can be read as that, the request has to be read as it came, which tells what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

STAND_IN: Final = b"[33550336e-77]"
"""Whoever sends just this gets an answer too, from the request as it came."""

_LEAST_BYTES: Final = 1 << 14
_PIECE: Final = 1 << 16
_MOST_DEPTH: Final = 32
_MOST_LOOKS: Final = 64
"""For a list's end; a request with more quotes than that before its numbers is not looked through."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A request's JSON with stand-ins, and the texts of the lists for which they stand."""

    text: bytes
    lists: tuple[bytes, ...]


def cut_out(text: bytes) -> Cut | None:
    """Return the JSON without its long lists of numbers, ``None`` where it has none."""
    if len(text) <= _LEAST_BYTES:
        return None
    rest: list[bytes] = []
    lists: list[bytes] = []
    kept = place = 0
    quote, view = -1, memoryview(text)  # a slice of it copies nothing
    for _ in range(_MOST_LOOKS):
        start = text.find(b"[", place)
        if start < 0:
            break
        if quote < start:
            quote = text.find(b'"', start)
            quote = len(text) if quote < 0 else quote
        brace = text.find(b"}", start, quote)
        place = quote if brace < 0 else brace
        end = text.rfind(b"]", start, place) + 1
        if end - start <= _LEAST_BYTES:
            continue
        found = bytes(view[start:end])
        if _is_tidy(found):
            rest += (text[kept:start], STAND_IN)
            lists.append(found)
            kept = end
    if not lists or any(STAND_IN in part for part in (*rest[::2], text[kept:])):
        return None
    return Cut(b"".join([*rest, text[kept:]]), tuple(lists))


def _is_tidy(text: bytes) -> bool:
    """Tell whether nothing but commas stands between the lists of a list, as whoever reads nested data relies on.

    Deep nesting is not tidy either. It is looked at in pieces, so that memory stays small.
    """
    if text.find(b"[", 1) < 0:
        return True
    if b"[" * _MOST_DEPTH in text:
        return False
    for start in range(0, len(text) - 1, _PIECE):
        piece = np.frombuffer(text, np.uint8, min(_PIECE + 2, len(text) - start), start)
        opens = piece == ord("[")
        closes, commas = piece == ord("]"), piece == ord(",")
        may_open = opens[1:-1] | commas[1:-1] | ((piece[1:-1] == ord(" ")) & commas[:-2])
        may_close = closes[1:] | commas[1:]
        if (opens[2:] & ~may_open).any() or (closes[:-1] & ~may_close).any():
            return False
    return True
