"""What is held in memory: one copy of each distinct weights, under a budget.

Every byte that counts here is a manifest's measured ``memory_bytes``. A copy counts from before it is opened until the
last run on it has ended, so that what is counted never exceeds the budget; while a file is being loaded the runtime
needs more for a moment (its ``peak_bytes``), and gives it back.

``policy.memory`` decides what is held. One thread loads what requests wait for, and now and then asks whether another
choice would serve the traffic better. Without a budget everything is held, and that thread does not exist.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from service.domain.errors import BackendFailed, ModelNotReady
from service.engine.copies import Copies
from service.engine.opening import WARM_UP_RUNS, open_onnx_variant, verify
from service.engine.uses import Uses
from service.policy.memory import choose_filling, choose_first, choose_leaving, choose_swap, held_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from service.domain.observer import Observer
    from service.engine.copies import Opened
    from service.engine.loaded import LoadedModel
    from service.engine.opening import OpenVariant, Source
    from service.engine.parking import Parking
    from service.engine.repository import StoredFile
    from service.policy.memory import Holdable

_LOGGER: Final = logging.getLogger("tiergate")
_REVIEW_EVERY_S: Final = 5.0
_RUNS_ON_DEMAND: Final = 5
"""Enough to be warm; who waits for a variant does not wait until it is measured well."""

_LOOK_AGAIN_S: Final = 0.002
"""Runs do not tell when they end, so that they pay nothing for evictions; who waits for the last one looks again."""


class MemoryExceeded(BackendFailed):
    """Loading a variant would exceed the memory budget."""


class Holding:
    """What the models hold; every method may be called from any thread. Changes are made one at a time."""

    def __init__(
        self,
        observer: Observer,
        budget_bytes: int | None = None,
        *,
        uses: Uses | None = None,
        parking: Parking | None = None,
        open_variant: OpenVariant = open_onnx_variant,
    ) -> None:
        """Hold nothing yet.

        ``parking`` is where requests wait for a variant, ``None`` where there are no requests; ``uses`` is what they
        use; ``open_variant`` makes a variant's backend, ONNX Runtime's by default.
        """
        self.uses = uses or Uses()
        self._observer = observer
        self._budget_bytes: float = math.inf if budget_bytes is None else budget_bytes
        self._parking = parking
        self._copies = Copies(open_variant)
        self._models: dict[LoadedModel, Mapping[str, Source]] = {}
        self._retired: list[LoadedModel] = []
        self._swaps_s: deque[float] = deque(maxlen=16)
        self._changing = threading.RLock()
        self._asked = threading.Condition()
        self._wanted: dict[tuple[LoadedModel, str], None] = {}
        self._is_closed = False
        if parking is not None:
            parking.loader = self

    @property
    def is_limited(self) -> bool:
        """Tell whether there is a budget."""
        return self._budget_bytes < math.inf

    @property
    def held_bytes(self) -> int:
        """The counted bytes of everything in memory."""
        return self._copies.size_bytes

    def start(self) -> None:
        """Start loading on demand, where there is a budget."""
        if self.is_limited:
            threading.Thread(target=self._work, name="holding", daemon=True).start()

    def close(self) -> None:
        """Load nothing more; what is under way is not waited for."""
        with self._asked:
            self._is_closed = True
            self._asked.notify()

    # What the registry asks for.

    def choose(self, sources: Iterable[Source], allowed: Mapping[str, Sequence[str]]) -> frozenset[Hashable]:
        """Return the weights to load of these newcomers; ``allowed`` are the variants that a model's policy names."""
        items = [source.holdable(allowed.get(source.info.name, ())) for source in sources]
        with self._changing:
            return choose_first(items, self._budget_bytes - self.held_bytes, self._copies)

    def open(self, source: Source, runs: int = WARM_UP_RUNS) -> Opened:
        """Load a variant, or share the copy of its weights, and warm it up; others make room where they must.

        Raises:
            MemoryExceeded: It cannot fit, with the numbers.
            BackendFailed: Its file is not what the manifest says, or the runtime refuses it.
        """
        with self._changing:
            if source.weights not in self._copies:
                self._make_room(source)
            return self._copies.open(source, runs)

    def check(self, source: Source) -> StoredFile:
        """Verify a variant that is not to be loaded now, and return where its file lies.

        Raises:
            MemoryExceeded: It alone is larger than the budget.
            BackendFailed: Its file is not what the manifest says, or reaches outside itself.
        """
        size_bytes = source.variant.memory_bytes
        if size_bytes > self._budget_bytes:
            raise MemoryExceeded(f"it needs {_mib(size_bytes)}; the memory budget is {_mib(self._budget_bytes)}")
        return verify(source)

    def adopt(self, model: LoadedModel, sources: Mapping[str, Source]) -> None:
        """Take charge of a model whose variants were opened here: from now on they may be evicted."""
        with self._changing:
            self._models[model] = dict(sources)

    def forget(self, sources: Collection[Source]) -> None:
        """Let go of variants that were opened for a model that is not served after all."""
        with self._changing:
            self._copies.leave(sources)

    def retire(self, model: LoadedModel) -> None:
        """Let go of a model that is no longer served; under a budget, when its last run has ended."""
        with self._changing:
            if self.is_limited and model in self._models:
                self._retired.append(model)
            else:
                self.forget(self._models.pop(model, {}).values())

    # What the requests ask for; the dispatcher's lock is held.

    def bring(self, model: LoadedModel, variant: str) -> None:
        """Load a variant soon: somebody waits for it."""
        with self._asked:
            self._wanted[model, variant] = None
            self._asked.notify()

    def note_demand(self, model: LoadedModel, variant: str) -> None:
        """Count that a request would have preferred an evicted variant."""
        self.uses.note_demand(model.info.name, variant)

    # Everything below is done by the loading thread, or with ``_changing`` held.

    def _work(self) -> None:
        due_s = time.monotonic() + _REVIEW_EVERY_S
        while not self._is_closed:
            with self._asked:
                self._asked.wait_for(lambda: self._wanted or self._is_closed, max(0.0, due_s - time.monotonic()))
                # Taken out first: who asks from now on may come too late for this load, and has to ask for another.
                wanted = next(iter(self._wanted), None)
                if wanted is not None:
                    del self._wanted[wanted]
            try:
                if wanted is not None:
                    self._bring_now(*wanted, cause="demand")
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + _REVIEW_EVERY_S
                    self.review()
            except Exception:  # requests wait for this thread: it must outlive whatever it meets
                _LOGGER.exception("holding variants in memory failed")

    def review(self) -> None:
        """Let go of what is no longer used, fill free room, and swap where another choice would serve better."""
        with self._changing:
            self._settle_retired()
            while (filling := choose_filling(items := self._items(), self._room_of(items))) and not self._wanted:
                self._bring_item(filling, "room")
            now_s = time.perf_counter()
            swap = choose_swap(items, self._room_of(items), now_s, tuple(self._swaps_s))
            if swap is not None:
                self._swaps_s.append(now_s)
                self._bring_item(swap.coming, "swap")

    def _bring_item(self, item: Holdable, cause: str) -> None:
        model = next(model for model in self._models if model.info.name == item.model and model not in self._retired)
        self._bring_now(model, item.variant, cause)

    def _bring_now(self, model: LoadedModel, variant: str, cause: str) -> None:
        """Load an evicted variant and let its requests go on; whoever waited in vain is told why."""
        with self._changing:
            source = self._models.get(model, {}).get(variant)
            try:
                if source is None:
                    raise ModelNotReady(f"model '{model.info.name}' is unloaded")  # noqa: TRY301 - told like the others
                if variant in model.evicted:
                    opened = self.open(source, _RUNS_ON_DEMAND)
                    model.files = {**model.files, variant: opened.file}
                    model.restore(variant, opened.backend, opened.ratio, time.perf_counter())
                    self._observer.variant_held(model.info.name, source.variant, cause)
            except Exception as error:  # noqa: BLE001 - a variant's surprise must not end the thread that loads the others
                self._give_up(model, variant, error)
                return
        if self._parking is not None:
            self._parking.readmit(model)

    def _give_up(self, model: LoadedModel, variant: str, error: Exception) -> None:
        why = str(error) if isinstance(error, BackendFailed | ModelNotReady) else f"unexpected {type(error).__name__}"
        if variant in model.health:
            model.give_up(variant, why, time.perf_counter())
        self._observer.variant_failed(model.info.name, variant, why)
        if self._parking is not None:
            problem = f"variant '{variant}' of model '{model.info.name}' cannot be loaded: {why}"
            self._parking.refuse(model, variant, ModelNotReady(problem))

    def _make_room(self, source: Source) -> None:
        coming, items = source.holdable(), self._items()
        leaving = choose_leaving(items, coming, self._room_of(items))
        if leaving is None:
            raise MemoryExceeded(
                f"it needs {_mib(coming.size_bytes)} of a memory budget of {_mib(self._budget_bytes)}, of which "
                f"{_mib(self.held_bytes)} are in use and cannot be evicted far enough"
            )
        for weights in leaving:
            self._evict(weights)

    def _evict(self, weights: Hashable) -> None:
        using = self._copies.users(weights)
        users = [
            (model, name)
            for model, sources in self._models.items()
            for name, source in sources.items()
            if source in using
        ]
        for model, name in users:
            if self._parking is None:
                model.evict(name)
            else:
                self._parking.retire(model, name)
        for model, name in users:
            self._wait_until_unused(model, name)
            model.drop(name)
            if model not in self._retired:  # its name is its successor's now
                self._observer.variant_evicted(model.info.name, name)
        self._copies.drop(weights)

    def _wait_until_unused(self, model: LoadedModel, variant: str) -> None:
        pause = threading.Event()
        while self._parking is not None and self._parking.is_using(model, (variant,)):
            pause.wait(_LOOK_AGAIN_S)

    def _settle_retired(self) -> None:
        for model in list(self._retired):
            if self._parking is None or not self._parking.is_busy_with(model, self._models[model]):
                self._retired.remove(model)
                self.forget(self._models.pop(model).values())

    def _items(self) -> list[Holdable]:
        """Return every variant that is here, or could be, as the policy sees it."""
        now_s = time.perf_counter()
        self.uses.settle(now_s)
        adopted = {source for sources in self._models.values() for source in sources.values()}
        items = []
        for model, sources in self._models.items():
            is_retired = model in self._retired
            for name, source in sources.items():
                item, key = source.holdable(model.policy.variants), (model.info.name, name)
                users = self._copies.users(source.weights)
                if source in users and users <= adopted:
                    # What only an outgoing model uses goes first.
                    uses = -1.0 if is_retired else self.uses.answered.get(key, 0.0)
                    items.append(replace(item, is_held=True, size_bytes=self._copies.size_of(source), uses=uses))
                elif name in model.evicted and not is_retired and not model.health[name].is_out(now_s):
                    items.append(replace(item, demand=self.uses.demand.get(key, 0.0)))
        return items

    def _room_of(self, items: Sequence[Holdable]) -> float:
        """Return the budget less what these items are not about: copies of models that are being loaded."""
        return self._budget_bytes - (self.held_bytes - held_bytes(items))


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
