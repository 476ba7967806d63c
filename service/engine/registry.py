"""Models in memory: loading from the repository, warming up, replacing, unloading.

Loading is validate -> load -> warm -> swap: a model that cannot be loaded leaves what was there before in place. A
variant that cannot be loaded is left out and named, the others serve. One that is fine but finds no room in the memory
budget is verified, and left to be loaded when a request needs it.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from service.domain.descriptions import IndexEntry, VariantState
from service.domain.errors import BackendFailed, ModelNotFound, ModelNotReady
from service.engine.drift.references import read_reference
from service.engine.holding import Holding
from service.engine.loaded import LoadedModel
from service.engine.opening import Source
from service.engine.repository import describe
from service.policy.desk import Standing
from service.policy.routing import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from service.domain.observer import Observer
    from service.domain.policy_file import PolicyFile
    from service.domain.variants import ModelInfo, Variant
    from service.domain.verdicts import Verdict
    from service.engine.copies import Opened
    from service.engine.remote_variant import RemoteVariant
    from service.engine.remotes import Remotes
    from service.engine.repository import Repository, StoredFile, StoredModel
    from variants.manifest import ModelManifest

_Item = TypeVar("_Item")

_EVICTED = "evicted: loaded when a request needs it"


@dataclass(slots=True)
class _Loading:
    """What became of the variants of a model that is being loaded."""

    sources: Mapping[str, Source]
    opened: dict[str, Opened] = field(default_factory=dict)
    evicted: dict[str, StoredFile] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    remote: Mapping[str, RemoteVariant] = field(default_factory=dict)


class Registry:
    """The loaded models by name; ``load`` and ``unload`` may be called from any thread, reads from all.

    Changes put a new dictionary in place of the old one, so that a reader never sees one change under it.
    """

    def __init__(
        self,
        repository: Repository,
        policy: PolicyFile,
        observer: Observer,
        max_timeout_s: float = 60.0,
        holding: Holding | None = None,
        remotes: Remotes | None = None,
    ) -> None:
        """Start empty; ``load_all`` fills it.

        ``holding`` has the variants in memory, without a budget by default; ``remotes`` those on other servers.
        """
        self._remotes = remotes
        self._holding = holding or Holding(observer)
        self._repository = repository
        self._policy = policy
        self._max_timeout_s = max_timeout_s
        self._observer = observer
        self._models: dict[str, LoadedModel] = {}
        self._problems: dict[str, tuple[str, str]] = {}
        self._unloaded: dict[str, str] = {}
        self._changing = threading.Lock()  # held while a model is loaded
        self._swapping = threading.Lock()  # held for a moment, to change what is served or what it goes by

    def load_all(self) -> None:
        """Load every model of the repository; what cannot be loaded is kept with its problem."""
        found = self._repository.scan()
        wanted = self._choose([source for stored in found for source in self._sources(stored).values()])
        for stored in found:
            try:
                self._load(stored.name, wanted)
            except ModelNotFound:
                self._report(stored, stored.problem)
            except ModelNotReady:
                continue  # kept in the index with its reason, and reported to the observer
            except Exception as error:  # noqa: BLE001 - one model's surprise must not keep the others from serving
                self._report(stored, f"loading it failed unexpectedly: {type(error).__name__}")

    def load(self, name: str) -> LoadedModel:
        """Load or reload a model's newest version, and swap it in.

        Raises:
            ModelNotFound: The repository has no such model.
            ModelNotReady: It has, but its manifest or every variant of it is broken; what was loaded stays.
        """
        return self._load(name)

    def _load(self, name: str, wanted: Collection[Hashable] | None = None) -> LoadedModel:
        with self._changing:
            try:
                return self._load_found(self._repository.find(name), wanted)
            finally:
                if self._remotes:
                    self._remotes.tidy()

    def _load_found(self, stored: StoredModel, wanted: Collection[Hashable] | None) -> LoadedModel:
        if stored.manifest is None:
            message = f"model '{stored.name}' cannot be loaded: {stored.problem}"
            if not stored.version:
                raise ModelNotFound(message)  # whatever was asked for; the index lists only what is in the folder
            self._report(stored, stored.problem)
            raise ModelNotReady(message)
        remote = self._open_remote(stored, describe(stored.manifest))
        sources = self._sources(stored)
        loading = self._open(sources, self._choose(list(sources.values())) if wanted is None else wanted)
        loading.remote = remote
        problem = self._problem(stored.name, loading)
        if problem:
            self._holding.forget(sources.values())
            self._report(stored, problem)
            raise ModelNotReady(f"model '{stored.name}' cannot be loaded: {problem}")
        policy = self._policy
        model = self._build(stored.manifest, loading)
        self._holding.adopt(model, {name: sources[name] for name in [*loading.opened, *loading.evicted]})
        self._put(model, policy)
        for item in stored.unproven:
            self._observer.variant_unproven(stored.name, item.variant, item.treatment, item.why)
        if self._remotes:
            self._remotes.tell(model)
        return model

    def unload(self, name: str) -> None:
        """Forget a model; runs under way finish first because they hold the backend.

        Raises:
            ModelNotFound: No such model is loaded.
        """
        with self._changing:
            model = self.get(name)
            with self._swapping:
                self._models = _without(self._models, name)
            self._problems = _without(self._problems, name)
            self._unloaded = {**self._unloaded, name: model.info.version}
            self._holding.retire(model)
            if self._remotes:
                self._remotes.tidy()
        self._observer.model_unloaded(name)

    def adopt(self, model: LoadedModel) -> None:
        """Put in a model that did not come from the repository; tests and embedding programs use it."""
        with self._changing:
            self._put(model)

    def get(self, name: str, version: str = "") -> LoadedModel:
        """Return a loaded model.

        Raises:
            ModelNotFound: No such model or version is here.
            ModelNotReady: It is here, but broken or unloaded.
        """
        model = self._models.get(name)
        if model is None:
            if problem := self._problems.get(name):
                raise ModelNotReady(f"model '{name}' is not ready: {problem[1]}")
            if name in self._unloaded:
                raise ModelNotReady(f"model '{name}' is unloaded")
            raise ModelNotFound(f"model '{name}' is unknown; loaded are {', '.join(self._models) or 'none'}")
        if version not in ("", model.info.version):
            raise ModelNotFound(f"model '{name}' has no version '{version}'; version {model.info.version} is served")
        return model

    def all(self) -> tuple[LoadedModel, ...]:
        """Return the loaded models, in the order of loading."""
        return tuple(self._models.values())

    def index(self) -> tuple[IndexEntry, ...]:
        """Return one row for each model, and what is wrong."""
        rows = []
        for model in self._models.values():
            absent = dict.fromkeys(sorted(model.evicted), _EVICTED) | dict(model.problems)
            reason = "; ".join(f"variant {name}: {why}" for name, why in absent.items())
            if model.info.name in self._problems:
                reason = f"reload failed: {self._problems[model.info.name][1]}"
            rows.append(IndexEntry(model.info.name, model.info.version, "READY", reason))
        broken = {name: problem for name, problem in self._problems.items() if name not in self._models}
        rows += [IndexEntry(name, version, "UNAVAILABLE", why) for name, (version, why) in broken.items()]
        rows += [IndexEntry(name, version, "UNAVAILABLE", "unloaded") for name, version in self._unloaded.items()]
        return tuple(rows)

    def states(self, name: str, now_s: float) -> tuple[VariantState, ...]:
        """Return every variant of a model with its state.

        Raises:
            ModelNotFound, ModelNotReady: As ``get``.
        """
        model = self.get(name)
        ready = model.ready(now_s)
        return tuple(_state(model, variant, ready, now_s) for variant in model.info.variants)

    def check_policy(self, policy: PolicyFile) -> tuple[str, ...]:
        """Return why a policy cannot hold here: the loaded models of which it allows no variant; none where it can."""
        return tuple(
            f"models.{model.info.name}.variants allows only {', '.join(allowed)}; loaded are {', '.join(model.health)}"
            for model in self.all()
            if (allowed := policy.of(model.info.name).variants) and not set(allowed) & model.health.keys()
        )

    def prepare_policy(self, policy: PolicyFile) -> Mapping[LoadedModel, dict[str, tuple[float, ...]]]:
        """Return what ``apply_policy`` would have to compute; on any thread."""
        return {model: model.tables_by(policy.of(model.info.name)) for model in self.all()}

    def apply_policy(
        self, policy: PolicyFile, prepared: Mapping[LoadedModel, dict[str, tuple[float, ...]]] | None = None
    ) -> None:
        """Let every model, those that are being loaded too, go by another policy.

        On the event loop's thread and with the dispatcher's lock held, as ``LoadedModel.go_by``.
        """
        with self._swapping:
            self._policy = policy
            for model in self._models.values():
                model.go_by(self._rules(model.info.name), (prepared or {}).get(model))

    def failed(self) -> tuple[str, ...]:
        """Return the models that could not be loaded, and of which nothing is served."""
        return tuple(name for name in self._problems if name not in self._models)

    def find(self, name: str) -> LoadedModel | None:
        """Return a model, ``None`` where it is not loaded."""
        return self._models.get(name)

    def default_budget_s(self, name: str) -> float:
        """Return the default budget of a model; the longest of all where it is not known."""
        model = self._models.get(name)
        if model is not None:
            return model.policy.default_budget_s
        return max([item.policy.default_budget_s for item in self._models.values()], default=math.inf)

    def _rules(self, name: str) -> Rules:
        return Rules(self._policy.of(name), self._policy.hardware_classes, self._max_timeout_s)

    def _put(self, model: LoadedModel, policy: PolicyFile | None = None) -> None:
        # Observers know a model before its first request can reach them.
        name = model.info.name
        good = tuple(item for item in model.info.variants if item.name in model.health)
        self._observer.model_loaded(replace(model.info, variants=good))
        for item in good:
            if item.name in model.backends:
                self._observer.variant_held(name, item, "model")
        before = self._models.get(name)
        if before is not None and before.verdicts:
            model.believe(_verdicts_on_same_files(before, model))
        with self._swapping:
            if policy is not None and policy is not self._policy:  # it was replaced while the model was loaded
                model.go_by(self._rules(name))
            self._models = {**self._models, name: model}
        if before is not None:
            self._holding.retire(before)
        self._problems = _without(self._problems, name)
        self._unloaded = _without(self._unloaded, name)

    def _report(self, stored: StoredModel, problem: str) -> None:
        self._problems = {**self._problems, stored.name: (stored.version, problem)}
        self._observer.variant_failed(stored.name, "", problem)

    def _open_remote(self, stored: StoredModel, info: ModelInfo) -> Mapping[str, RemoteVariant]:
        try:
            return self._remotes.open(info) if self._remotes else {}
        except BackendFailed as error:
            self._report(stored, str(error))
            raise ModelNotReady(f"model '{stored.name}' cannot be loaded: {error}") from None

    def _sources(self, stored: StoredModel) -> dict[str, Source]:
        """Return where the variants come from that this process is to hold itself."""
        return _without_all(_sources(stored), self._remotes.named(stored.name) if self._remotes else ())

    def _choose(self, sources: list[Source]) -> frozenset[Hashable]:
        allowed = {source.info.name: self._policy.of(source.info.name).variants for source in sources}
        return self._holding.choose(sources, allowed)

    def _open(self, sources: Mapping[str, Source], wanted: Collection[Hashable]) -> _Loading:
        loading = _Loading(sources)
        for name, source in sources.items():
            if source.weights in wanted:
                self._attempt(loading, name, self._holding.open, loading.opened)
            else:
                self._attempt(loading, name, self._holding.check, loading.evicted)
        # What was chosen may be broken, or its room is taken: others have to give way for one variant at least.
        allowed = self._policy.of(next(iter(sources.values())).info.name).variants if sources else ()
        for name in sorted(loading.evicted, key=lambda name: _order(sources[name].variant, allowed)):
            if loading.opened:
                break
            del loading.evicted[name]
            self._attempt(loading, name, self._holding.open, loading.opened)
        return loading

    def _attempt(self, loading: _Loading, name: str, act: Callable[[Source], _Item], results: dict[str, _Item]) -> None:
        source = loading.sources[name]
        try:
            results[name] = act(source)
        except Exception as error:  # noqa: BLE001 - a variant's surprise must not keep the others from serving
            problem = str(error) if isinstance(error, BackendFailed) else f"unexpected {type(error).__name__}"
            loading.problems[name] = problem
            self._observer.variant_failed(source.info.name, name, problem)

    def _problem(self, name: str, loading: _Loading) -> str:
        """Return why a model cannot be served, '' where it can."""
        allowed, good = self._policy.of(name).variants, [*loading.opened, *loading.evicted, *loading.remote]
        if allowed and not set(allowed) & set(good):
            return f"its policy allows only {', '.join(allowed)}; loaded are {', '.join(good) or 'none'}"
        if not loading.opened and not loading.remote:
            return "no variant can be loaded: " + "; ".join(f"{name}: {why}" for name, why in loading.problems.items())
        return ""

    def _build(self, manifest: ModelManifest, loading: _Loading) -> LoadedModel:
        info, opened = describe(manifest), loading.opened
        model = LoadedModel(
            info=info,
            rules=self._rules(info.name),
            backends={name: item.backend for name, item in opened.items()},
            problems=loading.problems,
            files=loading.evicted | {name: item.file for name, item in opened.items()},
            evicted=frozenset(loading.evicted),
            reference=read_reference(manifest),
            remote=loading.remote,
            standing=Standing(pools={name: remote.pool for name, remote in loading.remote.items()}),
        )
        for name, item in opened.items():
            model.corrections[name].rebase(min(item.ratio, self._calm_ratio(info, name)), time.perf_counter())
        # What has not run here yet is thought to differ from its profile as the others do.
        typical = sorted(item.ratio for item in opened.values())[len(opened) // 2] if opened else 1.0
        for name in loading.evicted:
            model.corrections[name].rebase(min(typical, self._calm_ratio(info, name)), time.perf_counter())
        return model

    def _calm_ratio(self, info: ModelInfo, name: str) -> float:
        """Return what the same file showed when it was loaded before: a reload warms up beside live traffic."""
        before, now = self._models.get(info.name), info.variant(name)
        known = before.info.variant(name) if before is not None else None
        if before is None or known is None or now is None or known.digest != now.digest:
            return math.inf
        return before.corrections[name].base if name in before.corrections else math.inf


def _verdicts_on_same_files(before: LoadedModel, model: LoadedModel) -> dict[str, Verdict]:
    """Return what drift said of variants whose file a reload has left as it was."""
    digests = {item.name: item.digest for item in model.info.variants}
    same = {item.name for item in before.info.variants if digests.get(item.name) == item.digest}
    return {name: verdict for name, verdict in before.verdicts.items() if name in same}


def _without(items: Mapping[str, _Item], name: str) -> dict[str, _Item]:
    return _without_all(items, (name,))


def _without_all(items: Mapping[str, _Item], names: Collection[str]) -> dict[str, _Item]:
    return {key: value for key, value in items.items() if key not in names}


def _sources(stored: StoredModel) -> dict[str, Source]:
    if stored.manifest is None:
        return {}
    info = describe(stored.manifest)
    return {variant.name: Source(stored, info, variant) for variant in stored.manifest.published}


def _order(variant: Variant, allowed: Collection[str]) -> tuple[bool, int]:
    """Sort the smallest first, of those that routing may choose."""
    return not variant.is_routable or bool(allowed and variant.name not in allowed), variant.memory_bytes


def _state(model: LoadedModel, variant: Variant, ready: Collection[str], now_s: float) -> VariantState:
    name = variant.name
    state = "ready" if name in ready else "evicted" if name in model.evicted else "failed"
    if name in model.problems:
        state = "failed"
    reasons = {"ready": "", "evicted": _EVICTED.removeprefix("evicted: "), "failed": "its runs failed"}
    ratio = model.corrections[name].at(now_s) if name in model.corrections else 1.0
    drift = model.verdicts[name].state if name in model.verdicts else "healthy"
    return VariantState(variant, state, ratio, model.problems.get(name, reasons[state]), drift)
