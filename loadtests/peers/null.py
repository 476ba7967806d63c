"""A server that does nothing, at known speed: what the load generator itself is measured and proven against.

``python -m loadtests.peers.null PORT`` answers every request of the protocol over HTTP/1.1 with the same binary output.
Without options it answers at once. ``--delay-ms LOW HIGH`` holds each answer back for a time drawn uniformly from that
range, whatever else is under way, so that the true distribution of latency is known; ``--seed`` repeats the draws.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import httptools
import numpy as np
import uvloop

from loadtests.pacing import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

_BACKLOG: Final = 4096
_OUTPUT: Final = np.array([[0.0, 1.0]], np.float32)
_HEAD: Final = json.dumps(
    {
        "model_name": "null",
        "model_version": "1",
        "id": "",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": _OUTPUT.nbytes}}
        ],
    }
).encode()
_JSON: Final = json.dumps(
    {
        "model_name": "null",
        "model_version": "1",
        "id": "",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": _OUTPUT.ravel().tolist()}],
    }
).encode()
_METADATA: Final = json.dumps(
    {
        "name": "null",
        "versions": ["1"],
        "platform": "null",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
).encode()


def _reply(body: bytes, *, json_length: int | None = None) -> bytes:
    extra = b"" if json_length is None else b"inference-header-content-length: %d\r\n" % json_length
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (extra, len(body), body)


_BINARY_REPLY: Final = _reply(_HEAD + _OUTPUT.tobytes(), json_length=len(_HEAD))
_JSON_REPLY: Final = _reply(_JSON)
_METADATA_REPLY: Final = _reply(_METADATA)


class _Later:
    """Calls back at exact moments, in order of time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._alarm = Alarm(loop, self._ring)
        self._count = 0

    def call(self, at_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (at_s, self._count, call))
        if self._agenda[0][0] == at_s:
            self._alarm.set(at_s)

    def _ring(self) -> None:
        while self._agenda and self._agenda[0][0] <= monotonic():
            heapq.heappop(self._agenda)[2]()
        if self._agenda:
            self._alarm.set(self._agenda[0][0])


class _Connection(asyncio.Protocol):
    def __init__(self, later: _Later, delay_s: Callable[[], float]) -> None:
        self._later = later
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._is_binary = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - the parser's signature
        self._is_binary = self._is_binary or name.lower() == b"inference-header-content-length"

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            self._write(_METADATA_REPLY)
            return
        content = _BINARY_REPLY if self._is_binary else _JSON_REPLY
        self._is_binary = False
        delay_s = self._delay_s()
        if delay_s:
            self._later.call(monotonic() + delay_s, lambda: self._write(content))
        else:
            self._write(content)

    def _write(self, content: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


async def _serve(port: int, delay_s: Callable[[], float]) -> None:
    loop = asyncio.get_running_loop()
    later = _Later(loop)
    server = await loop.create_server(lambda: _Connection(later, delay_s), "127.0.0.1", port, backlog=_BACKLOG)
    await server.serve_forever()


def _draws(low_s: float, high_s: float, rng: Generator) -> Callable[[], float]:
    return lambda: float(rng.uniform(low_s, high_s)) if high_s else 0.0


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers.null", description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--delay-ms", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    low_ms, high_ms = parsed.delay_ms
    uvloop.run(_serve(parsed.port, _draws(low_ms / 1e3, high_ms / 1e3, np.random.default_rng(parsed.seed))))


if __name__ == "__main__":
    main()
