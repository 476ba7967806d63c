"""What comes on an HTTP/2 connection, cut into frames.

Frames are handed on when they are whole, DATA as it comes: a body of half a megabyte is read in a few pieces that end
anywhere in a frame, and to wait for the rest of each would copy all of it twice more. DATA frames of one stream that
follow each other are handed on together, for such a body has dozens.
"""

from __future__ import annotations

from typing import Final, Protocol

from service.frontends import http2_frames as wire
from service.frontends.http2_frames import NUMBER_MASK, Http2Error

FRAME_SIZE: Final = 1 << 18
MOST_COPIED_BYTES: Final = 4096
"""No more than that is copied out of the buffer that it was read into: slices of it cost less than views."""


class Taker(Protocol):
    """Who takes the frames of one connection."""

    def is_closing(self) -> bool:
        """Tell whether no more frames are wanted."""
        ...

    def take_data(self, number: int, pieces: list[bytes | memoryview], size: int, *, is_end: bool) -> None:
        """Take what came of a stream's body, which nothing may keep; ``size`` is what it took of the windows.

        ``is_end`` tells that it is the last, and whole.
        """
        ...

    def take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take any other frame."""
        ...


class Cutter:
    """Cuts one connection's bytes; ``half_since_s`` is since when it waits for the rest of something, if it does."""

    __slots__ = ("_buffer", "_needed", "_part", "_part_left", "half_since_s", "has_preface")

    def __init__(self, now_s: float) -> None:
        """Wait for the preface."""
        self.has_preface = False
        self.half_since_s: float | None = now_s
        self._buffer = bytearray()
        self._needed = len(wire.PREFACE)
        self._part = False, 0  # of the DATA frame that is coming: whether it ends its stream, and which that is
        self._part_left = 0

    def feed(self, data: bytes | memoryview, taker: Taker, now_s: float) -> None:
        """Hand on what is complete with the next bytes, which may be overwritten afterwards.

        Raises:
            Http2Error: They are not HTTP/2, or a frame is too large; or what the taker raises.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        start = self._go_on(data, taker) if self._part_left else 0
        if self._part_left:
            return
        if not self.has_preface:
            start = self._read_preface(data)
        if self.has_preface:
            start = self._cut(data, start, taker)
            self.half_since_s = now_s if start < len(data) or self._part_left else None
        if start < len(data):
            self._buffer += data[start:]

    def _read_preface(self, data: bytes | memoryview) -> int:
        begin = bytes(data[: len(wire.PREFACE)])
        if not wire.PREFACE.startswith(begin):
            raise Http2Error(wire.PROTOCOL_ERROR, "what came is not HTTP/2, which gRPC speaks")
        self.has_preface = len(begin) == len(wire.PREFACE)
        return len(begin) if self.has_preface else 0

    def _cut(self, data: bytes | memoryview, start: int, taker: Taker) -> int:
        """Hand on all that can be; return where the rest begins, which has to grow to ``_needed`` bytes."""
        end, head_bytes = len(data), wire.FRAME_HEAD.size
        while end - start >= head_bytes and not taker.is_closing():
            high, low, kind, flags, number = wire.FRAME_HEAD.unpack_from(data, start)
            length, number = high << 8 | low, number & NUMBER_MASK
            if length > FRAME_SIZE:
                raise Http2Error(wire.FRAME_SIZE_ERROR, f"a frame has {length} bytes; at most {FRAME_SIZE} are taken")
            stop = start + head_bytes + length
            if kind == wire.DATA and not flags & wire.PADDED:
                start = self._cut_data(data, start, taker)
                continue
            if stop > end:
                self._needed = head_bytes + length
                return start
            payload = bytes(data[start + head_bytes : stop])
            if kind == wire.DATA:
                content = wire.unpad(payload, wire.PADDED)
                taker.take_data(number, [content], length, is_end=bool(flags & wire.END_STREAM))
            else:
                taker.take_frame(kind, flags, number, payload)
            start = stop
        self._needed = head_bytes
        return start

    def _cut_data(self, data: bytes | memoryview, start: int, taker: Taker) -> int:
        """Hand on a DATA frame and those of its stream behind it, or what there is of them; return where they end."""
        end, head_bytes, unpack = len(data), wire.FRAME_HEAD.size, wire.FRAME_HEAD.unpack_from
        view = data if end <= MOST_COPIED_BYTES else memoryview(data)
        pieces: list[bytes | memoryview] = []
        size, number, is_end = 0, -1, False
        while end - start >= head_bytes and not is_end and not self._part_left:
            high, low, kind, flags, other = unpack(data, start)
            length = high << 8 | low
            if number < 0:
                number = other
            elif other != number or kind != wire.DATA or flags & wire.PADDED or not length or length > FRAME_SIZE:
                break
            begin = start + head_bytes
            start, is_end = begin + length, bool(flags & wire.END_STREAM)
            if start > end:
                self._part, self._part_left = (is_end, number & NUMBER_MASK), start - end
                start, is_end = end, False
            if start > begin:
                pieces.append(view[begin:start])
                size += start - begin
        if pieces or not self._part_left:
            taker.take_data(number & NUMBER_MASK, pieces, size, is_end=is_end)
        return start

    def _go_on(self, data: bytes | memoryview, taker: Taker) -> int:
        """Hand on what has come of the DATA frame that is under way; return where it ends, or the data does."""
        (is_end, number), size = self._part, min(self._part_left, len(data))
        self._part_left -= size
        taker.take_data(number, [memoryview(data)[:size]], size, is_end=is_end and not self._part_left)
        return size
