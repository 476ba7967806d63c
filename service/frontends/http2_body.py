"""A call's message as it comes, in frames of any size, gathered in one block of memory.

Half a megabyte comes in dozens of frames, so what is done for each of them counts, and every copy of the whole counts
as much as a small model. A message begins with its length: room for it is taken at once, and each piece is copied to
where it stays. Room costs address space, not memory: what was not written yet was not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX_BYTES: Final = 5
_MOST_ROOM_BYTES: Final = 1 << 20
"""Taken for what a message says that it will be; larger ones get more room as they come."""


class Body:
    """What has come of one message and its prefix: ``size`` bytes, in room for ``room_bytes``."""

    __slots__ = ("_room", "said_bytes", "size")

    def __init__(self) -> None:
        """Begin with nothing, and without room; ``said_bytes`` is what it says that it will be, 0 while unknown."""
        self.size = self.said_bytes = 0
        self._room = memoryview(bytearray())

    @property
    def room_bytes(self) -> int:
        """How much memory is taken."""
        return len(self._room)

    def add(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Copy the next pieces behind the others."""
        end = self.size + sum(map(len, pieces))
        if end > len(self._room):
            self._widen(end, pieces)
        room, start = self._room, self.size
        for piece in pieces:
            stop = start + len(piece)
            room[start:stop] = piece
            start = stop
        self.size = end

    def whole(self) -> memoryview:
        """Return all that has come, where nothing more will."""
        return self._room[: self.size]

    def _widen(self, least: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Make room for ``least`` bytes, and for more by doubling, but for no more than the message says it will be."""
        if not self.said_bytes and least >= _PREFIX_BYTES:
            begin = bytes(self._room[: min(self.size, _PREFIX_BYTES)])
            for piece in pieces:
                if len(begin) == _PREFIX_BYTES:
                    break
                begin += piece[: _PREFIX_BYTES - len(begin)]
            self.said_bytes = _PREFIX_BYTES + int.from_bytes(begin[1:], "big")
        more = 2 * self.size
        if self.said_bytes >= least:
            more = min(self.said_bytes, max(more, _MOST_ROOM_BYTES))
        room = np.empty(max(least, more), np.uint8).data
        room[: self.size] = self._room[: self.size]
        self._room = room
