"""Other servers, as doubles: an endpoint that does what a test says, and an engine with one remote variant."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.errors import RemoteUnavailable
from service.domain.inference import Knobs
from service.domain.policy_file import ModelPolicy, PolicyFile
from service.domain.variants import LatencyCell, Profile
from service.engine.backends.stub import StubBackend
from service.engine.catalog import Identity, Parts
from service.engine.dataplane import DataPlane
from service.engine.dispatcher import Dispatcher
from service.engine.lanes import Lanes
from service.engine.loaded import LoadedModel
from service.engine.observers import Observers
from service.engine.registry import Registry
from service.engine.repository import Repository
from service.engine.statistics import StatisticsObserver
from service.policy.desk import Standing
from service.policy.remote_profile import LearntProfile
from service.policy.routing import Rules
from tests.builders import make_model, make_request, make_variant
from tests.service.engine.conftest import Events, ManualClock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.domain.inference import InferenceResponse
    from service.engine.backends.backend import Call
    from service.engine.backends.remote import Outputs

POOL = "sums--full"
_BATCHING = Profile((LatencyCell(1, *[0.002] * 3), LatencyCell(8, *[0.0021] * 3)))
VARIANTS = (replace(make_variant("full", 0.92, 0.002), profile=_BATCHING), make_variant("small", 0.86, 0.001))


class StubEndpoint:
    """A server that sums rows; ``failure`` is raised instead, ``gate`` holds calls, ``is_there`` is its health."""

    def __init__(self) -> None:
        self.is_there = True
        self.is_reachable = True
        self.failure: Exception | None = None
        self.problem = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.timeouts_s: list[float] = []
        self.rows: list[int] = []
        self.cancelled = 0
        self.is_closed = False

    async def is_ready(self) -> bool:
        if not self.is_reachable:
            raise RemoteUnavailable("connection refused")
        return self.is_there

    async def check(self) -> str:
        return self.problem

    async def infer(self, call: Call) -> Outputs:
        self.timeouts_s.append(call.timeout_s)
        self.rows.append(call.rows)
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return (call.inputs["x"].sum(axis=1, keepdims=True),)

    async def close(self) -> None:
        self.is_closed = True


class StubRemote:
    """A remote variant whose calls a test answers."""

    def __init__(self) -> None:
        self.profile = LearntProfile(VARIANTS[0].profile)
        self.calls: asyncio.Queue[tuple[int, float, Future[Any]]] = asyncio.Queue()
        self.asked: list[Call] = []
        self._loop = asyncio.get_running_loop()

    def begin(self, call: Call) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append(call)
        self._loop.call_soon_threadsafe(self.calls.put_nowait, (call.rows, call.timeout_s, future))
        return future

    def learn(self, rows: int, seconds: float) -> float:
        self.profile.observe(rows, seconds)
        return self.profile.typical_s(rows)

    def learnt(self) -> Profile:
        return self.profile.profile()

    async def next_call(self) -> tuple[int, float, Future[Any]]:
        """Return the rows, the timeout and the future of the next call."""
        async with asyncio.timeout(30.0):
            return await self.calls.get()


def answer(rows: int, value: float) -> tuple[NDArray[Any], ...]:
    """Return what a server would give."""
    return (np.full((rows, 1), value, dtype=np.float32),)


class RemoteBench:
    """A whole engine: full on another server, small on one lane here, where it answers the sum."""

    def __init__(self, calls: int = 2) -> None:
        self.events = Events()
        statistics = StatisticsObserver()
        observer = Observers((statistics, self.events))
        self.dispatcher = Dispatcher(1, observer, ManualClock(), inline_s=1.0)
        self.dispatcher.calls.add_pool(POOL, calls)
        self.lanes = Lanes(self.dispatcher, [None], observer)
        self.registry = Registry(Repository(Path("absent")), PolicyFile(), observer)
        parts = Parts(Identity("tiergate", "0"), self.registry, self.dispatcher, statistics)
        self.plane = DataPlane(parts, self.lanes, observer)
        self.remote, self.small, self.calls = StubRemote(), StubBackend(), calls
        self.model = LoadedModel(
            make_model(VARIANTS),
            Rules(ModelPolicy(safety_margin_ratio=0.0, default_budget_ms=30_000.0), {}, 60.0),
            {"small": self.small},
            remote={"full": self.remote},
            standing=Standing(pools={"full": POOL}),
        )
        self.registry.adopt(self.model)

    def set_up(self, *, is_up: bool) -> None:
        """Let the server come or go."""
        self.dispatcher.calls.set_usable(POOL, self.calls if is_up else 0, [self.model], "full")

    def ask(self, rows: int = 1, **knobs: Any) -> asyncio.Task[InferenceResponse]:  # noqa: ANN401 - fields of the knobs
        """Send a request."""
        return asyncio.create_task(self.plane.infer(make_request(rows=rows, knobs=Knobs(**knobs))))

    async def close(self) -> None:
        """End the lanes, and whatever they wait for."""
        self.small.gate.set()
        self.set_up(is_up=False)
        self.dispatcher.close()
        while not self.remote.calls.empty():
            self.remote.calls.get_nowait()[2].cancel()
        await asyncio.to_thread(self.lanes.close)
