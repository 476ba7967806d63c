"""What is served: variants with their digests and memory, how they came into memory and why they left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.telemetry.families import BY_VARIANT

if TYPE_CHECKING:
    from service.domain.variants import ModelInfo, Variant
    from service.telemetry.families import Families

_LOAD_CAUSES: Final = ("model", "demand", "swap", "room")
_TREATMENTS: Final = ("precise", "avoid", "allow")


class VariantMetrics:
    """Says which variants are here; memory is what the manifest measured that a process gains by loading one.

    ``kind`` is ``loaded`` for what is in memory now, 0 while it is not, and ``needed`` for what it takes when it is.
    """

    def __init__(self, families: Families) -> None:
        """Define the families."""
        self._failures = families.counter("variant_failures", "Variants that failed to load or to run", BY_VARIANT)
        self._memory = families.gauge("variant_memory_bytes", "Memory of a variant", (*BY_VARIANT, "kind"))
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
        self._memory.labels(*labels, "loaded").set(0)
        self._memory.labels(*labels, "needed").set(variant.memory_bytes)
        self._info.labels(*labels, variant.tier, model.version, variant.digest).set(1)

    def forget(self, model: str) -> None:
        """Say no more that a model is served; its counters stay, as Prometheus wants them."""
        for gauge in (self._info, self._memory, self._unproven):
            gauge.remove_by_labels({"model": model})

    def failed(self, model: str, variant: str) -> None:
        """Count a failure."""
        self._failures.labels(model, variant).inc()

    def unproven(self, model: str, variant: str, treatment: str) -> None:
        """Tell what is done about a variant that may be wrong on this machine."""
        self._unproven.labels(model, variant, treatment).set(1)

    def held(self, model: str, variant: Variant, cause: str) -> None:
        """Count a load, and what it takes."""
        self._loads.labels(model, variant.name, cause).inc()
        self._memory.labels(model, variant.name, "loaded").set(variant.memory_bytes)

    def evicted(self, model: str, variant: str) -> None:
        """Count an eviction, and what it frees."""
        self._evictions.labels(model, variant).inc()
        self._memory.labels(model, variant, "loaded").set(0)
