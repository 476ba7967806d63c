"""What the tests of the senders share: a job, ears for how requests end, and a server of any behaviour."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from loadtests.plan import Address, Job, Mix, RequestClass, Target, draw_schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from loadtests.plan import Protocol
    from loadtests.recording import Reply, Status

KINDS = (
    RequestClass("plain", 0.05),
    RequestClass("phone", 0.02, hardware="mobile", criticality="critical", variant="distilled"),
)


def job_for(
    address: Address, protocol: Protocol, *, timeout_s: float = 5.0, connections: int = 1, width: int = 4
) -> Job:
    target = Target(address, protocol, "sums", "x", "FP32", (width,))
    rows = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    return Job(target, rows, KINDS, draw_schedule(np.zeros(1), Mix(KINDS), 3, 0), timeout_s, None, connections)


@dataclass
class Ears:
    """Hears how requests ended."""

    want: int
    heard: dict[int, tuple[Status, Reply | None]] = field(default_factory=dict)
    all_heard: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, index: int, at_s: float, status: Status, reply: Reply | None) -> None:
        assert at_s > 0.0
        assert index not in self.heard
        self.heard[index] = (status, reply)
        if len(self.heard) == self.want:
            self.all_heard.set()

    async def statuses(self) -> list[Status]:
        await asyncio.wait_for(self.all_heard.wait(), 20)
        return [self.heard[index][0] for index in sorted(self.heard)]


@asynccontextmanager
async def tcp_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Address]:
    tasks: set[asyncio.Task[None]] = set()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(whole, "127.0.0.1", 0)
    try:
        yield Address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        await asyncio.gather(*tasks)
