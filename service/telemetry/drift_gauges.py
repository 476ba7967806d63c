"""Drift as Prometheus sees it: read from the reports when it is scraped, so that watching counts nothing twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from service.domain.verdicts import ModelDrift, VariantDrift

_STATES: Final = ("healthy", "warned", "demoted", "quarantined", "restored")
_BY_VARIANT: Final = ("model", "variant")
_BY_INPUT: Final = ("model", "input")


class DriftGauges(Collector):
    """Every metric of drift; what is not known yet is NaN, so that no rule fires on it."""

    def __init__(self, reports: Callable[[], Mapping[str, ModelDrift]]) -> None:
        """Keep what gives the reports."""
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """Return the families as the reports stand."""
        reports = list(self._reports().values())
        yield from self._estimates(reports)
        yield from self._detectors(reports)
        yield from self._counts(reports)

    def _estimates(self, reports: list[ModelDrift]) -> Iterable[Metric]:
        estimate = _gauge("accuracy_estimate_ratio", "Accuracy that is believed now, by labels or without", "bound")
        agreement = _gauge("agreement_ratio", "Agreement with full in shadow runs")
        allowed = _gauge("agreement_allowed_ratio", "Agreement with full by the manifest")
        distance = _gauge("score_distance_ratio", "Distance of the scores from full's in shadow runs")
        margin = _gauge("score_margin_ratio", "Largest less second largest probability in shadow runs")
        claimed = _gauge("accuracy_claimed_ratio", "Accuracy by the manifest")
        routed = _gauge("accuracy_routed_ratio", "Accuracy that routing reckons with")
        for labels, item in _each(reports):
            values = item.estimate or (math.nan,) * 3
            for bound, value in zip(("value", "low", "high"), values, strict=True):
                estimate.add_metric([*labels, bound], value)
            agreement.add_metric(labels, _known(item.agreement))
            allowed.add_metric(labels, _known(item.allowed_agreement))
            distance.add_metric(labels, _known(item.score_distance))
            margin.add_metric(labels, _known(item.margin))
            claimed.add_metric(labels, item.claimed_accuracy)
            routed.add_metric(labels, item.routed_accuracy)
        yield from (estimate, agreement, allowed, distance, margin, claimed, routed)

    def _detectors(self, reports: list[ModelDrift]) -> Iterable[Metric]:
        score = _gauge("drift_score", "Evidence of drift; 1 is where the detector speaks up", "detector")
        detected = _gauge("drift_detected", "Whether a detector speaks up", "detector")
        state = _gauge("drift_state", "1 for the state that the variant is in", "state")
        quarantined = _gauge("variant_quarantined", "1 where the variant is taken out of routing")
        inputs = GaugeMetricFamily("tiergate_input_drift_score", "Inputs beside their reference.", None, _BY_INPUT)
        for labels, item in _each(reports):
            for detector, value in item.scores.items():
                score.add_metric([*labels, detector], value)
                detected.add_metric([*labels, detector], float(value >= 1.0))
            for name in _STATES:
                state.add_metric([*labels, name], float(name == item.state))
            quarantined.add_metric(labels, float(item.state == "quarantined"))
        for report in reports:
            for name, value in report.input_scores.items():
                inputs.add_metric([report.model, name], value)
        yield from (score, detected, state, quarantined, inputs)

    def _counts(self, reports: list[ModelDrift]) -> Iterable[Metric]:
        runs = CounterMetricFamily("tiergate_shadow_runs", "Samples for the shadow.", None, [*_BY_VARIANT, "outcome"])
        share = _gauge("shadow_share_ratio", "Share of answers that is run in the shadow")
        feedback = CounterMetricFamily("tiergate_feedback", "Labels by what came of them.", None, ["model", "outcome"])
        for labels, item in _each(reports):
            for outcome, count in item.shadow_runs.items():
                runs.add_metric([*labels, outcome], count)
            share.add_metric(labels, item.shadow_share)
        for report in reports:
            for outcome, count in report.feedback.items():
                feedback.add_metric([report.model, outcome], count)
        yield from (runs, share, feedback)


def _gauge(name: str, help_text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tiergate_{name}", f"{help_text}.", None, [*_BY_VARIANT, *more])


def _each(reports: list[ModelDrift]) -> Iterable[tuple[list[str], VariantDrift]]:
    for report in reports:
        for item in report.variants:
            yield [report.model, item.variant], item


def _known(value: float | None) -> float:
    return math.nan if value is None else value
