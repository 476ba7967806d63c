"""Models in memory: loading from the repository, warming up, replacing, unloading.

Loading is validate -> load -> warm -> swap: a model that cannot be loaded leaves what was there before in place. A
variant that cannot be loaded is left out and named, the others serve.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from service.domain.descriptions import IndexEntry, VariantState
from service.domain.errors import BackendFailed, ModelNotFound, ModelNotReady
from service.domain.tensors import DTYPES
from service.engine.backends.onnx import OnnxBackend
from service.engine.loaded import LoadedModel
from service.engine.onnx_guard import refuse_outside_references
from service.engine.repository import StoredFile, StoredModel, describe, read_variant
from service.policy.routing import Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.observer import Observer
    from service.domain.policy_file import PolicyFile
    from service.domain.tensors import TensorSpec
    from service.domain.variants import ModelInfo
    from service.engine.backends.backend import Backend
    from service.engine.repository import Repository
    from variants.manifest import ModelManifest, VariantManifest

_Item = TypeVar("_Item")
_WARM_UP_RUNS: Final = 30
_WARM_UP_MOST_S: Final = 0.5


OpenVariant = Callable[["StoredModel", "ModelInfo", "VariantManifest"], "tuple[Backend, StoredFile]"]
"""Reads, verifies and loads one variant."""


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
        open_variant: OpenVariant | None = None,
    ) -> None:
        """Start empty; ``load_all`` fills it. ``open_variant`` makes a variant's backend, ONNX Runtime's by default."""
        self._open = open_variant or open_onnx_variant
        self._repository = repository
        self._policy = policy
        self._max_timeout_s = max_timeout_s
        self._observer = observer
        self._models: dict[str, LoadedModel] = {}
        self._problems: dict[str, tuple[str, str]] = {}
        self._unloaded: dict[str, str] = {}
        self._changing = threading.Lock()

    def load_all(self) -> None:
        """Load every model of the repository; what cannot be loaded is kept with its problem."""
        for stored in self._repository.scan():
            try:
                self.load(stored.name)
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
        with self._changing:
            stored = self._repository.find(name)
            if stored.manifest is None:
                message = f"model '{name}' cannot be loaded: {stored.problem}"
                if not stored.version:
                    raise ModelNotFound(message)  # whatever was asked for; the index lists only what is in the folder
                self._report(stored, stored.problem)
                raise ModelNotReady(message)
            model = self._build(stored, stored.manifest)
            allowed = model.policy.variants
            if allowed and not set(allowed) & set(model.backends):
                problem = (
                    f"its policy allows only {', '.join(allowed)}; loaded are {', '.join(model.backends) or 'none'}"
                )
                self._report(stored, problem)
                raise ModelNotReady(f"model '{name}' cannot be loaded: {problem}")
            if not model.backends:
                problem = "; ".join(f"{variant}: {why}" for variant, why in model.problems.items())
                self._report(stored, f"no variant can be loaded: {problem}")
                raise ModelNotReady(f"model '{name}' cannot be loaded: {problem}")
            self._put(model)
        return model

    def unload(self, name: str) -> None:
        """Forget a model; runs under way finish first because they hold the backend.

        Raises:
            ModelNotFound: No such model is loaded.
        """
        with self._changing:
            model = self.get(name)
            self._models = _without(self._models, name)
            self._problems = _without(self._problems, name)
            self._unloaded = {**self._unloaded, name: model.info.version}
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
            reason = "; ".join(f"variant {name}: {why}" for name, why in model.problems.items())
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
        return tuple(
            VariantState(
                variant=variant,
                state="ready" if variant.name in ready else "failed",
                correction_ratio=model.corrections[variant.name].at(now_s) if variant.name in model.backends else 1.0,
                reason=model.problems.get(variant.name, "" if variant.name in ready else "its runs failed"),
            )
            for variant in model.info.variants
        )

    def _put(self, model: LoadedModel) -> None:
        # Observers know a model before its first request can reach them.
        loaded = tuple(item for item in model.info.variants if item.name in model.backends)
        self._observer.model_loaded(replace(model.info, variants=loaded))
        name = model.info.name
        self._models = {**self._models, name: model}
        self._problems = _without(self._problems, name)
        self._unloaded = _without(self._unloaded, name)

    def _report(self, stored: StoredModel, problem: str) -> None:
        self._problems = {**self._problems, stored.name: (stored.version, problem)}
        self._observer.variant_failed(stored.name, "", problem)

    def _build(self, stored: StoredModel, manifest: ModelManifest) -> LoadedModel:
        info = describe(manifest)
        backends: dict[str, Backend] = {}
        problems: dict[str, str] = {}
        ratios: dict[str, float] = {}
        files: dict[str, StoredFile] = {}
        for variant in manifest.published:
            try:
                backend, file = self._open(stored, info, variant)
                ratios[variant.name] = _warm_up(backend, info, variant.name)
                backends[variant.name], files[variant.name] = backend, file
            except Exception as error:  # noqa: BLE001 - a variant's surprise must not keep the others from serving
                problem = str(error) if isinstance(error, BackendFailed) else f"unexpected {type(error).__name__}"
                problems[variant.name] = problem
                self._observer.variant_failed(info.name, variant.name, problem)
        model = LoadedModel(
            info=info,
            rules=Rules(self._policy.of(info.name), self._policy.hardware_classes, self._max_timeout_s),
            backends=backends,
            problems=problems,
            files=files,
        )
        for name, ratio in ratios.items():
            model.corrections[name].rebase(min(ratio, self._calm_ratio(info, name)), time.perf_counter())
        return model

    def _calm_ratio(self, info: ModelInfo, name: str) -> float:
        """Return what the same file showed when it was loaded before: a reload warms up beside live traffic."""
        before, now = self._models.get(info.name), info.variant(name)
        known = before.info.variant(name) if before is not None else None
        if before is None or known is None or now is None or known.digest != now.digest:
            return math.inf
        return before.corrections[name].base if name in before.corrections else math.inf


def _without(items: Mapping[str, _Item], name: str) -> dict[str, _Item]:
    return {key: value for key, value in items.items() if key != name}


def open_onnx_variant(stored: StoredModel, info: ModelInfo, variant: VariantManifest) -> tuple[Backend, StoredFile]:
    """Read, verify and load one variant.

    Raises:
        BackendFailed: Its file is not what the manifest says, reaches outside itself, or the runtime refuses it.
    """
    if not any(row.threads == 1 for row in variant.latency.rows):
        raise BackendFailed("the manifest has no latency measured with one thread")
    content, file = read_variant(stored.folder, variant)
    refuse_outside_references(content)
    return OnnxBackend(content, info.inputs, info.outputs, variant.hardware.session_options), file


def _warm_up(backend: Backend, info: ModelInfo, name: str) -> float:
    """Run a variant on made-up rows until it is warm; return its time on this machine over its profile's median."""
    inputs = {spec.name: _blank(spec) for spec in info.inputs}
    times: list[float] = []
    end_s = time.perf_counter() + _WARM_UP_MOST_S
    while len(times) < _WARM_UP_RUNS and (not times or time.perf_counter() < end_s):
        start_s = time.perf_counter()
        backend.run(inputs)
        times.append(time.perf_counter() - start_s)
    profile = next(item.profile for item in info.variants if item.name == name)
    return statistics.median(times[len(times) // 3 :]) / max(profile.at(1).p50_s, 1e-9)


def _blank(spec: TensorSpec) -> np.ndarray[Any, Any]:
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
