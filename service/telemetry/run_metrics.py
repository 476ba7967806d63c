"""What lanes do: how long runs take, for how many rows, at what CPU time, and how well it was predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.telemetry.families import BY_VARIANT
from service.telemetry.later import Later, by_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.domain.observer import RunReport
    from service.telemetry.families import Families
    from service.telemetry.tallies import Count, Histogram

_DECISIONS_S: Final = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3)
_RATIOS: Final = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class _Series:
    """One variant's time series, found once, because finding them by label costs more than counting."""

    compute: Histogram
    rows: Histogram
    predicted: Histogram
    decision: Histogram
    cpu_s: Count
    unwanted_s: Count


class RunMetrics:
    """Counts runs, from any thread; ``edges_s`` are the bucket edges of compute times."""

    def __init__(self, families: Families, edges_s: Sequence[float]) -> None:
        """Define the families."""
        self._codes: dict[tuple[str, str], int] = {}
        self._series: list[_Series] = []
        self._later = Later(8, self._count)
        families.before_reading(self._later.settle)
        self._compute = families.histogram("compute_duration_seconds", "Run of a batch", BY_VARIANT, edges_s)
        self._rows = families.histogram("batch_size", "Rows computed together", BY_VARIANT, _ROWS)
        self._predicted = families.histogram(
            "predicted_over_actual_ratio", "Predicted compute time over real", BY_VARIANT, _RATIOS
        )
        self._decision = families.histogram("routing_decision_seconds", "Choosing a run", ("model",), _DECISIONS_S)
        self._replaced = families.counter("lanes_replaced", "Lanes that hung and got another thread", BY_VARIANT)
        self._cpu_s = families.tally("variant_cpu_seconds", "CPU time that runs took", BY_VARIANT)
        self._unwanted_s = families.tally(
            "unwanted_compute_seconds", "Run time for requests that had ended when the run was over", BY_VARIANT
        )

    def create(self, model: str, variant: str) -> None:
        """Create a variant's label sets at zero; what was counted before stays."""
        labels = (model, variant)
        if labels in self._codes:  # a reload: who still runs the model before it goes on counting here
            return
        series = _Series(
            compute=self._compute.labels(*labels),
            rows=self._rows.labels(*labels),
            predicted=self._predicted.labels(*labels),
            decision=self._decision.labels(model),
            cpu_s=self._cpu_s.labels(*labels),
            unwanted_s=self._unwanted_s.labels(*labels),
        )
        self._replaced.labels(*labels)
        self._series.append(series)
        self._codes[labels] = len(self._series) - 1

    def hung(self, model: str, variant: str) -> None:
        """Count a run that hung, and whose lane was replaced."""
        self._replaced.labels(model, variant).inc()

    def run_finished(self, report: RunReport) -> None:
        """Count a run; a failed one tells nothing but the CPU time that it took, and what of it nobody waited for."""
        self._later.note(
            self._codes[report.model, report.variant],
            report.failed,
            report.cpu_s,
            report.unwanted_s,
            report.compute_s,
            report.predicted_s,
            report.decision_s,
            report.rows,
        )

    def _count(self, noted: NDArray[np.float64]) -> None:
        for code, found in by_code(noted):
            series, has_failed = self._series[code], found[:, 0] > 0.0
            series.cpu_s.value += float(found[:, 1].sum())
            series.unwanted_s.value += float(found[:, 2].sum())
            compute_s, predicted_s, decision_s, rows = found[~has_failed, 3:].T
            series.compute.observe(compute_s)
            series.rows.observe(rows)
            series.predicted.observe(predicted_s / compute_s.clip(1e-9))
            series.decision.observe(decision_s)
