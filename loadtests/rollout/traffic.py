"""Open-loop traffic over the endpoints that clients believe in: half HTTP with connections kept, half gRPC.

Nothing is tried again: what a client library would hide counts as failed. A client lets go of a connection when the
server says that it will close it, when it has closed it, or when its endpoint is no longer in the list.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from random import Random

    from loadtests.rollout.endpoints import Endpoints

_TIMEOUT_S: Final = 20.0
_OK: Final = 200
_MOST_KEPT_WORDS: Final = 20

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Question:
    """The request that all send: a model and one row for its input."""

    model: str
    input_name: str
    shape: tuple[int, ...]

    def body(self) -> bytes:
        """Return it as JSON."""
        size = int(np.prod(self.shape))
        tensor = {"name": self.input_name, "shape": [1, *self.shape], "datatype": "FP32", "data": [0.0] * size}
        return json.dumps({"inputs": [tensor]}).encode()

    def message(self) -> service_pb2.ModelInferRequest:
        """Return it as a message of gRPC."""
        row = np.zeros(self.shape, np.float32).tobytes()
        message = service_pb2.ModelInferRequest(model_name=self.model, raw_input_contents=[row])
        message.inputs.add(name=self.input_name, datatype="FP32", shape=(1, *self.shape))
        return message


@dataclass(slots=True)
class Counts:
    """What became of requests, by protocol; ``words`` are the first failures' own."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def fail(self, protocol: str, why: str) -> None:
        """Count a failure."""
        self.failed[protocol] += 1
        if len(self.words) < _MOST_KEPT_WORDS:
            self.words.append(f"{protocol}: {why}")


class Traffic:
    """Sends one request after the other at a Poisson process's moments, until ``end``."""

    def __init__(self, endpoints: Endpoints, grpc_of: dict[str, str], question: Question, rng: Random) -> None:
        """Send to nobody yet; ``grpc_of`` names the gRPC address of each HTTP address and may grow."""
        self.counts = Counts()
        self._endpoints = endpoints
        self._grpc_of = grpc_of
        self._question = question
        self._rng = rng
        self._idle: dict[str, list[Connection]] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._inside: set[asyncio.Task[None]] = set()
        self._ended = False

    def end(self) -> None:
        """Send no more."""
        self._ended = True

    async def run(self, rate_hz: float) -> None:
        """Send until told to end; then wait for the last answers."""
        next_s = time.monotonic()
        while not self._ended:
            next_s += self._rng.expovariate(rate_hz)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            task = asyncio.create_task(self._send())
            self._inside.add(task)
            task.add_done_callback(self._inside.discard)
        if self._inside:
            await asyncio.wait(self._inside)

    async def close(self) -> None:
        """Close every connection."""
        for address in [*self._idle]:
            self._forget(address)
        for channel in self._channels.values():
            await channel.close()

    async def peak_hz(self, at_once: int, duration_s: float) -> float:
        """Return how many requests a second are answered when so many are always inside."""
        end_s, before = time.monotonic() + duration_s, self.counts.sent.total()

        async def repeat() -> None:
            while time.monotonic() < end_s:
                await self._send()

        await asyncio.gather(*(repeat() for _ in range(at_once)))
        if self.counts.failed:
            raise LoadError(f"requests failed before any update: {self.counts.words[0]}")
        found = (self.counts.sent.total() - before) / duration_s
        self.counts = Counts()
        return found

    async def _send(self) -> None:
        addresses = self._rng.choice(self._endpoints.viewers).look(time.monotonic())
        protocol = self._rng.choice(("http", "grpc"))
        self.counts.sent[protocol] += 1
        if not addresses:
            self.counts.fail(protocol, "no endpoint is in the list")
            return
        for gone in self._idle.keys() - {item for viewer in self._endpoints.viewers for item in viewer.addresses}:
            self._forget(gone)
        address = self._rng.choice(addresses)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await (self._ask_http(address) if protocol == "http" else self._ask_grpc(address))
        except (OSError, EOFError, TimeoutError, ValueError, grpc.aio.AioRpcError) as error:
            self.counts.fail(protocol, f"{address}: {type(error).__name__}: {error}"[:300])

    async def _ask_http(self, address: str) -> None:
        reader, writer = await self._connection(address)
        body = self._question.body()
        head = (
            f"POST /v2/models/{self._question.model}/infer HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
            content = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        except BaseException:
            writer.close()
            raise
        if headers.get(b"connection") == b"close":
            writer.close()
        else:
            self._idle.setdefault(address, []).append((reader, writer))
        status = int(answer.split(b" ", 2)[1])
        if status != _OK:
            raise ValueError(f"status {status}: {content[:200]!r}")

    async def _connection(self, address: str) -> Connection:
        kept = self._idle.get(address, [])
        while kept:
            reader, writer = kept.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        host, port = address.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def _ask_grpc(self, address: str) -> None:
        where = self._grpc_of[address]
        channel = self._channels.get(where)
        if channel is None:
            options = [("grpc.enable_retries", 0)]
            channel = self._channels[where] = grpc.aio.insecure_channel(where, options=options)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(self._question.message(), timeout=_TIMEOUT_S)

    def _forget(self, address: str) -> None:
        for _, writer in self._idle.pop(address, []):
            with suppress(OSError):
                writer.close()
