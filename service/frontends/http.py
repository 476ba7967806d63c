"""HTTP/1.1 by uvicorn, with the limits that uvicorn leaves to a proxy in front.

uvicorn waits for ever for a slow client, takes headers of any size, and answers what is not HTTP in plain text. Behind
a proxy that is fine; a gateway that may stand in the open bounds each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.http_errors import HttpRefused, error_reply
from service.api.plane import Refusal, ignore_refusal
from service.frontends.alarm import Alarm
from service.frontends.door import http_refusal
from service.frontends.plain_request import is_infer_path, model_of_path, whole_infer
from service.frontends.short_way import InferCycle
from service.frontends.sockets import cut

if TYPE_CHECKING:
    import socket
    import ssl
    from collections import deque
    from collections.abc import Iterator

    from service.api.asgi import App
    from service.api.plane import OnRefused
    from service.frontends.short_way import ShortWay

_MOST_HEADER_BYTES: Final = 64 * 1024
_KEEP_ALIVE_S: Final = 75
_ODD_IN_URL: Final = frozenset(b"?%#")
_LONG_WAY: Final = frozenset({b"content-encoding", b"transfer-encoding", b"upgrade"})


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, and how long a client may take to send a request or to read its answer."""

    max_connections: int
    read_timeout_s: float


class HttpServer:
    """One ASGI application on one listening socket, in the running event loop.

    ``on_refused`` hears of the requests that are refused before the application sees them, or cut off after it has.
    """

    def __init__(
        self,
        app: App,
        limits: ConnectionLimits,
        on_refused: OnRefused = ignore_refusal,
        short_way: ShortWay | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Configure; ``start`` listens. ``short_way`` answers plain infer requests as the application would."""
        protocol = functools.partial(_GuardedProtocol, limits=limits, on_refused=on_refused, short_way=short_way)
        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type] # a factory serves as well
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config, tls, limits.read_timeout_s)
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve the socket until ``close``."""
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.is_listening.wait()

    async def close(self) -> None:
        """Stop accepting, close idle connections, and return when the last answer is out."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, handshake_s: float) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()
        self._tls = tls
        self._handshake_s = handshake_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does, but with a bound on the time of a handshake."""
        loop, state = asyncio.get_running_loop(), self.lifespan.state
        protocol: Any = self.config.http_protocol_class
        make = functools.partial(protocol, self.config, self.server_state, state)
        handshake_s = None if self._tls is None else self._handshake_s
        self.servers = [
            await loop.create_server(make, sock=item, ssl=self._tls, ssl_handshake_timeout=handshake_s)
            for item in sockets or ()
        ]
        self.started = True
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The program handles its signals itself: one drain for all listeners.
        yield


class _Flow(FlowControl):
    """Reads nothing while requests wait for the answer before theirs.

    uvicorn reads on after each answer, and whenever an application looks whether its client has left. Then what is
    pipelined piles up: hundreds of requests are read for each that is answered.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _GuardedProtocol(HttpToolsProtocol):
    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - uvicorn's own
        limits: ConnectionLimits,
        on_refused: OnRefused,
        short_way: ShortWay | None,
        **options: Any,  # noqa: ANN401 - uvicorn's own
    ) -> None:
        super().__init__(*arguments, **options)
        self._short_way = short_way
        self._door = None if short_way is None else short_way.door
        self._short: InferCycle | None = None
        self._garbage = ""
        self._limits = limits
        self._on_refused = on_refused
        self._header_bytes = 0
        self._is_new = True
        self._was_refused = False  # as a whole; nothing else has come since, and the client reads
        self._is_in_headers = True
        self._has_begun = False  # a request of which the rest is to come
        # A client can be slow both ways at once: it sends its next request while it leaves an answer unread.
        self._slow_request = Alarm(self.loop, limits.read_timeout_s, self._give_up_request)
        self._slow_reader = Alarm(self.loop, limits.read_timeout_s, self._give_up_answer)
        self._unused = Alarm(self.loop, _KEEP_ALIVE_S, self.timeout_keep_alive_handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        if self._door is not None:
            self._door.read()
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, f"more than {self._limits.max_connections} connections are open")
            return
        self._slow_request.set()

    def connection_lost(self, exc: Exception | None) -> None:
        for alarm in (self._slow_request, self._slow_reader, self._unused):
            alarm.discard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        door = self._door
        if self._was_refused and door is not None:
            answer = door.refuse_again(data)
            if answer is not None:
                self._unused.set()
                self.transport.write(answer)
                return
            self._was_refused = False
        new, self._is_new = self.transport if self._is_new else None, False
        if door is not None:
            door.read(new)
        if self._takes_whole(data):
            return
        if self._is_in_headers:
            self._header_bytes += len(data)
        self._unused.stop()
        super().data_received(data)
        if not self._has_begun and self._is_at_rest():  # an empty line, or the end of what was answered before it
            self._unused.set()
        if self._is_in_headers and self._header_bytes > _MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the headers are larger than {_MOST_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue, self._has_begun = b"", [], False, True
        if not self._slow_request.is_set():
            self._slow_request.set()

    def on_headers_complete(self) -> None:
        self._is_in_headers, self._header_bytes = False, 0
        if self._short_way is not None and self._may_take(self._short_way):
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which the short way has no need of
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def _takes_whole(self, data: bytes) -> bool:
        """Answer what is one whole plain infer request, or turn it away, unparsed; tell whether it was one."""
        way, door = self._short_way, self._door
        if way is None or self._header_bytes or self._has_begun or not self._is_at_rest():
            return False
        head = None if self.transport.is_closing() else whole_infer(data)
        if head is None or head.length > way.max_body_bytes:
            return False
        self._slow_request.stop()
        self._unset_keepalive_if_required()
        default_headers = self.server_state.default_headers
        refusal = None if door is None else door.refuse_whole(head, data, default_headers)
        if refusal is not None:
            self._was_refused = True
            self._unused.set()
            self.transport.write(refusal)
            return True
        self._unused.stop()
        cycle = InferCycle(head.path, head.headers, self.transport, True, self.on_short_response)
        self.cycle = cycle  # type: ignore[assignment] # it has what uvicorn reads
        cycle.add(data[head.size :])
        cycle.start(self.loop, way.answer, default_headers)
        return True

    def _is_at_rest(self) -> bool:
        """Tell whether every request so far is answered, and the answers are read."""
        cycle: RequestResponseCycle | None = self.cycle
        return (cycle is None or cycle.response_complete) and not self.flow.write_paused

    def on_body(self, body: bytes) -> None:
        if self._short is None:
            super().on_body(body)
        else:
            self._short.add(body)

    def on_message_complete(self) -> None:
        self._is_in_headers, self._has_begun = True, False
        self._slow_request.stop()
        if self._short is None or self._short_way is None:
            super().on_message_complete()
            return
        cycle, self._short = self._short, None
        default_headers = self.server_state.default_headers
        if cycle.is_turned_away:
            cycle.turn_away(http_refusal(tuple(default_headers)))
        else:
            cycle.start(self.loop, self._short_way.answer, default_headers)

    def _may_take(self, way: ShortWay) -> bool:
        """Begin the short way where the request is a plain one, and nothing before it is still being answered."""
        url = self.url
        if not (is_infer_path(url) and self.parser.get_method() == b"POST"):
            return False
        if not _ODD_IN_URL.isdisjoint(url) or not url.isascii() or self.expect_100_continue:
            return False
        if not self._is_at_rest() or self.transport.is_closing():
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length")
        if length is None or not headers.keys().isdisjoint(_LONG_WAY) or int(length) > way.max_body_bytes:
            return False
        if self.parser.get_http_version() != "1.1":
            return False
        self._short = InferCycle(
            url.decode("ascii"),
            headers,
            self.transport,
            self.parser.should_keep_alive(),
            self.on_short_response,
        )
        if self._door is not None:
            self._short.is_turned_away = self._door.turns_away("http", model_of_path(url), headers)
        self.cycle = self._short  # type: ignore[assignment] # it has what uvicorn reads
        return True

    def on_short_response(self) -> None:
        """Go on with what is pipelined behind the answer, or wait for the next request."""
        self.server_state.total_requests += 1
        if self._door is not None:
            self._door.wrote()
        if self.transport.is_closing():
            return
        if self.pipeline:
            next_cycle, app = self.pipeline.pop()
            was_paused = self.flow.read_paused
            self.flow.resume_reading()
            self._give_time_again(was_paused=was_paused)
            self._start_asgi_task(next_cycle, app)
        elif self._garbage:
            self._refuse(400, self._garbage)
        else:
            self._unused.set()

    def on_response_complete(self) -> None:
        was_last, was_paused = not self.pipeline, self.flow.read_paused
        super().on_response_complete()
        self.flow.resume_reading()  # if that was the last but one
        self._give_time_again(was_paused=was_paused)
        if was_last and self._garbage and not self.transport.is_closing():
            self._refuse(400, self._garbage)

    def _give_time_again(self, *, was_paused: bool) -> None:
        """Give a client that could not send the rest of its request until now the whole time for it."""
        if was_paused and not self.flow.read_paused and self._slow_request.is_set():
            self._slow_request.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._was_refused = False
        self._slow_reader.set()

    def resume_writing(self) -> None:
        self._slow_reader.stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._slow_reader.set()  # closing waits for the last answer to be read

    def send_400_response(self, msg: str) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        owes = cycle is not None and not cycle.response_complete and not cycle.more_body
        if (owes or self.pipeline) and not self.transport.is_closing():
            self._garbage = msg  # told after the answers to what came before it
            self._slow_request.stop()
            self.flow.pause_reading()
        else:
            self._refuse(400, msg)

    def _give_up_request(self) -> None:
        if self.flow.read_paused:  # by us: the client cannot send the rest
            self._slow_request.set()
            return
        message = f"no whole request came within {self._limits.read_timeout_s:g} s"
        if self._is_in_headers and not self.transport.is_closing():
            self._refuse(408, message)
        else:
            self._cut_off(message)

    def _give_up_answer(self) -> None:
        if self.transport.is_closing():  # what waits to be read is the last answer, or a refusal noted before
            cut(self.transport)
        else:
            self._cut_off(f"the answer was not read within {self._limits.read_timeout_s:g} s")

    def _cut_off(self, message: str) -> None:
        # A body that never ends, or an answer that nobody reads: an error could not be told apart from it.
        self._slow_request.stop()
        self._slow_reader.stop()
        self._note(HttpRefused(408, message))
        cut(self.transport)

    def _refuse(self, status: int, message: str) -> None:
        error = HttpRefused(status, message, [(b"connection", b"close")])
        if self._is_answering():
            self._cut_off(message)  # in the middle of an answer, a second one would be taken for a part of it
            return
        self._note(error)
        reply = error_reply(error, "")
        lines = b"".join(b"%b: %b\r\n" % line for line in reply.headers)
        self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, lines, reply.body))
        self.transport.close()
        self._slow_reader.set()  # closing waits for the refusal to be read

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request, whatever uvicorn's type says
        return cycle is not None and cycle.response_started and not cycle.response_complete

    def _note(self, error: HttpRefused) -> None:
        self._on_refused(Refusal("http", "", error))
