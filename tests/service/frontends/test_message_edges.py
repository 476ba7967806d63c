"""A gRPC body's messages, followed in pieces of every size."""

from __future__ import annotations

import pytest

from service.frontends.message_edges import MessageEdges


def message(size: int) -> bytes:
    return b"\x00" + size.to_bytes(4, "big") + bytes(size)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7, 11, 100])
def test_unfinished_bytes_are_those_behind_the_last_whole_message(step: int) -> None:
    body, ends = b"", [0]
    for size in (0, 3, 0, 0, 12, 1):
        body += message(size)
        ends.append(len(body))
    edges = MessageEdges()
    for start in range(0, len(body), step):
        edges.pass_over(body[start : start + step])
        stop = min(len(body), start + step)
        assert edges.unfinished_bytes == stop - max(end for end in ends if end <= stop)


def test_an_edge_is_told_where_a_message_begins_or_ends() -> None:
    edges = MessageEdges()
    assert not edges.pass_over(b"")
    assert edges.pass_over(b"\x00\x00")
    assert not edges.pass_over(b"\x00\x00\x02a")
    assert edges.pass_over(b"b")
    assert edges.pass_over(message(1) + message(4)[:7])
    assert not edges.pass_over(b"\x00")
