"""The last routing decisions, kept as they were made and explained when somebody asks.

Keeping one costs a tuple of references to what is there anyway: the route, the predictions, the answer. No tensor is
among them, so that a large request is not held in memory. What a decision saw is explained by the predictions of the
request's arrival, which later corrections do not change.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from service.domain.decisions import CandidateVerdict, Decision
from service.domain.inference import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.decisions import Verdict
    from service.domain.inference import Answer, Knobs
    from service.domain.variants import Variant
    from service.engine.loaded import LoadedModel
    from service.engine.ticket import Ticket
    from service.policy.costs import Costs
    from service.policy.routing import Route
    from service.policy.situation import Waiting

DEFAULT_KEPT: Final = 64


class _Kept(NamedTuple):
    """What is kept of a decision; moments on the engine's clock."""

    request_id: str
    protocol: str
    knobs: Knobs
    route: Route
    waiting: Waiting
    costs: Costs
    arrived_s: float
    answer: Answer

    @property
    def queued(self) -> int:
        return self.answer.runs[0].queued

    @property
    def slack_s(self) -> float:
        """What was left of the budget when the run began."""
        return self.waiting.due_s - self.answer.runs[0].started_s


class Decisions:
    """The last ``kept`` decisions of each model, on the event loop's thread; 0 keeps none."""

    def __init__(self, kept: int = DEFAULT_KEPT) -> None:
        """Start with none."""
        self._kept = kept
        self._rings: dict[str, deque[tuple[Any, ...]]] = {}

    def note(self, ticket: Ticket, answer: Answer) -> None:
        """Keep a decision, and forget the oldest beyond what is kept."""
        if not self._kept:
            return
        request = ticket.request
        ring = self._rings.get(request.model)
        if ring is None:
            ring = self._rings[request.model] = deque(maxlen=self._kept)
        # The fields of ``_Kept``: a bare tuple takes half the time.
        ring.append(
            (
                request.id,
                request.protocol,
                request.knobs,
                ticket.route,
                ticket.waiting,
                ticket.costs,
                ticket.arrived_s,
                answer,
            )
        )

    def last(self, model: LoadedModel, count: int, now_s: float) -> Iterator[Decision]:
        """Return the last decisions of a model as of now, the newest first; each is explained when it is asked for."""
        ring = self._rings.get(model.info.name, ())
        newest = [_Kept._make(ring[place]) for place in range(len(ring) - 1, max(-1, len(ring) - 1 - count), -1)]
        epoch_s = time.time() - now_s
        return (_explain(kept, model, epoch_s) for kept in newest)


def _explain(kept: _Kept, model: LoadedModel, epoch_s: float) -> Decision:
    return Decision(
        request_id=kept.request_id,
        protocol=kept.protocol,
        knobs=kept.knobs,
        rows=kept.waiting.rows,
        timeout_s=kept.waiting.deadline_s - kept.arrived_s,
        arrived_s=epoch_s + kept.arrived_s,
        slack_s=kept.slack_s,
        queued=kept.queued,
        hardware_class=kept.route.hardware_class,
        answer=kept.answer,
        candidates=_Explanation(kept, model).verdicts(),
    )


class _Explanation:
    """One decision, candidate by candidate."""

    def __init__(self, kept: _Kept, model: LoadedModel) -> None:
        self._kept = kept
        self._model = model
        self._chosen = _chosen(kept)
        ladder = kept.costs.ladder_within(kept.route.names, kept.waiting.rows, kept.slack_s)
        self._useful = {step.name for step in ladder.steps}
        is_fallback = kept.answer.reason is Reason.FALLBACK
        self._failed = set(kept.route.names) - set(kept.waiting.candidates) if is_fallback else set()

    def verdicts(self) -> tuple[CandidateVerdict, ...]:
        """Return what became of every candidate, and then of the model's other variants."""
        names = self._kept.route.names
        others = [item for item in self._model.info.variants if item.name not in names]
        return (*(self._candidate(name) for name in names), *(_excluded(item, self._model) for item in others))

    def _candidate(self, name: str) -> CandidateVerdict:
        costs, rows = self._kept.costs, self._kept.waiting.rows
        plan = costs.plans.get(name)
        if plan is None:
            accuracy, compute_s = costs.accuracy[name], costs.of(name, rows)
            worst_s = compute_s
        else:
            small_s, big_s = costs.of(plan.variant, rows), costs.of(plan.escalate_to, rows)
            accuracy, compute_s, worst_s = plan.accuracy, small_s + plan.escalated_ratio * big_s, small_s + big_s
        verdict, why = self._verdict(name, accuracy, worst_s)
        return CandidateVerdict(name, accuracy, compute_s, verdict, why)

    def _verdict(self, name: str, accuracy: float, worst_s: float) -> tuple[Verdict, str]:
        if name == self._chosen:
            return "chosen", self._kept.answer.reason.value
        if name in self._failed:
            return "failed", "its run failed on this request"
        if worst_s > self._kept.slack_s:
            left_ms = max(0.0, self._kept.slack_s) * 1e3
            return "too_slow", f"needs {worst_s * 1e3:.3f} ms; {left_ms:.3f} ms of the budget were left"
        if name not in self._useful:
            return "no_gain", "takes no less time than a more accurate candidate"
        if accuracy > self._kept.answer.expected_accuracy:
            return "above_level", self._why_below()
        return "less_accurate", "no more accurate than the one that answered"

    def _why_below(self) -> str:
        policy, queued = self._model.policy, self._kept.queued
        if queued:
            waiting = "1 more request" if queued == 1 else f"{queued} more requests"
            return f"{waiting} waited: it would have made some late, or not been worth its time"
        if policy.price_per_cpu_s or policy.objective == "cost":
            return "gains less than its CPU time costs by the policy"
        return "other requests, or losses of late, made its time worth more than it gains"


def _chosen(kept: _Kept) -> str:
    """Return what was chosen: the variant that answered, or the cascade that it is a stage of."""
    answer = kept.answer
    if answer.cascade:
        for plan in kept.costs.plans.values():
            if plan.variant == answer.runs[0].variant and plan.accuracy == answer.expected_accuracy:
                return plan.name
    return answer.variant


def _excluded(variant: Variant, model: LoadedModel) -> CandidateVerdict:
    name = variant.name
    if name in model.problems:
        why = f"not ready: {model.problems[name]}"
    elif name in model.evicted:
        why = "not in memory"
    elif not variant.is_routable:
        why = variant.note or "routing may not choose it"
    else:
        why = "no candidate by this request's knobs and hardware and the policy, or resting after failures"
    return CandidateVerdict(name, variant.accuracy, 0.0, "excluded", why)
