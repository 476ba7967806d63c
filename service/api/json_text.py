"""Strictness that the JSON decoder lacks: depth, duplicate keys, and errors that say what is wrong.

msgspec reads JSON into typed structures and names the element that does not fit. Two mistakes pass it unseen: a key
given twice, where the last one silently wins, and nesting that is deep but below the interpreter's recursion limit in
a part that nobody reads. Both checks are built to cost next to nothing for honest requests: depth is looked at only
where a body has more than 100 opening brackets, and duplicates only where a body has more colons than keys were read.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from service.api.names import shown
from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_DEPTH: Final = 100
MAX_OBJECTS: Final = 8192

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_AT_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_NOT_NUMBERS: Final = (b"NaN", b"Inf", b"-Inf", b"nan", b"inf")
_PIECE: Final = 1 << 16


def check_structure(text: bytes) -> None:
    """Refuse JSON that is nested too deep or has too many objects, before anything is made of it.

    Memory stays within a small multiple of the text: it is looked at in pieces. Brackets inside strings do not count:
    without escaped quotes, a character is inside a string where the number of quotes before it is odd.

    Raises:
        InvalidRequest: The nesting is deeper than ``MAX_DEPTH``, or there are more than ``MAX_OBJECTS`` objects.
    """
    if _openings(text) <= MAX_DEPTH:
        return
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = objects = quotes = 0
    for start in range(0, len(text), _PIECE):
        piece = np.frombuffer(text, np.uint8, min(_PIECE, len(text) - start), start)
        counts = np.cumsum(piece == ord('"'), dtype=np.uint8) + np.uint8(quotes & 1)  # wraps, which keeps odd odd
        bare = np.where(counts & 1, 0, piece)
        quotes = int(counts[-1])
        objects += int(np.count_nonzero(bare == ord("{")))
        bare |= 0x20  # makes '[' a '{' and ']' a '}'
        depths = np.cumsum((bare == ord("{")).astype(np.int8) - (bare == ord("}")), dtype=np.int32) + depth
        if depths.max() > MAX_DEPTH:
            raise InvalidRequest(f"the JSON is nested more than {MAX_DEPTH} deep; at most {MAX_DEPTH} is allowed")
        if objects > MAX_OBJECTS:
            raise InvalidRequest(f"the JSON has more than {MAX_OBJECTS} objects; no inference request has so many")
        depth = int(depths[-1])


def _openings(text: bytes) -> int:
    """Return how many brackets open; of a long text in one pass, where counting each kind takes twice as long."""
    if len(text) <= _PIECE:
        return text.count(b"[") + text.count(b"{")
    found = 0
    for start in range(0, len(text), _PIECE):
        piece = np.frombuffer(text, np.uint8, min(_PIECE, len(text) - start), start)
        found += int(np.count_nonzero(piece | 0x20 == ord("{")))  # makes '[' a '{'
    return found


def check_no_duplicate_keys(text: bytes) -> None:
    """Refuse JSON with an object that has a key twice; slow, so call it only on suspicion.

    Raises:
        InvalidRequest: A key stands twice in one object.
    """
    json.loads(text, object_pairs_hook=_unique, parse_float=len, parse_int=len)


def read(decode: Callable[[Any], T], text: bytes | memoryview, what: str) -> T:
    """Return ``decode(text)``.

    Raises:
        InvalidRequest: The text is no JSON, or not the JSON that the decoder is typed for.
    """
    try:
        return decode(text)
    except (ValueError, RecursionError) as error:  # all of msgspec's errors, and broken UTF-8, are ValueErrors
        raise InvalidRequest(f"{what}: {explain(error, bytes(text))}") from None


def explain(error: Exception, text: bytes) -> str:
    """Return what is wrong with a JSON text, in words that help its author."""
    if isinstance(error, RecursionError):
        return f"nested more than {MAX_DEPTH} deep"
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    message = str(error)
    where = _AT_BYTE.search(message)
    if where is not None and text.startswith(_NOT_NUMBERS, int(where[1])):
        return f"NaN and infinities are no JSON numbers (byte {where[1]})"
    if "truncated" in message and _SURROGATE.search(text) is not None:
        return "a string holds a lone surrogate escape (\\ud800 to \\udfff)"
    return message


def _unique(pairs: list[tuple[str, object]]) -> None:
    keys = {key for key, _ in pairs}
    if len(keys) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the JSON has the key {shown(twice)} twice in one object")
