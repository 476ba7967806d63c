"""Where the messages of a gRPC body begin and end, followed piece by piece without keeping the pieces."""

from __future__ import annotations

from typing import Final

_PREFIX_BYTES: Final = 5


class MessageEdges:
    """Follows one body; ``unfinished_bytes`` is how much has come of a message that is not whole yet."""

    __slots__ = ("_left", "_prefix", "unfinished_bytes")

    def __init__(self) -> None:
        """Stand before the first message."""
        self.unfinished_bytes = 0
        self._prefix = b""
        self._left = 0

    def pass_over(self, piece: bytes) -> bool:
        """Follow the next piece; tell whether a message ended or began in it."""
        start, end, has_edge = 0, len(piece), False
        while start < end:
            has_edge = has_edge or not self.unfinished_bytes
            step = min(end - start, self._left or _PREFIX_BYTES - len(self._prefix))
            if self._left:
                self._left -= step
            else:
                self._prefix += piece[start : start + step]
                if len(self._prefix) == _PREFIX_BYTES:
                    self._left = int.from_bytes(self._prefix[1:], "big")
            start, self.unfinished_bytes = start + step, self.unfinished_bytes + step
            if not self._left and len(self._prefix) == _PREFIX_BYTES:
                self._prefix, self.unfinished_bytes, has_edge = b"", 0, True
        return has_edge
