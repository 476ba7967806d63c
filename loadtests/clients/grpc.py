"""gRPC over connections of our own, with everything but the stream's number encoded before the run.

grpcio costs a client some 430 us of CPU for each call, which alone fills a core at 2,300 calls a second. A call goes
to the connection with the fewest under way; where each carries as many as the server takes, another one is opened.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from loadtests.clients.bodies import grpc_messages, knobs, model_of
from loadtests.clients.deadlines import Deadlines
from loadtests.clients.hpack import encode_request
from loadtests.clients.http2 import Http2Connection
from loadtests.recording import Status

if TYPE_CHECKING:
    from loadtests.clients.http import OnDone
    from loadtests.plan import Job, RequestClass

_PATH: Final = "/inference.GRPCInferenceService/ModelInfer"
_READY_S: Final = 10.0
_CALLS_EACH: Final = 8
"""One connection is opened at the start for this many of the job's."""


class GrpcSender:
    """Sends the rows of a job; ``on_done`` hears once of every request: index, moment, status, reply."""

    def __init__(self, job: Job, on_done: OnDone) -> None:
        """Encode every message; ``open`` connects."""
        by_model = {
            name: [b"\0" + len(message).to_bytes(4, "big") + message for message in messages]
            for name in {model_of(job.target, asked) for asked in job.classes}
            for messages in [grpc_messages(job.target, job.inputs, name)]
        }
        self._messages = [by_model[model_of(job.target, asked)] for asked in job.classes]
        self._blocks = [_header_block(job, asked) for asked in job.classes]
        host, _, port = job.target.address.grpc.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._to_open = max(1, job.connections // _CALLS_EACH)
        self._timeout_s = job.timeout_s
        self._on_done = on_done
        self._connections: list[Http2Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines(job.timeout_s)
        self.opened = 0
        """Connections opened so far."""

    async def open(self) -> None:
        """Open the first connections.

        Raises:
            OSError: Nobody listens there, or not for HTTP/2.
        """
        for _ in range(self._to_open):
            connection = await self._connect()
            if connection is None:
                raise OSError(f"no HTTP/2 server at {self._address[0]} port {self._address[1]}")

    def send(self, index: int, kind: int, row: int) -> None:
        """Send one call now; returns at once."""
        free = [item for item in self._connections if item.is_open and len(item) < item.most_calls]
        if free:
            self._ask(min(free, key=len), index, kind, row)
            return
        task = asyncio.get_running_loop().create_task(self._ask_anew(index, kind, row))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close every connection."""
        self._deadlines.close()
        for task in tuple(self._tasks):
            task.cancel()
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)

    def _ask(self, connection: Http2Connection, index: int, kind: int, row: int) -> None:
        key = connection.ask(index, self._blocks[kind], self._messages[kind][row])
        self._deadlines.add(key, connection)

    async def _ask_anew(self, index: int, kind: int, row: int) -> None:
        """Send a call on a connection that is opened for it."""
        try:
            connection = await self._connect()
        except OSError:
            connection = None
        if connection is None:
            self._on_done(index, monotonic(), Status.NO_CONNECTION, None)
        else:
            self._ask(connection, index, kind, row)

    async def _connect(self) -> Http2Connection | None:
        """Return a new connection that knows the server's settings, or ``None`` where the server does not speak."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Http2Connection(self._on_done), *self._address)
        try:
            await asyncio.wait_for(connection.is_ready.wait(), _READY_S)
        except TimeoutError:
            return None
        finally:
            if not connection.is_ready.is_set():
                connection.close()
        if not connection.is_open:
            return None
        self.opened += 1
        self._connections.append(connection)
        return connection


def _header_block(job: Job, asked: RequestClass) -> bytes:
    """Return the headers of a kind of request; the timeout travels as the call's deadline."""
    said = {name: value for name, value in knobs(asked, job.timeout_s).items() if name != "x-request-timeout-ms"}
    headers = {
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": f"{round(job.timeout_s * 1e3)}m",
        **said,
    }
    return encode_request(_PATH, job.target.address.grpc, headers.items())
