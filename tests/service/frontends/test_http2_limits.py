"""What one HTTP/2 connection grants, charges and remembers: frames fed to it without a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from service.api.grpc_frames import GrpcReply
from service.frontends import http2_frames as wire
from service.frontends.http2 import Connection
from service.frontends.http2_frames import Http2Error, frame, number_frame
from service.frontends.http2_limits import MOST_UNREAD_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.api.asgi import Receive

POST = {b":method": b"POST", b":path": b"/a.B/C", b"content-type": b"application/grpc"}
ANSWER_BYTES = 1 << 25
MOST_UPDATES = 2100


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        """Nothing is read anyway."""

    def resume_reading(self) -> None:
        """Nothing is read anyway."""


class Server:
    """A host whose calls get one large answer at once, and that refuses all of them when it is ``full``."""

    max_message_bytes = 1 << 16
    read_timeout_s = 30.0
    door = None

    def __init__(self) -> None:
        self.calls = self
        self.is_full = False
        self.notes: list[str] = []
        self.on_read: Callable[[int], None] = lambda _: None

    def admit(self, connection: Connection) -> bool:
        return connection.host is not None

    def enter(self) -> Exception | None:
        return RuntimeError("full") if self.is_full else None

    def exit(self) -> None:
        """Nothing is counted."""

    def note(self, message: str) -> None:
        self.notes.append(message)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: object) -> None:
        """Take all that a stream brings; where its path says so, tell nothing of having read it."""
        del send
        if scope["path"].endswith("/Unread"):
            self.on_read = scope["extensions"]["tiergate.read"]
            self.on_read(0)
        while (await receive())["type"] == "http.request":
            pass

    def is_unary(self, path: bytes) -> bool:
        return path == POST[b":path"]

    async def answer(self, *_: object) -> GrpcReply:
        return GrpcReply(bytes(ANSWER_BYTES), [(b"grpc-status", b"0")])

    def refuse(self, *_: object) -> GrpcReply:
        return GrpcReply(b"", [(b"grpc-status", b"8")], is_failed=True)


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    found = Connection(cast("Any", Server()), lambda _: None)
    found.connection_made(cast("Any", Pipe()))
    found.data_received(wire.PREFACE + wire.settings_frame([]))
    yield found
    found.connection_lost(None)


def opening(stream: int, *, method: bytes = b"POST", path: bytes = POST[b":path"]) -> bytes:
    """Return a call's headers."""
    block = wire.header_block((POST | {b":method": method, b":path": path}).items())
    return frame(wire.HEADERS, wire.END_HEADERS, stream, block)


def call(stream: int) -> bytes:
    """Return a whole call with an empty message."""
    return opening(stream) + frame(wire.DATA, wire.END_STREAM, stream, bytes(5))


def server(connection: Connection) -> Server:
    return cast("Server", connection.host)


def data_bytes(connection: Connection, stream: int) -> int:
    """Return how many bytes of DATA were written for a stream."""
    written, start, found = bytes(cast("Pipe", connection.transport).written), 0, 0
    while start < len(written):
        high, low, kind, _, number = wire.FRAME_HEAD.unpack_from(written, start)
        found += (high << 8 | low) * (kind == wire.DATA and number == stream)
        start += wire.FRAME_HEAD.size + (high << 8 | low)
    return found


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header that is added to the table, its value 3,000 bytes long, so that one fits in but not two."""
    assert len(value) == 3000
    return b"\x40" + bytes((len(name),)) + name + b"\x7f\xb9\x16" + value


@pytest.mark.parametrize("cut", [0, 1, 4])
@pytest.mark.parametrize(("said_bytes", "is_refused"), [(1 << 16, False), ((1 << 16) + 1, True)])
async def test_message_that_says_it_will_be_too_large_is_refused_before_it_has_come(
    connection: Connection, said_bytes: int, is_refused: bool, cut: int
) -> None:
    begin = b"\x00" + said_bytes.to_bytes(4, "big") + b"abc"
    connection.data_received(opening(1) + frame(wire.DATA, 0, 1, begin[:cut]))
    connection.data_received(frame(wire.DATA, 0, 1, begin[cut:]))
    assert (1 not in connection.streams) is is_refused


def test_kept_headers_are_forgotten_when_the_table_changes_even_where_memory_is_used_again() -> None:
    for _ in range(20):
        reader = wire.HeaderReader(1 << 16)
        reader.read(literal(b"x-a", b"A" * 3000))
        assert reader.read(b"\xbe") == {b"x-a": b"A" * 3000}
        reader.read(literal(b"x-b", b"B" * 3000) + literal(b"x-a", b"C" * 3000))
        assert reader.read(b"\xbe") == {b"x-a": b"C" * 3000}


def test_reason_for_a_broken_block_is_short_whatever_the_block() -> None:
    with pytest.raises(Http2Error) as caught:
        wire.HeaderReader(1 << 16).read(b"\x00\x7f" + b"\xff" * 60_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.settings_frame([(wire.INITIAL_WINDOW_SIZE, 9)] * 33), "33 settings"),
        (frame(wire.HEADERS, wire.END_HEADERS, 1, bytes(65537)), "larger than 65536"),
        (frame(wire.HEADERS, wire.END_HEADERS, 0, b""), "no stream"),
        (opening(1, method=b"GET") + opening(1) * MOST_UPDATES, "too many frames"),
        (
            opening(1)
            + number_frame(wire.WINDOW_UPDATE, 1, 2**31 - 1 - 65535)
            + wire.settings_frame([(wire.INITIAL_WINDOW_SIZE, 65536)]),
            "out of range",
        ),
    ],
    ids=["settings", "header block", "stream 0", "closed stream", "window"],
)
async def test_what_costs_more_than_it_may_ends_the_connection(
    connection: Connection, data: bytes, reason: str
) -> None:
    connection.data_received(data)
    assert reason in server(connection).notes[0]
    assert connection.transport.is_closing()


async def test_only_the_last_window_of_a_settings_frame_counts(connection: Connection) -> None:
    connection.data_received(call(1))
    connection.data_received(wire.settings_frame([(wire.INITIAL_WINDOW_SIZE, size) for size in (10**6, 0, 65000)]))
    connection.data_received(number_frame(wire.WINDOW_UPDATE, 0, 10**6))
    assert data_bytes(connection, 1) == 65535
    assert connection.streams[1].window == 65000 - 65535


async def test_reader_of_a_long_answer_may_send_as_many_updates_as_it_takes(connection: Connection) -> None:
    connection.data_received(call(1))
    step = 8192
    while 1 in connection.streams and not connection.transport.is_closing():
        connection.data_received(number_frame(wire.WINDOW_UPDATE, 0, step) + number_frame(wire.WINDOW_UPDATE, 1, step))
    assert (server(connection).notes, data_bytes(connection, 1)) == ([], ANSWER_BYTES + 5)


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "no POST"])
async def test_refused_calls_earn_no_updates(connection: Connection, is_full: bool) -> None:
    server(connection).is_full = is_full
    for number in range(1, MOST_UPDATES, 2):
        if connection.transport.is_closing():
            break
        connection.data_received(opening(number, method=b"POST" if is_full else b"GET"))
        connection.data_received(number_frame(wire.WINDOW_UPDATE, 0, 1) * 10)
    assert "too many frames" in server(connection).notes[0]


async def test_window_of_the_connection_goes_to_the_streams_that_wait_for_it(connection: Connection) -> None:
    connection.data_received(call(1) + call(3) + opening(5))
    assert (data_bytes(connection, 1), list(connection.waiting)) == (65535, [3])
    connection.data_received(number_frame(wire.WINDOW_UPDATE, 0, 1000))
    assert data_bytes(connection, 3) == 1000
    connection.data_received(number_frame(wire.RST_STREAM, 3, wire.CANCEL))
    assert not connection.waiting


async def test_time_to_read_the_last_words_goes_on_when_the_transport_resumes(connection: Connection) -> None:
    connection.data_received(frame(wire.PING, 0, 0, b"x"))
    assert connection.transport.is_closing()
    since_s = connection._unread_since_s
    connection.resume_writing()
    assert connection._unread_since_s == since_s is not None


def kinds(connection: Connection) -> list[int]:
    """Return the kinds of all frames that were written."""
    written, start, found = bytes(cast("Pipe", connection.transport).written), 0, []
    while start < len(written):
        high, low, kind, _, _ = wire.FRAME_HEAD.unpack_from(written, start)
        found.append(kind)
        start += wire.FRAME_HEAD.size + (high << 8 | low)
    return found


async def test_unfinished_messages_of_one_connection_are_bounded_together(connection: Connection) -> None:
    connection.intake.most_held_bytes = 100_000
    for stream in range(1, 9, 2):
        connection.data_received(opening(stream) + frame(wire.DATA, 0, stream, bytes(30_000)))
    assert list(connection.streams) == [1, 3, 5]
    assert connection.intake.held_bytes == 90_000
    for stream in list(connection.streams):
        connection.data_received(number_frame(wire.RST_STREAM, stream, wire.CANCEL))
    assert connection.intake.held_bytes == 0


async def test_room_for_the_rest_of_a_message_counts_as_held_though_it_did_not_come(connection: Connection) -> None:
    connection.data_received(opening(1) + frame(wire.DATA, 0, 1, b"\0" + (50_000).to_bytes(4, "big") + bytes(100)))
    assert connection.intake.held_bytes == 50_005
    connection.data_received(frame(wire.DATA, wire.END_STREAM, 1, bytes(49_900)))
    assert connection.intake.held_bytes == 0


async def test_half_messages_of_streams_count_until_they_are_whole_though_they_were_taken(
    connection: Connection,
) -> None:
    connection.intake.most_held_bytes = 100_000
    half = b"\0" + (40_000).to_bytes(4, "big") + bytes(30_000)
    for stream in range(1, 9, 2):
        connection.data_received(opening(stream, path=b"/a.B/Stream") + frame(wire.DATA, 0, stream, half))
        await asyncio.sleep(0)  # the application takes what there is
    assert list(connection.streams) == [1, 3, 5]
    assert "bytes of messages" in server(connection).notes[0]
    connection.data_received(frame(wire.DATA, 0, 3, bytes(10_000)))
    await asyncio.sleep(0)
    assert connection.intake.held_bytes == 2 * len(half)


def granted(connection: Connection, stream: int) -> int:
    """Return by how much a window was opened; stream 0 has the connection's."""
    written, start, found = bytes(cast("Pipe", connection.transport).written), 0, 0
    while start < len(written):
        high, low, kind, _, number = wire.FRAME_HEAD.unpack_from(written, start)
        start += wire.FRAME_HEAD.size
        if kind == wire.WINDOW_UPDATE and number == stream:
            found += int.from_bytes(written[start : start + 4], "big")
        start += high << 8 | low
    return found


WHOLE = b"\0" + (16_379).to_bytes(4, "big") + bytes(16_379)


async def test_window_of_a_stream_opens_for_what_the_application_has_read_and_not_for_what_it_keeps(
    connection: Connection,
) -> None:
    connection.data_received(opening(1, path=b"/a.B/Unread"))
    for _ in range(wire.STREAM_WINDOW // len(WHOLE)):
        connection.data_received(frame(wire.DATA, 0, 1, WHOLE))
        await asyncio.sleep(0)  # the application keeps what there is
    assert connection.intake.held_bytes == connection.intake.unread_bytes == wire.STREAM_WINDOW
    assert granted(connection, 1) == 0
    connection.data_received(frame(wire.DATA, 0, 1, b"x"))
    assert not connection.streams  # sent without leave
    assert connection.intake.held_bytes == connection.intake.unread_bytes == 0
    server(connection).on_read(wire.STREAM_WINDOW)  # which comes too late to count
    assert connection.intake.held_bytes == connection.intake.unread_bytes == 0


async def test_window_of_the_connection_stays_closed_while_its_streams_keep_much_unread(connection: Connection) -> None:
    def send(stream: int) -> None:
        connection.data_received(opening(stream, path=b"/a.B/Unread"))
        for _ in range(wire.STREAM_WINDOW // len(WHOLE)):
            connection.data_received(frame(wire.DATA, 0, stream, WHOLE))

    opened = granted(connection, 0)
    streams = range(1, 2 * (MOST_UNREAD_BYTES // wire.STREAM_WINDOW) + 3, 2)
    for stream in streams:
        send(stream)
        await asyncio.sleep(0)
    assert granted(connection, 0) - opened <= MOST_UNREAD_BYTES
    send(streams[-1] + 2)
    await asyncio.sleep(0)
    before = granted(connection, 0)
    for stream in list(connection.streams):
        connection.data_received(number_frame(wire.RST_STREAM, stream, wire.CANCEL))
    assert granted(connection, 0) > before
    assert connection.intake.unread_bytes == 0


async def test_a_half_message_of_a_stream_is_waited_for_only_as_long_as_its_client_may_send(
    connection: Connection,
) -> None:
    half = b"\0" + (1 << 16).to_bytes(4, "big") + bytes(100)
    connection.data_received(opening(1, path=b"/a.B/Stream"))
    stream = connection.streams[1]
    assert not stream.waits_for_client_since(connection.loop.time())
    connection.data_received(frame(wire.DATA, 0, 1, half))
    assert stream.waits_for_client_since(connection.loop.time())
    connection.data_received(frame(wire.DATA, 0, 1, bytes((1 << 16) - 100)))
    assert not stream.waits_for_client_since(connection.loop.time())
    larger = b"\0" + (1 << 24).to_bytes(4, "big") + bytes(wire.STREAM_WINDOW - 5 - len(half) - (1 << 16) + 100)
    connection.data_received(
        b"".join(frame(wire.DATA, 0, 1, larger[at : at + 16384]) for at in range(0, len(larger), 16384))
    )
    assert not stream.waits_for_client_since(connection.loop.time())  # the window is used up: it is our turn


async def test_quiet_client_is_asked_whether_it_is_there_and_let_go_when_it_is_not(connection: Connection) -> None:
    connection.data_received(opening(1))
    heard_s = connection.loop.time()
    connection._look_for_client(heard_s + 61.0)
    assert kinds(connection)[-1] == wire.PING
    connection._look_for_client(heard_s + 80.0)
    assert kinds(connection).count(wire.PING) == 1
    assert not connection.transport.is_closing()
    connection._look_for_client(heard_s + 61.0 + 31.0)
    assert server(connection).notes == ["the client does not answer any more"]


async def test_client_that_answers_is_not_let_go(connection: Connection) -> None:
    connection.data_received(opening(1))
    heard_s = connection.loop.time()
    connection._look_for_client(heard_s + 61.0)
    connection.data_received(frame(wire.PING, wire.ACK, 0, bytes(8)))
    connection._look_for_client(heard_s + 59.0)
    assert server(connection).notes == []


async def test_connection_without_calls_is_told_to_go_after_a_while(connection: Connection) -> None:
    connection._look_for_client(connection.loop.time() + 301.0)
    assert kinds(connection)[-1] == wire.GOAWAY
    assert connection.transport.is_closing()


async def test_nothing_is_written_of_a_stream_while_the_transport_is_full(connection: Connection) -> None:
    connection.data_received(number_frame(wire.WINDOW_UPDATE, 0, 1 << 20))
    connection.pause_writing()
    connection.data_received(call(1))
    sent = data_bytes(connection, 1)
    connection.data_received(number_frame(wire.WINDOW_UPDATE, 1, 1 << 20))
    assert data_bytes(connection, 1) == sent
    connection.resume_writing()
    assert data_bytes(connection, 1) == wire.DEFAULT_WINDOW + (1 << 20)
