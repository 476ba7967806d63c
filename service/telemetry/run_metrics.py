"""What lanes do: how long runs take, for how many rows, at what CPU time, and how well it was predicted."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.telemetry.families import BY_VARIANT

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class RunMetrics:
    """Counts runs, from any thread; ``edges_s`` are the bucket edges of compute times."""

    def __init__(self, families: Families, edges_s: Sequence[float]) -> None:
        """Define the families."""
        self._series: dict[tuple[str, str], _Series] = {}
        self._lock = threading.Lock()  # runs end on several lanes
        self._compute = families.histogram("compute_duration_seconds", "Run of a batch", BY_VARIANT, edges_s)
        self._rows = families.histogram("batch_size", "Rows computed together", BY_VARIANT, _ROWS)
        self._predicted = families.histogram(
            "predicted_over_actual_ratio", "Predicted compute time over real", BY_VARIANT, _RATIOS
        )
        self._decision = families.histogram("routing_decision_seconds", "Choosing a run", ("model",), _DECISIONS_S)
        self._cpu_s = families.tally("variant_cpu_seconds", "CPU time that runs took", BY_VARIANT)

    def create(self, model: str, variant: str) -> None:
        """Create a variant's label sets at zero; what was counted before stays."""
        labels = (model, variant)
        self._series[labels] = _Series(
            compute=self._compute.labels(*labels),
            rows=self._rows.labels(*labels),
            predicted=self._predicted.labels(*labels),
            decision=self._decision.labels(model),
            cpu_s=self._cpu_s.labels(*labels),
        )

    def run_finished(self, report: RunReport) -> None:
        """Count a run; a failed one tells nothing but the CPU time that it took."""
        series = self._series[report.model, report.variant]
        with self._lock:
            series.cpu_s.value += report.cpu_s
            if report.failed:
                return
            series.compute.observe(report.compute_s)
            series.rows.observe(report.rows)
            series.predicted.observe(report.predicted_s / max(report.compute_s, 1e-9))
            series.decision.observe(report.decision_s)
