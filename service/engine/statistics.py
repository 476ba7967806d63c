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
class _Runs:
    """The runs of one batch size: how many, for how many requests, and the seconds of each part of a run.

    ``charged_s`` are the same parts, each counted once for every request of its run.
    """

    runs: int = 0
    requests: int = 0
    input_s: float = 0.0
    compute_s: float = 0.0
    output_s: float = 0.0
    charged_s: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def add(self, report: RunReport) -> None:
        count, (input_s, compute_s, output_s) = report.requests, self.charged_s
        self.runs += 1
        self.requests += count
        self.input_s += report.input_s
        self.compute_s += report.compute_s
        self.output_s += report.output_s
        self.charged_s = (
            input_s + report.input_s * count,
            compute_s + report.compute_s * count,
            output_s + report.output_s * count,
        )


@dataclass(slots=True)
class _Counters:
    version: str
    last_s: float = 0.0
    successes: int = 0
    success_s: float = 0.0
    queue_s: float = 0.0
    failures: int = 0
    failure_s: float = 0.0
    batches: dict[int, _Runs] = field(default_factory=dict)


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
            counters.successes += 1
            counters.success_s += answer.total_s
            counters.queue_s += answer.queue_s
            counters.last_s = time.time()

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:  # noqa: ARG002
        """Count a failure of a model that is loaded."""
        with self._lock:
            counters = self._models.get(request.model)
            if counters is not None:
                counters.failures += 1
                counters.failure_s += waited_s

    def run_finished(self, report: RunReport) -> None:
        """Count a run; every request of it is charged the whole run, as in Triton."""
        if report.failed:
            return
        with self._lock:
            batches = self._models[report.model].batches
            runs = batches.get(report.rows)
            if runs is None:
                runs = batches[report.rows] = _Runs()
            runs.add(report)

    def of(self, model: str) -> ModelStatistics:
        """Return a loaded model's statistics."""
        with self._lock:
            counters = self._models[model]
            batches = sorted(counters.batches.items())
            requests = sum(runs.requests for _, runs in batches)
            charged_s = [sum(runs.charged_s[part] for _, runs in batches) for part in range(3)]
            return ModelStatistics(
                name=model,
                version=counters.version,
                last_inference_ms=int(counters.last_s * 1e3),
                inference_count=sum(rows * runs.runs for rows, runs in batches),
                execution_count=sum(runs.runs for _, runs in batches),
                success=_duration(counters.successes, counters.success_s),
                fail=_duration(counters.failures, counters.failure_s),
                queue=_duration(counters.successes, counters.queue_s),
                compute_input=_duration(requests, charged_s[0]),
                compute_infer=_duration(requests, charged_s[1]),
                compute_output=_duration(requests, charged_s[2]),
                batches=tuple(
                    BatchStatistics(
                        rows,
                        _duration(runs.runs, runs.input_s),
                        _duration(runs.runs, runs.compute_s),
                        _duration(runs.runs, runs.output_s),
                    )
                    for rows, runs in batches
                ),
            )


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count, round(seconds * 1e9))
