"""Counting put off: what happens is only written down, as a row of numbers, and counted in batches or at a scrape.

Counting an event where it happens costs more than its instructions: some thirty pieces of memory are touched that a
request has pushed out of the processor's nearest cache, and events kept as objects until they are counted push out
others and wake the garbage collector. A row is one copy of some tens of bytes to the end of what was written last. The
counting of many rows is numpy's, which takes a tenth of the time for each.

Noting needs no lock, from whatever thread: the copy is one call that the interpreter does not interrupt.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.float64]  # (events, width)

_MOST: Final = 512
"""So many rows are counted at once, in about a tenth of a millisecond."""


class Later:
    """Events that are to be counted, each a row of ``width`` numbers; they may be noted from any thread."""

    __slots__ = ("_count", "_lock", "_most_bytes", "_noted", "_pack", "_width")

    def __init__(self, width: int, count: Callable[[Rows], None]) -> None:
        """Keep what counts rows, in the order in which they were noted; it is called by one thread at a time."""
        self._count = count
        self._width = width
        self._pack = struct.Struct(f"{width}d").pack
        self._most_bytes = _MOST * width * np.dtype(np.float64).itemsize
        self._noted = bytearray()
        self._lock = threading.Lock()

    def note(self, *row: float) -> None:
        """Note an event, and count when many have gathered."""
        noted = self._noted
        noted += self._pack(*row)
        if len(noted) >= self._most_bytes:
            self.settle()

    def settle(self) -> None:
        """Count what is noted so far."""
        with self._lock:
            # Others note meanwhile: only so much is taken as is there now.
            size = len(self._noted)
            rows, self._noted[:size] = self._noted[:size], b""
            if rows:
                self._count(np.frombuffer(rows).reshape(-1, self._width))


def by_code(rows: Rows) -> list[tuple[int, Rows]]:
    """Return the rows without their first number, by that number, a whole one that tells what they are about."""
    codes: NDArray[Any] = rows[:, 0]
    return [(int(code), rows[codes == code, 1:]) for code in np.unique(codes)]
