"""What one HTTP/2 connection may ask of us: frames that carry nothing, and bytes that nobody has read yet.

Bytes are *held* from when they come until nobody keeps them here: those of a half message until it is whole, those of
whole messages of a stream until the application has read them. Half messages have a bound, because only their client
can end them: one that goes over it is refused. Whole ones wait for us, so the client is held back instead: its window
stays closed while too much waits.
"""

from __future__ import annotations

from typing import Final

from service.frontends import http2_frames as wire
from service.frontends.http2_frames import Http2Error

CONNECTION_WINDOW: Final = 1 << 24
MOST_UNREAD_BYTES: Final = 1 << 24
"""Of streams' messages, before the connection's window stays closed; as much again may be under way."""
_MOST_HALF_BYTES: Final = 1 << 26
"""Of messages that are not whole yet, besides the largest one that is allowed and what may be unread."""
_CALM: Final = 2000.0
"""Frames that carry nothing, or take back what was sent, which a connection may send in one go."""
_CALM_PER_S: Final = 50.0
_CALM_PER_ANSWER: Final = 20.0
_CALM_PER_BYTE: Final = 1 / 4096
"""For what left piece by piece, as the client's windows let it: who reads a long stream has to send many updates."""


class Calm:
    """How many frames that carry no request a client may still send; moments in seconds on one clock."""

    __slots__ = ("_left", "_moment_s")

    def __init__(self, now_s: float) -> None:
        """Start with all of it."""
        self._left, self._moment_s = _CALM, now_s

    def spend(self, now_s: float) -> None:
        """Count such a frame.

        Raises:
            Http2Error: There were too many.
        """
        self._left = min(_CALM, self._left + (now_s - self._moment_s) * _CALM_PER_S) - 1.0
        self._moment_s = now_s
        if self._left < 0:
            raise Http2Error(wire.ENHANCE_YOUR_CALM, "the connection has sent too many frames that carry no request")

    def earn(self, *, answers: int = 0, sent_bytes: int = 0) -> None:
        """Allow more, for answers and for bytes of them that the client will make room for again."""
        self._left = min(_CALM, self._left + answers * _CALM_PER_ANSWER + sent_bytes * _CALM_PER_BYTE)


class Intake:
    """The bytes that came on one connection: ``held_bytes`` of all its calls, ``unread_bytes`` of them wait for us."""

    __slots__ = ("_unacknowledged", "held_bytes", "most_held_bytes", "unread_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        """Hold nothing."""
        self.held_bytes = self.unread_bytes = self._unacknowledged = 0
        self.most_held_bytes = max_message_bytes + _MOST_HALF_BYTES + MOST_UNREAD_BYTES + CONNECTION_WINDOW

    @property
    def is_over(self) -> bool:
        """Whether the connection holds more than it may."""
        return self.held_bytes > self.most_held_bytes

    def grant(self, size: int = 0) -> int:
        """Count ``size`` more bytes that came; return by how much the connection's window should be opened now."""
        self._unacknowledged += size
        if self._unacknowledged <= CONNECTION_WINDOW // 2 or self.unread_bytes > MOST_UNREAD_BYTES:
            return 0
        step, self._unacknowledged = self._unacknowledged, 0
        return step
