"""Triton's statistics of each model: counts and summed nanoseconds of every part of a request, since loading."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.domain.descriptions import BatchStatistics, Duration, ModelStatistics
from service.domain.observer import SilentObserver

if TYPE_CHECKING:
    from service.domain.inference import Answer, InferenceRequest
    from service.domain.observer import RunReport
    from service.domain.variants import ModelInfo


@dataclass(slots=True)
class _Sum:
    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.ns += round(seconds * 1e9)

    def freeze(self) -> Duration:
        return Duration(self.count, self.ns)


@dataclass(slots=True)
class _Parts:
    compute_input: _Sum = field(default_factory=_Sum)
    compute_infer: _Sum = field(default_factory=_Sum)
    compute_output: _Sum = field(default_factory=_Sum)

    def add(self, report: RunReport, count: int) -> None:
        self.compute_input.add(report.input_s * count, count)
        self.compute_infer.add(report.compute_s * count, count)
        self.compute_output.add(report.output_s * count, count)


@dataclass(slots=True)
class _Counters:
    version: str
    last_inference_ms: int = 0
    rows: int = 0
    runs: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    parts: _Parts = field(default_factory=_Parts)
    batches: dict[int, _Parts] = field(default_factory=dict)


class StatisticsObserver(SilentObserver):
    """Counts what the engine reports; a reload starts a model's counters anew."""

    def __init__(self) -> None:
        """Start with no model."""
        self._models: dict[str, _Counters] = {}
        self._lock = threading.Lock()

    def model_loaded(self, model: ModelInfo) -> None:
        """Start the model's counters."""
        with self._lock:
            self._models[model.name] = _Counters(model.version)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Count a success."""
        with self._lock:
            counters = self._models[request.model]
            counters.success.add(answer.total_s)
            counters.queue.add(answer.queue_s)
            counters.last_inference_ms = time.time_ns() // 1_000_000

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:  # noqa: ARG002
        """Count a failure of a model that is loaded."""
        with self._lock:
            if request.model in self._models:
                self._models[request.model].fail.add(waited_s)

    def run_finished(self, report: RunReport) -> None:
        """Count a run; every request of it is charged the whole run, as in Triton."""
        if report.failed:
            return
        with self._lock:
            counters = self._models[report.model]
            counters.rows += report.rows
            counters.runs += 1
            counters.parts.add(report, report.requests)
            counters.batches.setdefault(report.rows, _Parts()).add(report, 1)

    def of(self, model: str) -> ModelStatistics:
        """Return a loaded model's statistics."""
        with self._lock:
            counters = self._models[model]
            return ModelStatistics(
                name=model,
                version=counters.version,
                last_inference_ms=counters.last_inference_ms,
                inference_count=counters.rows,
                execution_count=counters.runs,
                success=counters.success.freeze(),
                fail=counters.fail.freeze(),
                queue=counters.queue.freeze(),
                compute_input=counters.parts.compute_input.freeze(),
                compute_infer=counters.parts.compute_infer.freeze(),
                compute_output=counters.parts.compute_output.freeze(),
                batches=tuple(
                    BatchStatistics(
                        size, parts.compute_input.freeze(), parts.compute_infer.freeze(), parts.compute_output.freeze()
                    )
                    for size, parts in sorted(counters.batches.items())
                ),
            )
