"""What ``tiergate top`` shows: one frame, made of two readings of a gateway's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.telemetry.exposition import Scrape, between

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOST: Final = ("overloaded", "deadline", "failed", "not_ready")
"""Outcomes that the gateway is to answer for, as the recording rules count them: offered, and not on time."""
_REGRETTED: Final = ("ok", "overloaded", "deadline")
"""Outcomes over which regret is summed."""


@dataclass(frozen=True, slots=True)
class VariantRow:
    """One variant in a window of time; ``None`` where nothing happened that would tell."""

    name: str
    tier: str
    share: float
    rate_hz: float
    p50_s: float | None
    p99_s: float | None
    met_ratio: float | None
    predicted_ratio: float | None
    cpu_ratio: float
    memory_bytes: float
    drift: str


@dataclass(frozen=True, slots=True)
class ModelRows:
    """One model in a window of time; ``met_ratio`` is on time of all offered, ``regret`` accuracy per request."""

    name: str
    queued: float
    rate_hz: float
    lost_hz: float
    met_ratio: float | None
    regret: float | None
    reasons: Mapping[str, float]
    variants: tuple[VariantRow, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """All that is shown of one window."""

    window_s: float
    moment_s: float
    is_since_start: bool
    rate_hz: float
    lost_hz: float
    met_ratio: float | None
    p50_s: float | None
    p99_s: float | None
    inflight: float
    lanes: tuple[float, ...]
    rss_bytes: float
    cpu_ratio: float
    policy: str
    refused: Mapping[str, float]
    models: tuple[ModelRows, ...]


def make_frame(now: Scrape, before: Scrape | None = None) -> Frame:
    """Return the frame from one scrape to the next; without a first one, since the gateway started."""
    started = Scrape(now.total("process_start_time_seconds"))
    first = before or started
    window_s = max(now.moment_s - first.moment_s, 1e-3)
    gone = between(first, now)
    lanes = sorted(now.values("tiergate_lane_busy_seconds_total", "lane"), key=lambda lane: (len(lane), lane))
    busy_s = [gone.total("tiergate_lane_busy_seconds_total", lane=lane) for lane in lanes]
    return Frame(
        window_s=window_s,
        moment_s=now.moment_s,
        is_since_start=before is None,
        rate_hz=gone.total("tiergate_requests_total", outcome="ok") / window_s,
        lost_hz=_lost(gone) / window_s,
        met_ratio=_met_ratio(gone),
        p50_s=gone.quantile("tiergate_request_duration_seconds", 0.5),
        p99_s=gone.quantile("tiergate_request_duration_seconds", 0.99),
        inflight=now.total("tiergate_inflight_requests"),
        lanes=tuple(min(1.0, seconds / window_s) for seconds in busy_s),
        rss_bytes=now.total("process_resident_memory_bytes"),
        cpu_ratio=gone.total("process_cpu_seconds_total") / window_s,
        policy=next(iter(now.values("tiergate_policy_info", "digest")), ""),
        refused=_refused(gone, window_s),
        models=tuple(_model(name, now, gone, window_s) for name in _models(now)),
    )


def _models(now: Scrape) -> list[str]:
    return [name for name in now.values("tiergate_variant_info", "model") if name]


def _model(name: str, now: Scrape, gone: Scrape, window_s: float) -> ModelRows:
    answered = gone.total("tiergate_requests_total", model=name, outcome="ok")
    judged = sum(gone.total("tiergate_requests_total", model=name, outcome=outcome) for outcome in _REGRETTED)
    regret = gone.total("tiergate_regret_total", model=name)
    reasons = {
        reason: gone.total("tiergate_routing_decisions_total", model=name, reason=reason)
        for reason in gone.values("tiergate_routing_decisions_total", "reason", model=name)
    }
    infos = [labels for labels, _ in now.each("tiergate_variant_info", model=name)]
    return ModelRows(
        name=name,
        queued=now.total("tiergate_queue_depth", model=name),
        rate_hz=answered / window_s,
        lost_hz=_lost(gone, model=name) / window_s,
        met_ratio=_met_ratio(gone, model=name),
        regret=regret / judged if judged else None,
        reasons={reason: count / answered for reason, count in reasons.items() if count},
        variants=tuple(_variant(labels, answered, (now, gone), window_s) for labels in infos),
    )


def _variant(info: Mapping[str, str], answered: float, scrapes: tuple[Scrape, Scrape], window_s: float) -> VariantRow:
    (now, gone), by = scrapes, {"model": info["model"], "variant": info["variant"]}
    count = gone.total("tiergate_requests_total", outcome="ok", **by)
    met, missed = (gone.total(f"tiergate_budget_{word}_total", **by) for word in ("met", "missed"))
    runs = gone.total("tiergate_predicted_over_actual_ratio_count", **by)
    ratios = gone.total("tiergate_predicted_over_actual_ratio_sum", **by)
    return VariantRow(
        name=info["variant"],
        tier=info["tier"],
        share=count / answered if answered else 0.0,
        rate_hz=count / window_s,
        p50_s=gone.quantile("tiergate_request_duration_seconds", 0.5, **by),
        p99_s=gone.quantile("tiergate_request_duration_seconds", 0.99, **by),
        met_ratio=met / (met + missed) if met + missed else None,
        predicted_ratio=ratios / runs if runs else None,
        cpu_ratio=gone.total("tiergate_variant_cpu_seconds_total", **by) / window_s,
        memory_bytes=now.total("tiergate_variant_memory_bytes", kind="loaded", **by),
        drift=_drift(now, by),
    )


def _drift(now: Scrape, by: Mapping[str, str]) -> str:
    """Return the state that the variant is in, or what detectors say of it, '' where nobody watches."""
    states = [labels["state"] for labels, value in now.each("tiergate_drift_state", **by) if value]
    return states[0] if states else ""


def _lost(gone: Scrape, **labels: str) -> float:
    return sum(gone.total("tiergate_requests_total", outcome=outcome, **labels) for outcome in _LOST)


def _met_ratio(gone: Scrape, **labels: str) -> float | None:
    met, missed = (gone.total(f"tiergate_budget_{word}_total", **labels) for word in ("met", "missed"))
    offered = met + missed + _lost(gone, **labels)
    return met / offered if offered else None


def _refused(gone: Scrape, window_s: float) -> dict[str, float]:
    """Return the rates of what got no answer, by what became of it; the most frequent first."""
    counts: dict[str, float] = {}
    for labels, count in gone.each("tiergate_requests_total"):
        if labels["outcome"] != "ok" and count:
            counts[labels["outcome"]] = counts.get(labels["outcome"], 0.0) + count / window_s
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
