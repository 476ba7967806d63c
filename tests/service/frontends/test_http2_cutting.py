"""Frames come out of the cutter as they went in, wherever the reads end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.frontends import http2_frames as wire
from service.frontends.http2_cutting import FRAME_SIZE, Cutter
from service.frontends.http2_frames import Http2Error, frame, number_frame

FRAMES = [
    (wire.SETTINGS, 0, 0, bytes(12)),
    (wire.HEADERS, wire.END_HEADERS, 1, b"h" * 40),
    (wire.DATA, 0, 1, b"a" * 5000),
    (wire.DATA, wire.END_STREAM, 3, b"b" * 100),
    (wire.DATA, wire.PADDED, 1, b"\x03c" + bytes(3)),
    (wire.DATA, 0, 1, b""),
    (wire.PING, 0, 0, bytes(8)),
    (wire.DATA, wire.END_STREAM, 1, b"d" * 20_000),
    (wire.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
]
STREAM = wire.PREFACE + b"".join(frame(*one) for one in FRAMES)


class Taken:
    """Keeps what is handed on, until it is ``most`` pieces."""

    def __init__(self, most: int = 1000) -> None:
        self.pieces: list[tuple[int, int, int, bytes]] = []
        self.sizes: list[int] = []
        self._most = most

    def is_closing(self) -> bool:
        return len(self.pieces) >= self._most

    def take_data(self, number: int, pieces: list[bytes | memoryview], size: int, *, is_end: bool) -> None:
        self.sizes.append(size)
        self.pieces.append((wire.DATA, int(is_end), number, b"".join(pieces)))

    def take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self.pieces.append((kind, flags, number, payload))


def body(pieces: list[tuple[int, int, int, bytes]], stream: int) -> bytes:
    return b"".join(piece[3] for piece in pieces if piece[0] == wire.DATA and piece[2] == stream)


SENT = {1: b"a" * 5000 + b"c" + b"d" * 20_000, 3: b"b" * 100}


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_the_same_wherever_the_reads_end(cuts: list[int]) -> None:
    taken, cutter = Taken(), Cutter(0.0)
    ends = [*sorted(cuts), len(STREAM)]
    for start, end in zip([0, *ends], ends, strict=False):
        if end > start:
            cutter.feed(STREAM[start:end], taken, 1.0)
    others = [piece for piece in taken.pieces if piece[0] != wire.DATA]
    assert others == [one for one in FRAMES if one[0] != wire.DATA]
    assert sum(taken.sizes) == sum(len(one[3]) for one in FRAMES if one[0] == wire.DATA)
    assert {stream: body(taken.pieces, stream) for stream in SENT} == SENT
    last = [piece for piece in taken.pieces if piece[0] == wire.DATA and piece[1] & wire.END_STREAM]
    assert [piece[2] for piece in last] == [3, 1]
    assert taken.pieces[-2] == last[-1]
    assert cutter.half_since_s is None


def test_frames_are_the_same_when_every_byte_comes_alone() -> None:
    taken, cutter = Taken(most=10**6), Cutter(0.0)
    for index in range(len(STREAM)):
        cutter.feed(STREAM[index : index + 1], taken, 1.0)
    assert {stream: body(taken.pieces, stream) for stream in SENT} == SENT
    assert taken.pieces[-1] == FRAMES[-1]


def test_data_is_handed_on_before_its_frame_is_whole() -> None:
    taken, cutter = Taken(), Cutter(0.0)
    cutter.feed(wire.PREFACE + frame(wire.DATA, wire.END_STREAM, 1, b"abcdef")[:-2], taken, 1.0)
    assert taken.pieces == [(wire.DATA, 0, 1, b"abcd")]
    cutter.feed(b"ef", taken, 2.0)
    assert taken.pieces[1:] == [(wire.DATA, wire.END_STREAM, 1, b"ef")]


def test_time_of_what_is_not_whole_goes_on_until_it_is() -> None:
    data = frame(wire.DATA, 0, 1, bytes(100))
    ping = frame(wire.PING, 0, 0, bytes(8))
    reads = [wire.PREFACE[:5], wire.PREFACE[5:], data[:20], data[20:40], data[40:] + ping[:10], b"\0"]
    taken, cutter, since = Taken(), Cutter(0.5), []
    for number, read in enumerate(reads, 1):
        cutter.feed(read, taken, float(number))
        since.append(cutter.half_since_s)
    assert since == [0.5, None, 3.0, 3.0, 5.0, 5.0]


def test_frames_of_one_stream_are_handed_on_together() -> None:
    taken = Taken()
    parts = [frame(wire.DATA, 0, 1, b"ab"), frame(wire.DATA, 0, 1, b"cd"), frame(wire.DATA, wire.END_STREAM, 1, b"ef")]
    Cutter(0.0).feed(wire.PREFACE + b"".join(parts) + frame(wire.DATA, 0, 1, b""), taken, 1.0)
    assert taken.pieces == [(wire.DATA, 1, 1, b"abcdef"), (wire.DATA, 0, 1, b"")]


def test_frames_that_carry_nothing_are_handed_on_one_by_one() -> None:
    taken = Taken()
    Cutter(0.0).feed(wire.PREFACE + frame(wire.DATA, 0, 1, b"a") + frame(wire.DATA, 0, 1) * 3, taken, 1.0)
    assert taken.sizes == [1, 0, 0, 0]


def test_nothing_is_handed_on_to_who_is_closing() -> None:
    taken, cutter = Taken(most=1), Cutter(0.0)
    cutter.feed(wire.PREFACE + number_frame(wire.WINDOW_UPDATE, 0, 1) * 3, taken, 1.0)
    assert len(taken.pieces) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n", wire.PROTOCOL_ERROR),
        (wire.PREFACE + wire.FRAME_HEAD.pack(FRAME_SIZE + 1 >> 8, FRAME_SIZE + 1 & 0xFF, 0, 0, 1), 6),
    ],
    ids=["HTTP/1.1", "frame too large"],
)
def test_what_cannot_be_cut_is_an_error(data: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        Cutter(0.0).feed(data, Taken(), 1.0)
    assert caught.value.code == code
