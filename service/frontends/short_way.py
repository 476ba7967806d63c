"""The short way of an infer request through uvicorn: from the parser to the answer without ASGI in between.

uvicorn makes a scope, a task, two events and two writes for each request, and takes the body by a coroutine. A small
model's request costs less than all that. So a plain infer request (POST, HTTP/1.1, a length, no coding, nothing that
waits before it on its connection) goes from uvicorn's parser straight to the application's ``answer``, and back in one
write; one that comes in one piece goes there without the parser. Whatever is not plain goes the usual way. The
connection, its limits and its timeouts stay uvicorn's and ours.

``InferCycle`` takes the place of uvicorn's ``RequestResponseCycle`` in the protocol: it has the attributes that uvicorn
looks at to know whether a request is still being answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from service.engine.prompt import PromptFuture
from service.frontends.sockets import has_left

if TYPE_CHECKING:
    from service.api.http_message import Reply
    from service.frontends.door import Door

Answer = Callable[[str, dict[bytes, bytes], bytes], Coroutine[Any, Any, "Reply"]]
"""Path without a query, lower-case headers and the whole body in; the reply, whatever happens, out."""

_STATUS_LINES: Final = {200: b"HTTP/1.1 200 OK\r\n"}


@dataclass(frozen=True, slots=True)
class ShortWay:
    """What answers plain infer requests, with bodies up to a size, and who turns them away, if anyone."""

    answer: Answer
    max_body_bytes: int
    door: Door | None = None


class Driver:
    """Runs a coroutine that awaits futures of the running loop, without a task and a turn of the loop to start it.

    What it does not offer is a current task: such a coroutine must not use ``asyncio.timeout`` or ``TaskGroup``.
    ``on_done`` hears the result; a coroutine that is cancelled or that fails ends in silence or in the loop's handler.
    ``transport`` is the client's, by which what is awaited can know whether it has left.
    """

    __slots__ = ("_loop", "_on_done", "_transport", "_waits_for", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        on_done: Callable[[Any], None],
        transport: asyncio.BaseTransport | None = None,
    ) -> None:
        """Run to the first wait, or to the end."""
        self._loop = loop
        self._work = work
        self._on_done = on_done
        self._transport = transport
        self._waits_for: asyncio.Future[Any] | None = None
        self._go_on()

    def cancel(self) -> None:
        """Cancel what is awaited; the coroutine ends when the loop turns next."""
        if self._waits_for is not None:
            self._waits_for.cancel()

    def _has_left(self) -> bool:
        return self._transport is not None and has_left(self._transport)

    def _close_if_left(self) -> None:
        """End the connection of a client that a lane found to have left; the loop may read no more and never see it."""
        if self._transport is not None and has_left(self._transport):
            self._transport.close()

    def _go_on(self, _: object = None) -> None:
        self._waits_for = None
        try:
            waits_for = self._work.send(None)
        except StopIteration as done:
            self._on_done(done.value)
        except asyncio.CancelledError:
            self._close_if_left()
        else:
            if waits_for is None:  # a bare turn of the loop
                self._loop.call_soon(self._go_on)
                return
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - as tasks do, in asyncio's protocol of futures
            self._waits_for = waits_for
            if isinstance(waits_for, PromptFuture):
                waits_for.tell(self._go_on, self._has_left)
            else:
                waits_for.add_done_callback(self._go_on)


class InferCycle:
    """One infer request on its short way; uvicorn reads the public attributes."""

    __slots__ = (
        "_body",
        "_driver",
        "_on_response",
        "_transport",
        "default_headers",
        "disconnected",
        "headers",
        "is_turned_away",
        "keep_alive",
        "more_body",
        "path",
        "response_complete",
        "response_started",
    )

    def __init__(
        self,
        path: str,
        headers: dict[bytes, bytes],
        transport: asyncio.Transport,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        """Keep what the request's head said; the body comes in pieces by ``add``."""
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.disconnected = self.response_started = self.response_complete = False
        self.more_body = True
        self.is_turned_away = False
        self._transport = transport
        self._on_response = on_response
        self._body: bytes | bytearray = b""
        self._driver: Driver | None = None

    @property
    def message_event(self) -> InferCycle:
        """What uvicorn sets when the client has left."""
        return self

    def set(self) -> None:
        """Stop working for a client that has left."""
        if self.disconnected and self._driver is not None:
            self._driver.cancel()

    def add(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if self.is_turned_away:
            return
        if not self._body:
            self._body = piece
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += piece

    def start(
        self, loop: asyncio.AbstractEventLoop, answer: Answer, default_headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Answer, now that the body is complete."""
        self.more_body = False
        self.default_headers = default_headers
        body, self._body = self._body, b""
        # What reads the body takes any bytes; a large one is not copied once more to make it immutable.
        work = answer(self.path, self.headers, cast("bytes", body))
        driver = Driver(loop, work, self._write, self._transport)
        if not self.response_complete:
            self._driver = driver

    def turn_away(self, refusal: bytes) -> None:
        """Answer with bytes that are ready, now that the body is over."""
        self.more_body = False
        self._send(refusal, closes=not self.keep_alive)

    def _write(self, reply: Reply) -> None:
        self._driver = None
        if not self.disconnected:
            content = _encode(reply, self.default_headers, keep_alive=self.keep_alive)
            self._send(content, closes=not self.keep_alive or _says_close(reply))

    def _send(self, content: bytes, *, closes: bool) -> None:
        self.response_started = self.response_complete = True
        if self._transport.is_closing():
            return
        self._transport.write(content)
        if closes:
            self._transport.close()
        self._on_response()


def _says_close(reply: Reply) -> bool:
    return any(name == b"connection" for name, _ in reply.headers)


def _encode(reply: Reply, default_headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    parts = [_STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d \r\n" % reply.status]
    parts += [b"%b: %b\r\n" % line for line in default_headers]
    parts += [b"%b: %b\r\n" % line for line in reply.headers]
    parts.append(reply.head)
    if not keep_alive and not _says_close(reply):
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", reply.body)
    return b"".join(parts)
