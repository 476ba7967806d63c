"""What the gateway says about itself and its models; nothing here computes or waits for an inference."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from service.domain.descriptions import Artifact, CandidateReport, RouteExplanation, ServerInfo
from service.domain.errors import ModelNotReady, VariantNotFound
from service.engine.daemon_work import in_daemon_thread
from service.engine.decisions import Decisions
from service.policy.latency import Handover
from service.policy.routing import name_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.decisions import Decision
    from service.domain.descriptions import IndexEntry, ModelStatistics, VariantState
    from service.domain.inference import Knobs
    from service.domain.variants import ModelInfo, Variant
    from service.engine.dispatcher import Dispatcher
    from service.engine.loaded import LoadedModel
    from service.engine.registry import Registry
    from service.engine.statistics import StatisticsObserver
    from service.policy.routing import Route

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this server is, and which models it must have to be ready."""

    name: str
    version: str
    required_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the catalog looks at when asked."""

    identity: Identity
    registry: Registry
    dispatcher: Dispatcher
    statistics: StatisticsObserver
    decisions: Decisions = field(default_factory=Decisions)
    handover: Handover = field(default_factory=Handover)


class Catalog:
    """Metadata, states, statistics and explained decisions of the loaded models."""

    def __init__(self, parts: Parts) -> None:
        """Look at these parts when asked."""
        self._identity = parts.identity
        self._registry = parts.registry
        self._dispatcher = parts.dispatcher
        self._statistics = parts.statistics
        self._decisions = parts.decisions
        self._clock = parts.dispatcher.clock
        self._handover = parts.handover
        self._is_leaving = False

    def leave(self) -> None:
        """Stop being ready, so that traffic is sent elsewhere; requests are still answered."""
        self._is_leaving = True

    def server_info(self) -> ServerInfo:
        """Return the server's name, version and protocol extensions."""
        return ServerInfo(self._identity.name, self._identity.version, EXTENSIONS)

    def is_live(self) -> bool:
        """Tell that the event loop turns, by answering."""
        return True

    def is_ready(self) -> bool:
        """Tell whether every required model (any, when none is named) can answer, and the server is not leaving."""
        now_s = self._clock()
        able = {model.info.name for model in self._registry.all() if model.ready(now_s)}
        return not self._is_leaving and bool(able) and able.issuperset(self._identity.required_models)

    def is_model_ready(self, model: str, version: str) -> bool:
        """Tell whether a model, or one variant of it (``m--variant``), can answer.

        Raises:
            ModelNotFound, VariantNotFound: There is none of that name and version.
        """
        try:
            loaded, variant = self._find(model, version)
        except ModelNotReady:
            return False
        ready = loaded.ready(self._clock())
        able = ready | loaded.evicted  # what is not in memory is loaded when a request needs it
        return not self._is_leaving and (bool(ready) if variant is None else variant.name in able)

    def model_info(self, model: str, version: str) -> ModelInfo:
        """Return what clients see of a model; ``m--variant`` names the model too.

        Raises:
            ModelNotFound, ModelNotReady, VariantNotFound: It is not here.
        """
        return self._find(model, version)[0].info

    def statistics(self, model: str, version: str) -> tuple[ModelStatistics, ...]:
        """Return the statistics of one model, or of all where ``model`` is empty.

        Raises:
            ModelNotFound, ModelNotReady: It is not here.
        """
        if not model:
            return tuple(self._statistics.of(item.info.name) for item in self._registry.all())
        return (self._statistics.of(self._find(model, version)[0].info.name),)

    def index(self, *, ready_only: bool) -> tuple[IndexEntry, ...]:
        """Return every model of the repository with its state and what is wrong with it."""
        rows = self._registry.index()
        return tuple(row for row in rows if row.state == "READY") if ready_only else rows

    def variants(self, model: str) -> tuple[VariantState, ...]:
        """Return every variant of a model with its profile and state.

        Raises:
            ModelNotFound, ModelNotReady: The model is not here.
        """
        return self._registry.states(model, self._clock())

    def artifact(self, model: str, variant: str, knobs: Knobs) -> Artifact:
        """Return the file of a variant, or where ``variant`` is empty of the most accurate one that suits ``knobs``.

        Raises:
            ModelNotFound, ModelNotReady, VariantNotFound, InvalidRequest: Nothing fits, or the file has changed.
        """
        loaded, _ = self._find(model, "")
        name = variant or _for_device(loaded.route(knobs, self._clock()), model)
        chosen = _variant(loaded, name)
        file = loaded.files.get(name)
        if file is None or not file.is_unchanged():
            raise ModelNotReady(f"the file of variant '{name}' of model '{model}' is not available as it was verified")
        shown = f"{model}-{name}{file.path.suffix}"
        return Artifact(file.path, chosen.digest, chosen.file_bytes, shown, name, file.identity)

    def explain(self, model: str, knobs: Knobs) -> RouteExplanation:
        """Return what routing would decide for a one-row request now, without running it.

        Raises:
            ModelNotFound, ModelNotReady, VariantNotFound, InvalidRequest: As for a request with these knobs.
        """
        loaded, _ = self._find(model, "")
        now_s = self._clock()
        route, costs, wait_s = loaded.route(knobs, now_s), loaded.costs(now_s), self._dispatcher.wait_s()
        times = {item.name: self._idle_s(loaded, item.name, costs.of(item.name, 1)) for item in route.candidates}
        limit_s = min(route.budget_s, loaded.rules.timeout_s(knobs))
        best = next((name for name, time_s in times.items() if time_s <= limit_s), None)
        timely = [name for name, time_s in times.items() if wait_s + time_s <= limit_s]
        chosen = timely[0] if timely else min(times, key=lambda name: times[name])
        return RouteExplanation(
            model=model,
            chosen=chosen,
            tier=_variant(loaded, chosen).tier,
            reason=name_reason(route, chosen, best, is_late=not timely),
            budget_s=route.budget_s,
            wait_s=wait_s,
            hardware_class=route.hardware_class,
            candidates=tuple(
                self._report(loaded, item, item.name in times, wait_s, route.budget_s) for item in loaded.info.variants
            ),
        )

    def decisions(self, model: str, last: int) -> Iterator[Decision]:
        """Return the last routing decisions of a model that led to an answer, explained one by one, the newest first.

        Raises:
            ModelNotFound, ModelNotReady: The model is not here.
        """
        return self._decisions.last(self._find(model, "")[0], last, self._clock())

    async def load_model(self, model: str) -> None:
        """Load or reload a model from the repository; the old one serves until the new one is warm.

        Raises:
            ModelNotFound, ModelNotReady: There is none, or it is broken; what was loaded stays.
        """
        await in_daemon_thread(partial(self._registry.load, model))

    async def unload_model(self, model: str) -> None:
        """Forget a model; what it is computing is finished.

        Raises:
            ModelNotFound: It is not loaded.
        """
        await in_daemon_thread(partial(self._registry.unload, model))  # waits where another model is being loaded

    def _idle_s(self, loaded: LoadedModel, variant: str, cost_s: float, rows: int = 1) -> float:
        """Return the time of a run on an idle machine with the hand-over around it."""
        is_inline = loaded.may_inline(variant, rows, self._dispatcher.inline_s, self._clock())
        return cost_s + self._handover.after_s + (0.0 if is_inline else self._handover.before_s)

    def _report(
        self, loaded: LoadedModel, item: Variant, is_candidate: bool, wait_s: float, budget_s: float
    ) -> CandidateReport:
        if item.name not in loaded.health:
            return CandidateReport(item.name, item.tier, item.accuracy, 0.0, False, False, "not loaded")
        cost_s = loaded.costs(self._clock()).of(item.name, 1)
        predicted_s = wait_s + self._idle_s(loaded, item.name, cost_s)
        fits = predicted_s <= budget_s
        if is_candidate:
            why = "fits the budget" if fits else "too slow for the budget"
        elif item.name in loaded.evicted:
            why = "evicted: loaded when a request needs it"
        else:
            why = "excluded by the request's knobs" if item.is_routable else item.note
        return CandidateReport(item.name, item.tier, item.accuracy, predicted_s, fits, is_candidate, why)

    def _find(self, model: str, version: str) -> tuple[LoadedModel, Variant | None]:
        name, separator, variant = model.partition("--")
        loaded = self._registry.get(name, version)
        return loaded, _variant(loaded, variant) if separator else None


def _variant(loaded: LoadedModel, name: str) -> Variant:
    variant = loaded.info.variant(name)
    if variant is None:
        names = ", ".join(item.name for item in loaded.info.variants)
        raise VariantNotFound(f"model '{loaded.info.name}' has no variant '{name}'; its variants are {names}")
    return variant


def _for_device(route: Route, model: str) -> str:
    """Return the best variant that the client's device can run itself."""
    if route.is_beyond_hardware:
        raise ModelNotReady(f"drift has taken out every variant of model '{model}' that suits the client's device")
    return route.candidates[0].name
