"""A whole engine over stub backends: a bench to put requests on."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.inference import Criticality, Knobs
from service.domain.observer import SilentObserver
from service.domain.policy_file import ModelPolicy, PolicyFile
from service.engine import remote_variant
from service.engine.backends.stub import StubBackend
from service.engine.catalog import Identity, Parts
from service.engine.dataplane import DataPlane
from service.engine.decisions import Decisions
from service.engine.dispatcher import Dispatcher
from service.engine.lanes import Lanes
from service.engine.loaded import LoadedModel
from service.engine.observers import Observers
from service.engine.prompt import PromptFuture
from service.engine.registry import Registry
from service.engine.repository import Repository
from service.engine.statistics import StatisticsObserver
from service.engine.ticket import Ticket
from service.policy.routing import Rules
from service.policy.scheduling import Waiting
from tests.builders import LADDER, make_model, make_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from service.domain.inference import Answer, InferenceRequest, InferenceResponse
    from service.domain.observer import RunReport
    from service.domain.variants import ModelInfo, Variant


class Gate(threading.Event):
    """A stub's gate that tells when a run stands before it; closed until ``set``."""

    def __init__(self) -> None:
        super().__init__()
        self._arrivals = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self._arrivals.release()
        return super().wait(timeout)

    async def reached(self) -> None:
        """Return when one more run has come to the gate.

        The event loop stands meanwhile: however long a busy machine takes, none of its timers fires before.
        """
        self._arrivals.acquire()


class ManualClock:
    """A clock that stands still until a test moves it: on a busy machine, too, nothing is late by itself."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Events(SilentObserver):
    """Remembers what the engine reported."""

    finished: list[Answer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    shed: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def model_loaded(self, model: ModelInfo) -> None:
        self.loaded.append(model.name)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        del request
        self.finished.append(answer)

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        del request, waited_s
        self.refused.append(type(error).__name__)

    def run_finished(self, report: RunReport) -> None:
        self.runs.append(report)

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        del model
        self.shed.append(f"{criticality.name.lower()} {why}")

    def request_expired(self, model: str, *, was_running: bool) -> None:
        del model
        self.expired.append("running" if was_running else "waiting")

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:
        del model, stuck
        self.replaced.append(variant)

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        del why
        self.failed.append((model, variant))


def lanes_wait(dispatcher: Dispatcher) -> None:
    """Return when every local lane waits to be woken."""
    while len(dispatcher._changed._waiters) < len(dispatcher.desk.lanes):  # type: ignore[attr-defined]
        os.sched_yield()


class Bench:
    """Data plane, lanes, dispatcher and registry over one stub for each variant of each model.

    Its clock stands still unless another one is given; hard deadlines pass by the event loop's timers all the same.
    """

    def __init__(
        self,
        variants: Sequence[Variant] = LADDER,
        policy: ModelPolicy | None = None,
        lanes: int = 1,
        clock: Callable[[], float] | None = None,
        inline_s: float = 0.0,
        decisions: Decisions | None = None,
    ) -> None:
        self.clock = clock = clock or ManualClock()
        self.events, self.statistics = Events(), StatisticsObserver()
        observer = Observers((self.statistics, self.events))
        self.dispatcher = Dispatcher(lanes, observer, clock, inline_s)
        self.lanes = Lanes(self.dispatcher, [None] * lanes, observer)
        self.registry = Registry(Repository(Path("absent")), PolicyFile(), observer)
        parts = Parts(
            Identity("tiergate", "0"), self.registry, self.dispatcher, self.statistics, decisions or Decisions()
        )
        self.plane = DataPlane(parts, self.lanes, observer)
        self.policy = policy or ModelPolicy(safety_margin_ratio=0.0)
        self.stubs: dict[str, StubBackend] = {}
        self.model = self.add_model(variants)

    def lanes_wait(self) -> None:
        """Return when every lane waits to be woken; one on its way there may take what gathers for the caller."""
        lanes_wait(self.dispatcher)

    async def told(self) -> None:
        """Let the turn of the event loop come in which is told of what was answered."""
        await asyncio.sleep(0)

    def add_model(self, variants: Sequence[Variant], name: str = "sums") -> LoadedModel:
        """Load one more model; its stubs answer once, twice, three times... the sum, in the order of the variants."""
        stubs = {item.name: StubBackend(scale) for scale, item in enumerate(variants, start=1)}
        self.stubs |= stubs
        model = LoadedModel(make_model(variants, name), Rules(self.policy, {}, 60.0), stubs)
        self.registry.adopt(model)
        return model

    def close_gates(self) -> Gate:
        """Hold every run until the gate that is returned is set."""
        gate = Gate()
        for stub in self.stubs.values():
            stub.gate = gate
        return gate

    async def send(self, *requests: InferenceRequest) -> list[asyncio.Task[InferenceResponse]]:
        """Start requests in order; when this returns each is queued, refused, or done inline."""
        tasks = [asyncio.create_task(self.plane.infer(request)) for request in requests]
        await asyncio.sleep(0)  # each task runs to its first wait
        return tasks

    async def occupy(self, gate: Gate) -> asyncio.Task[InferenceResponse]:
        """Send a request and return when a lane is busy with it."""
        (task,) = await self.send(make_request())
        await gate.reached()
        return task

    async def close(self) -> None:
        """Open every gate, for a test that failed before it did, and end the lanes."""
        for stub in self.stubs.values():
            stub.gate.set()
        await asyncio.to_thread(self.lanes.close)

    @property
    def queued(self) -> int:
        """How many requests wait, over all models."""
        return sum(self.dispatcher.depths().values())

    def is_at_rest(self) -> bool:
        """Tell whether no request is inside, none waits and no lane is busy."""
        busy = any(lane.is_busy for lane in self.dispatcher.desk.lanes)
        return self.plane.inflight == self.queued == 0 and not busy


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def patient_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for what a server says of its health as long as a busy machine may take."""
    monkeypatch.setattr(remote_variant, "_PROBE_WAITS_S", 60.0)
    monkeypatch.setattr(remote_variant, "_WARM_UP_S", 60.0)


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Bench]]:
    async with AsyncExitStack() as stack:

        def make(**settings: Any) -> Bench:  # noqa: ANN401 - the bench's own arguments
            bench = Bench(**settings)
            bench.lanes.start()
            stack.push_async_callback(bench.close)
            return bench

        yield make


@pytest.fixture
async def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
async def make_ticket() -> Callable[..., Ticket]:
    model = LoadedModel(make_model(), Rules(ModelPolicy(), {}, 60.0), {item.name: StubBackend() for item in LADDER})
    loop = asyncio.get_running_loop()

    def make(due_s: float = 1.0, criticality: Criticality = Criticality.NORMAL, fastest_s: float = 0.25) -> Ticket:
        knobs = Knobs(criticality=criticality)
        return Ticket(
            request=make_request(knobs=knobs),
            model=model,
            route=model.route(knobs, 0.0),
            waiting=Waiting(due_s, due_s + 1.0, 1, ("full",), None),
            costs=model.costs(0.0),
            arrived_s=0.0,
            fastest_s=fastest_s,
            thread=threading.get_ident(),
            done=PromptFuture(loop),
        )

    return make
