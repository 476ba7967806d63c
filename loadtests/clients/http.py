"""HTTP/1.1 with as little between the schedule and the socket as Python allows.

One request at a time on each connection, because a pipelined request would wait behind another one's answer. A request
takes the connection that became free last; where none is free a new one is opened, without any limit of its own, and
the time that this takes is part of the request's latency. General clients cost several times as much for each request.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import httptools

from loadtests.clients.answers import Unreadable, read_http, status_of_http
from loadtests.clients.bodies import JSON_LENGTH, binary_bodies, http_heads, json_bodies
from loadtests.clients.deadlines import Deadlines
from loadtests.recording import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.plan import Job
    from loadtests.recording import Reply

    OnDone = Callable[[int, float, Status, Reply | None], None]

_JSON_LENGTH: Final = JSON_LENGTH.encode()
_FREE: Final = -1


class HttpSender:
    """Sends the rows of a job; ``on_done`` hears once of every request: index, moment, status, reply."""

    def __init__(self, job: Job, on_done: OnDone) -> None:
        """Encode every body; ``open`` connects."""
        json_length = None
        if job.target.protocol == "http-json":
            self._bodies = json_bodies(job.target, job.inputs)
        else:
            self._bodies, json_length = binary_bodies(job.target, job.inputs)
        self._heads = http_heads(job, json_length)
        host, _, port = job.target.address.http.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._to_open = job.connections
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines(job.timeout_s)
        self.opened = 0
        """Connections opened so far."""

    async def open(self) -> None:
        """Open the first connections.

        Raises:
            OSError: Nobody listens there.
        """
        for _ in range(self._to_open):
            connection = _Connection(self)
            await self._loop.create_connection(lambda made=connection: made, *self._address)  # type: ignore[misc]
            self._idle.append(connection)

    def send(self, index: int, kind: int, row: int) -> None:
        """Send one request now; returns at once."""
        body = self._bodies[row]
        content = b"%b%d\r\n\r\n%b" % (self._heads[kind], len(body), body)
        if self._idle:
            connection = self._idle.pop()
            connection.ask(index, content)
        else:
            connection = _Connection(self, index, content)
            task = self._loop.create_task(self._connect(connection, index))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._deadlines.add(index, connection)

    async def close(self) -> None:
        """Close every connection."""
        self._deadlines.close()
        for task in tuple(self._tasks):
            task.cancel()
        for connection in tuple(self._open):
            connection.give_up(None)
        await asyncio.sleep(0)

    async def _connect(self, connection: _Connection, index: int) -> None:
        try:
            await self._loop.create_connection(lambda: connection, *self._address)
        except OSError:
            if connection.index == index:
                connection.index = _FREE
                self._on_done(index, monotonic(), Status.NO_CONNECTION, None)

    def connected(self, connection: _Connection) -> None:
        """Count a connection."""
        self._open.add(connection)
        self.opened += 1

    def disconnected(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def finished(self, connection: _Connection, index: int, status: Status, reply: Reply | None) -> None:
        """Report a request, and take its connection back if it can carry another."""
        now_s = connection.answered_s
        if connection.is_usable:
            self._idle.append(connection)
        self._on_done(index, now_s, status, reply)


class _Connection(asyncio.Protocol):
    __slots__ = ("_body", "_json_length", "_parser", "_pending", "_sender", "_transport", "answered_s", "index",
                 "is_usable")  # fmt: skip

    def __init__(self, sender: HttpSender, index: int = _FREE, pending: bytes = b"") -> None:
        self._sender = sender
        self._pending = pending
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._json_length: int | None = None
        self.index = index
        self.answered_s = 0.0
        self.is_usable = True

    def ask(self, index: int, content: bytes) -> None:
        self.index = index
        assert self._transport is not None  # noqa: S101 - only connected ones are idle
        self._transport.write(content)

    def expire(self, key: int) -> None:
        if self.index == key:
            self.give_up(Status.TIMED_OUT)

    def give_up(self, status: Status | None) -> None:
        """End the connection; report the request that it carries with this status, if any."""
        index, self.index, self.is_usable = self.index, _FREE, False
        if self._transport is not None:
            self._transport.abort()
        if index != _FREE and status is not None:
            self.answered_s = monotonic()
            self._sender.finished(self, index, status, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sender.connected(self)
        if self.index != _FREE:
            self._transport.write(self._pending)
        elif self._pending:  # its request was given up while it was being opened
            self._transport.abort()
        self._pending = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._sender.disconnected(self)
        self.give_up(Status.LOST_CONNECTION)

    def data_received(self, data: bytes) -> None:
        self.answered_s = monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up(Status.UNREADABLE)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == len(_JSON_LENGTH) and name.lower() == _JSON_LENGTH:
            self._json_length = int(value)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        index, self.index = self.index, _FREE
        code, body, json_length = self._parser.get_status_code(), b"".join(self._body), self._json_length
        self._body.clear()
        self._json_length = None
        self.is_usable = self.is_usable and self._parser.should_keep_alive()
        if index == _FREE:  # an answer to nothing
            self.give_up(None)
            return
        status, reply = status_of_http(code), None
        if status is Status.OK:
            try:
                reply = read_http(body, json_length)
            except Unreadable:
                status = Status.UNREADABLE
        self._sender.finished(self, index, status, reply)
