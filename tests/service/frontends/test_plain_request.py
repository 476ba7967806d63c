"""What a glance takes for a plain request is what a parser reads in it; what is odd is left to the parser."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.frontends.plain_request import whole_infer
from tests.service.frontends.test_short_way import post

PLAIN = post(b"abc", "X-A: b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN + PLAIN,
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"/infer", b"/infer?a"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"X-A: b", b"X-A: " + b"b" * 4096),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: 3 "),
        post(b"abc", *[f"X-{number}: b" for number in range(63)]),
        post(b"abc", "Connection: close"),
        post(b"abc", "Proxy-Connection: close"),
        post(b"abc", "Content-Length: 3"),
        post(b"abc", "Content-Encoding: gzip"),
        post(b"abc", "Transfer-Encoding: chunked"),
        post(b"abc", "Expect: 100-continue"),
        post(b"abc", "no colon"),
        post(b"abc", "na me: x"),
        post(b"abc", " folded: x"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: 3_0"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: " + b"0" * 10 + b"3"),
        PLAIN.replace(b"X-A: b", b"X-A: b\nTransfer-Encoding: chunked"),
        PLAIN.replace(b"X-A: b", b"X-A: \x00"),
        *[PLAIN.replace(b"/m/", part) for part in (b"/", b"//", b"/m n/", b"/m\n/", b"/\xff/", b"/%6d/")],
    ],
)
def test_what_is_odd_is_left_to_the_parser(data: bytes) -> None:
    assert whole_infer(data) is None


def test_plain_request_is_read_at_a_glance() -> None:
    head = whole_infer(PLAIN.replace(b"/m/", b"/m--v/versions/1/"))
    assert head is not None
    assert (head.path, head.model) == ("/v2/models/m--v/versions/1/infer", b"m--v")
    assert head.headers == {b"host": b"x", b"content-length": b"3", b"x-a": b"b"}


def test_requests_with_the_same_head_share_what_was_read_of_it() -> None:
    assert whole_infer(PLAIN) is whole_infer(PLAIN.replace(b"abc", b"xyz"))


class Parsed:
    """What a parser tells of requests."""

    def __init__(self, data: bytes) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


BYTES = st.binary(max_size=6) | st.sampled_from(
    [b" ", b"\t x \t", b"\xff", b"a:b", b"\x0b", b"chunked", b"close", b"3", b"\r", b"\n"]
)
NAMES = BYTES | st.sampled_from(
    [b"X-A", b"x-a", b"Upgrade", b"Connection", b"Proxy-Connection", b"content-length", b"x_a", b"\xc3\xa4", b"1"]
)
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b" :", b""]), BYTES).map(b"".join), max_size=4)
PATHS = st.sampled_from([b"m", b"m/n", b"m--v", b"", b"..", b"a;b", b"a|b", b"m/versions/1"]) | st.binary(max_size=4)


@settings(max_examples=400, deadline=None)
@given(path=PATHS, lines=LINES, body=st.binary(max_size=8), said=st.sampled_from([0, 0, 0, 1, -1]))
@example(path=b"m", lines=[b"X-A:\t b \t"], body=b"", said=0)
@example(path=b"m", lines=[b"X-A: \t ", b"-:"], body=b"", said=0)
@example(path=b"m", lines=[b"Proxy-Connection: close"], body=b"", said=0)
def test_parser_reads_the_same_in_what_is_taken_unparsed(
    path: bytes, lines: list[bytes], body: bytes, said: int
) -> None:
    length = b"Content-Length: %d" % max(0, len(body) + said)
    first = b"POST /v2/models/" + path + b"/infer HTTP/1.1"
    data = b"\r\n".join([first, length, *lines]) + b"\r\n\r\n" + body
    head = whole_infer(data)
    if head is None:
        return
    parsed = Parsed(data)
    assert (parsed.messages, parsed.url.decode(), parsed.body) == (1, head.path, data[head.size :])
    assert parsed.parser.get_method() == b"POST"
    assert parsed.parser.should_keep_alive()
    assert len(parsed.headers) == len(head.headers)
    assert dict(parsed.headers) == head.headers
