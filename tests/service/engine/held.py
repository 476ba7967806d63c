"""A whole engine under a memory budget, with stubs in place of ONNX Runtime, and a witness of what it holds."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from typing import TYPE_CHECKING

from service.domain.inference import Knobs
from service.domain.observer import SilentObserver
from service.domain.policy_file import PolicyFile
from service.engine.backends.stub import StubBackend
from service.engine.catalog import Identity, Parts
from service.engine.dataplane import DataPlane
from service.engine.dispatcher import Dispatcher
from service.engine.holding import Holding
from service.engine.lanes import Lanes
from service.engine.observers import Observers
from service.engine.registry import Registry
from service.engine.repository import Repository, read_variant
from service.engine.statistics import StatisticsObserver
from service.engine.uses import Uses
from tests.builders import ModelPlan, VariantPlan, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.inference import InferenceResponse
    from service.domain.variants import ModelInfo, Variant
    from service.engine.backends.backend import Backend
    from service.engine.repository import StoredFile, StoredModel
    from variants.manifest import VariantManifest

MIB = 2**20
SCALES = {"full": 1.0, "quantized": 2.0, "distilled": 3.0}
SUMS = ModelPlan(
    variants=(
        VariantPlan("full", "full", 0.95, 0.0005, scale=1.0, memory_bytes=6 * MIB),
        VariantPlan("quantized", "quantized", 0.94, 0.0003, scale=2.0, memory_bytes=2 * MIB),
        VariantPlan("distilled", "distilled", 0.86, 0.0001, scale=3.0, memory_bytes=1 * MIB),
    )
)


class Witness(SilentObserver):
    """Remembers what came into memory and what left it."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str]] = []
        self.evicted: list[str] = []
        self.failed: list[str] = []

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        del model
        self.held.append((variant.name, cause))

    def variant_evicted(self, model: str, variant: str) -> None:
        del model
        self.evicted.append(variant)

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        del model, why
        self.failed.append(variant)


class HeldBench:
    """A whole engine over a repository on disk, with stubs in place of ONNX Runtime, under a memory budget."""

    def __init__(self, root: Path, budget_bytes: int | None, policy: PolicyFile | None = None) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self.events, uses, statistics = Witness(), Uses(), StatisticsObserver()
        observer = Observers((statistics, self.events, uses))
        self.dispatcher = Dispatcher(2, observer, time.perf_counter)
        self.lanes = Lanes(self.dispatcher, [None, None], observer)
        self.opening = threading.Event()
        self.opening.set()
        self.opened: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.most_bytes = 0
        self._alive: list[tuple[weakref.ref[StubBackend], int]] = []
        self.holding = Holding(
            observer, budget_bytes, uses=uses, parking=self.dispatcher.parking, open_variant=self._open
        )
        self.registry = Registry(Repository(root), policy or PolicyFile(), observer, 60.0, self.holding)
        parts = Parts(Identity("tiergate", "0"), self.registry, self.dispatcher, statistics)
        self.plane = DataPlane(parts, self.lanes, observer)

    def start(self) -> None:
        """Load the models and start the threads."""
        self.registry.load_all()
        self.holding.start()
        self.lanes.start()

    async def ask(self, variant: str | None = None, model: str = "sums", **knobs: float) -> InferenceResponse:
        """Ask with a pin, or without one, and with time for every variant unless ``knobs`` say otherwise."""
        asked = Knobs(variant=variant, **({"budget_s": 30.0} | knobs))  # type: ignore[arg-type]
        return await self.plane.infer(make_request(knobs=asked, model=model))

    def state(self, model: str = "sums") -> dict[str, str]:
        """Return the state of each variant."""
        return {item.variant.name: item.state for item in self.registry.states(model, time.perf_counter())}

    def held(self) -> set[str]:
        """Return the variants in memory."""
        return {name for name, state in self.state().items() if state == "ready"}

    async def close(self) -> None:
        """Let everything go and end the threads."""
        self.opening.set()
        for gate in self.gates.values():
            gate.set()
        self.holding.close()
        await asyncio.to_thread(self.lanes.close)

    def _open(self, stored: StoredModel, info: ModelInfo, variant: VariantManifest) -> tuple[Backend, StoredFile]:
        _, file = read_variant(stored.folder, variant)
        self.opening.wait()
        size = variant.memory.loaded_bytes
        backend = StubBackend(SCALES[variant.name])
        backend.gate = self.gates.get(variant.name, backend.gate)
        self._alive.append((weakref.ref(backend), size))
        self.most_bytes = max(self.most_bytes, sum(bytes_ for alive, bytes_ in self._alive if alive() is not None))
        self.opened.append(f"{info.name}/{variant.name}")
        return backend, file
