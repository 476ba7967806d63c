"""What becomes of requests: outcomes, times, budgets, refusals for load, and the accuracy that was given up.

**Regret**, here an estimate, is what a request lost against the most accurate variant that its budget alone would have
allowed, on an idle machine and within its other knobs: the difference in expected accuracy where a smaller variant
answered, all of it where the answer was late, and for a request that was refused for load or expired the mean of what
the model's answered requests could have had. The hindsight oracle of the simulator knows the other requests too, so
this is above the regret against it: even the oracle cannot give every request an idle machine.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.domain.errors import (
    BackendFailed,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotReady,
    NotFound,
    NotSupported,
    Overloaded,
    PayloadTooLarge,
)
from service.domain.inference import Criticality, Reason
from service.telemetry.families import BY_VARIANT
from service.telemetry.later import Later, by_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.domain.inference import Answer, InferenceRequest
    from service.domain.variants import ModelInfo
    from service.telemetry.families import Families
    from service.telemetry.tallies import Count, Histogram

PROTOCOLS: Final = ("http", "grpc")
_OUTCOMES: Final[Mapping[type[BaseException], str]] = {
    InvalidRequest: "invalid",
    PayloadTooLarge: "invalid",
    NotSupported: "invalid",
    NotFound: "not_found",
    ModelNotReady: "not_ready",
    Overloaded: "overloaded",
    DeadlineExceeded: "deadline",
    BackendFailed: "failed",
}
_SHED_REASONS: Final = ("queue_full", "displaced", "overloaded")


def outcome_of(error: BaseException) -> str:
    """Return the ``outcome`` label of a request that got no answer; what nobody foresaw counts as failed."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "failed")


@dataclass(slots=True)
class _Regret:
    """One model's regret by cause; ``best`` sums what ``answers`` requests could have had."""

    smaller: Count
    late: Count
    refused: Count
    best: float
    answers: int = 1

    def lost(self, requests: int) -> None:
        self.refused.value += requests * self.best / self.answers


@dataclass(frozen=True, slots=True)
class _Series:
    """One variant's time series that all its answers share."""

    duration: Histogram
    queue: Histogram
    met: Count
    missed: Count
    exceeded: Count
    regret: _Regret

    def count(self, rows: NDArray[np.float64]) -> None:
        """Count answers; the columns are those that ``RequestMetrics.finished`` notes."""
        is_met = rows[:, 0] > 0.0
        total_s, queue_s, claimed_s, expected, best = rows[:, 1:].T
        self.duration.observe(total_s)
        self.queue.observe(queue_s)
        self.met.value += int(is_met.sum())
        self.missed.value += int((~is_met).sum())
        self.exceeded.value += int(((total_s > claimed_s) & (claimed_s > 0.0)).sum())
        regret = self.regret
        regret.best += float(best.sum())
        regret.answers += len(rows)
        regret.late.value += float(best[~is_met].sum())
        regret.smaller.value += float((best - expected)[is_met].clip(0.0).sum())


_Kind = tuple[str, str, str, Reason, str]
"""What answers have in common: model, variant, protocol, reason, and how far a cascade went."""


class RequestMetrics:
    """Counts requests, on the event loop's thread; ``edges_s`` are the bucket edges of durations."""

    def __init__(self, families: Families, edges_s: Sequence[float]) -> None:
        """Define the families."""
        self.known: set[str] = set()
        self._series: dict[tuple[str, str], _Series] = {}
        self._regrets: dict[str, _Regret] = {}
        self._codes: dict[_Kind, int] = {}
        self._kinds: list[tuple[_Series, tuple[Count, ...]]] = []
        self._lost: dict[str, int] = {}
        self._changing = threading.Lock()  # models are loaded by other threads
        self._later = Later(7, self._count)
        families.before_reading(self.settle)
        self._requests = families.tally("requests", "Requests by outcome", (*BY_VARIANT, "protocol", "outcome"))
        self._duration = families.histogram("request_duration_seconds", "From arrival to answer", BY_VARIANT, edges_s)
        self._queue = families.histogram("queue_duration_seconds", "Wait before the run", BY_VARIANT, edges_s)
        self._decisions = families.tally("routing_decisions", "Why a variant answered", (*BY_VARIANT, "reason"))
        self._met = families.tally("budget_met", "Answers within their latency budget", BY_VARIANT)
        self._missed = families.tally("budget_missed", "Answers after their latency budget", BY_VARIANT)
        self._exceeded = families.tally(
            "p99_claim_exceeded", "Answers later than the p99 that they carried", BY_VARIANT
        )
        self._cascades = families.tally("cascade", "Answers of cascades, by how far they went", ("model", "outcome"))
        self._shed = families.counter("shed", "Requests refused for load", ("model", "criticality", "reason"))
        self._expired = families.counter("expired", "Requests whose hard deadline passed", ("model", "state"))
        self._regret = families.tally(
            "regret", "Accuracy given up against what budgets alone allowed, summed over requests", ("model", "cause")
        )

        self._create_unanswered("")  # of requests whose model was never read, or is unknown
        for criticality in Criticality:
            self._shed.labels("", criticality.name.lower(), "door")

    def create(self, model: ModelInfo) -> None:
        """Create a model's label sets at zero, from any thread; what was counted before a reload stays."""
        self.settle()
        self.known.add(model.name)
        self._create_unanswered(model.name)
        for criticality in Criticality:
            for why in _SHED_REASONS:
                self._shed.labels(model.name, criticality.name.lower(), why)
        for state in ("waiting", "running"):
            self._expired.labels(model.name, state)
        for stage in ("sure", "escalated", "settled"):
            self._cascades.labels(model.name, stage)
        smaller, late, refused = (self._regret.labels(model.name, cause) for cause in ("smaller", "late", "refused"))
        # Before the first answer, a lost request is taken for one that could have had the most accurate variant.
        best = max(item.accuracy for item in model.variants)
        with self._changing:
            self._regrets[model.name] = _Regret(smaller, late, refused, best)
            for variant in model.variants:
                self._series[model.name, variant.name] = self._create(model.name, variant.name)
            # Answers are noted by code meanwhile: each keeps its own, and counts in the new series.
            for (name, answered_by, *_), code in self._codes.items():
                if name == model.name:
                    self._kinds[code] = self._series[name, answered_by], self._kinds[code][1]

    def malformed(self, protocol: str, error: BaseException) -> None:
        """Count an inference request that could not be decoded, and so names no model."""
        self._requests.labels("", "", protocol, outcome_of(error)).value += 1

    def turned_away(self, protocol: str, counts: Mapping[Criticality, int]) -> None:
        """Count inference requests that were refused before they were decoded, and so name no model."""
        for criticality, count in counts.items():
            self._requests.labels("", "", protocol, "overloaded").value += count
            self._shed.labels("", criticality.name.lower(), "door").inc(count)

    def finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Note an answer, which is counted later."""
        kind = request.model, answer.variant, request.protocol, answer.reason, answer.cascade
        code = self._codes.get(kind)
        if code is None:
            code = self._add(kind)
        self._later.note(
            code,
            answer.budget_met,
            answer.total_s,
            answer.queue_s,
            answer.claimed_s,
            answer.expected_accuracy,
            answer.best_accuracy,
        )
        if request.trace is not None:
            series, _ = self._kinds[code]
            series.duration.exemplify(answer.total_s, request.trace.trace_id)

    def refused(self, request: InferenceRequest, error: BaseException) -> None:
        """Count a request that got no answer."""
        model = request.model if request.model in self.known else ""
        self._requests.labels(model, "", request.protocol, outcome_of(error)).value += 1
        if model and isinstance(error, Overloaded | DeadlineExceeded):
            with self._changing:
                self._lost[model] = self._lost.get(model, 0) + 1

    def settle(self) -> None:
        """Count what is noted so far."""
        self._later.settle()
        with self._changing:
            lost, self._lost = self._lost, {}
            for model, requests in lost.items():
                self._regrets[model].lost(requests)

    def shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Count a refusal for load."""
        self._shed.labels(model, criticality.name.lower(), why).inc()

    def expired(self, model: str, *, was_running: bool) -> None:
        """Count a passed deadline."""
        self._expired.labels(model, "running" if was_running else "waiting").inc()

    def _create_unanswered(self, model: str) -> None:
        for outcome in (*_OUTCOMES.values(), "cancelled"):
            for protocol in PROTOCOLS:
                self._requests.labels(model, "", protocol, outcome)

    def _create(self, model: str, variant: str) -> _Series:
        labels = (model, variant)
        for protocol in PROTOCOLS:
            self._requests.labels(*labels, protocol, "ok")
        for reason in Reason:
            self._decisions.labels(*labels, reason.value)
        return _Series(
            duration=self._duration.labels(*labels),
            queue=self._queue.labels(*labels),
            met=self._met.labels(*labels),
            missed=self._missed.labels(*labels),
            exceeded=self._exceeded.labels(*labels),
            regret=self._regrets[model],
        )

    def _add(self, kind: _Kind) -> int:
        """Return the code of a kind of answers that is the first of its kind since its model was loaded."""
        model, variant, protocol, reason, cascade = kind
        answered = self._requests.labels(model, variant, protocol, "ok")
        counts: tuple[Count, ...] = (answered, self._decisions.labels(model, variant, reason.value))
        if cascade:
            counts = (*counts, self._cascades.labels(model, cascade))
        with self._changing:
            self._kinds.append((self._series[model, variant], counts))
            self._codes[kind] = code = len(self._kinds) - 1
        return code

    def _count(self, noted: NDArray[np.float64]) -> None:
        for code, found in by_code(noted):
            series, counts = self._kinds[code]
            series.count(found)
            for count in counts:
                count.value += len(found)
