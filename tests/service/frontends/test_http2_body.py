from __future__ import annotations

import pytest

from service.frontends.http2_body import Body

MESSAGE = b"\0" + (300_000).to_bytes(4, "big") + bytes(index % 251 for index in range(300_000))


@pytest.mark.parametrize("step", [1009, 16_384, 100_000, len(MESSAGE)])
def test_body_is_all_that_was_added(step: int) -> None:
    body = Body()
    for start in range(0, len(MESSAGE), step):
        piece = bytearray(MESSAGE[start : start + step])
        body.add([memoryview(piece)[:500], memoryview(piece)[500:]])
        piece[:] = bytes(len(piece))  # nothing of it may be kept
    assert bytes(body.whole()) == MESSAGE


def test_room_is_taken_once_for_what_the_message_says_that_it_is() -> None:
    body = Body()
    body.add([MESSAGE[:100]])
    assert (body.size, body.room_bytes) == (100, len(MESSAGE))
    body.add([MESSAGE[100:]])
    assert body.room_bytes == len(MESSAGE)


@pytest.mark.parametrize("begin", [b"\0\xff\xff\xff\xff", b"\1\xff\xff\xff\xffabc", b"\0\xff"])
def test_what_a_message_says_takes_no_more_than_a_mebibyte(begin: bytes) -> None:
    body = Body()
    body.add([begin])
    assert body.room_bytes <= 1 << 20
    body.add([bytes(2 << 20)])
    assert body.room_bytes <= 2 * body.size
    assert bytes(body.whole()) == begin + bytes(2 << 20)


def test_body_may_begin_with_nothing() -> None:
    body = Body()
    for pieces in ([], [b""], [MESSAGE[:3]], [b"", MESSAGE[3:]]):
        body.add(pieces)
    assert bytes(body.whole()) == MESSAGE


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_long_message_takes_no_more_room_than_it_says_and_is_copied_a_few_times_only(cut: int) -> None:
    size, step = 9 << 20, 1 << 16
    body, rooms = Body(), set()
    begin = b"\0" + size.to_bytes(4, "big")
    for piece in (begin[:cut], begin[cut:]):
        body.add([piece])
    for _ in range(size // step):
        body.add([bytes(step)])
        rooms.add(body.room_bytes)
    assert max(rooms) == size + 5
    assert (len(rooms) <= 6, body.said_bytes) == (True, size + 5)


@pytest.mark.parametrize("begin", [b"\0\0", b"\0\0\0\0\1"], ids=["cut off", "too small"])
def test_room_doubles_where_the_message_does_not_say_how_long_it_is(begin: bytes) -> None:
    body, rooms = Body(), set()
    body.add([begin])
    for _ in range(4096):
        body.add([bytes(100)])
        rooms.add(body.room_bytes)
    assert len(rooms) <= 20
