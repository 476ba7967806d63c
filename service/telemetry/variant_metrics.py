"""What is served: variants with their digests and memory, how they came into memory and why they left it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.telemetry.families import BY_VARIANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from service.domain.variants import ModelInfo, Variant
    from service.telemetry.families import Families

_LOAD_CAUSES: Final = ("model", "demand", "swap", "room")
_TREATMENTS: Final = ("precise", "avoid", "allow")


class VariantMetrics:
    """Says which variants are here; memory is what the manifest measured that a process gains by loading one."""

    def __init__(self, families: Families) -> None:
        """Define the families."""
        self._failures = families.counter("variant_failures", "Variants that failed to load or to run", BY_VARIANT)
        self._memory = _Memory()
        families.registry.register(self._memory)
        self._loads = families.counter("variant_loads", "Times that a variant came into memory", (*BY_VARIANT, "cause"))
        self._evictions = families.counter("variant_evictions", "Times that a variant made room for others", BY_VARIANT)
        self._unproven = families.gauge(
            "variant_unproven", "1 where int8 is not known to be right on this machine", (*BY_VARIANT, "treatment")
        )
        self._info = families.gauge("variant_info", "What is served", (*BY_VARIANT, "tier", "version", "digest"))

    def create(self, model: ModelInfo, variant: Variant) -> None:
        """Create a variant's label sets; counters start at zero, or stay where they were."""
        labels = (model.name, variant.name)
        self._failures.labels(*labels)
        self._evictions.labels(*labels)
        for cause in _LOAD_CAUSES:
            self._loads.labels(*labels, cause)
        for treatment in _TREATMENTS:
            self._unproven.labels(*labels, treatment).set(0)
        self._memory.put(labels, 0, variant.memory_bytes)
        self._info.labels(*labels, variant.tier, model.version, variant.digest).set(1)

    def forget(self, model: str) -> None:
        """Say no more that a model is served; its counters stay, as Prometheus wants them."""
        for gauge in (self._info, self._unproven):
            gauge.remove_by_labels({"model": model})
        self._memory.forget(model)

    def failed(self, model: str, variant: str) -> None:
        """Count a failure."""
        self._failures.labels(model, variant).inc()

    def unproven(self, model: str, variant: str, treatment: str) -> None:
        """Tell what is done about a variant that may be wrong on this machine."""
        self._unproven.labels(model, variant, treatment).set(1)

    def held(self, model: str, variant: Variant, cause: str) -> None:
        """Count a load, and what it takes."""
        self._loads.labels(model, variant.name, cause).inc()
        self._memory.put((model, variant.name), variant.memory_bytes, variant.memory_bytes)

    def evicted(self, model: str, variant: str) -> None:
        """Count an eviction, and what it frees."""
        self._evictions.labels(model, variant).inc()
        self._memory.let_go((model, variant))


class _Memory(Collector):
    """Memory of each variant: ``loaded`` is what it takes now, 0 while it is not here, ``needed`` what it takes if so.

    All variants are read as of one moment. Read one by one, a variant that makes room and the one that it makes room
    for may both be seen, which together exceed a budget that was kept.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._bytes: Mapping[tuple[str, str], tuple[int, int]] = {}  # replaced whole, so that readers need no lock

    def put(self, variant: tuple[str, str], loaded: int, needed: int) -> None:
        """Set what a variant of a model takes, and what it needs."""
        with self._changing:
            self._bytes = {**self._bytes, variant: (loaded, needed)}

    def let_go(self, variant: tuple[str, str]) -> None:
        """Set that a variant takes nothing, if it is one that is served."""
        with self._changing:
            if variant in self._bytes:
                self._bytes = {**self._bytes, variant: (0, self._bytes[variant][1])}

    def forget(self, model: str) -> None:
        """Drop a model's variants."""
        with self._changing:
            self._bytes = {variant: sizes for variant, sizes in self._bytes.items() if variant[0] != model}

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("tiergate_variant_memory_bytes", "Memory of a variant.", None, (*BY_VARIANT, "kind"))
        for variant, (loaded, needed) in self._bytes.items():
            family.add_metric((*variant, "loaded"), loaded)
            family.add_metric((*variant, "needed"), needed)
        yield family
