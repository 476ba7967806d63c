"""The figures of a load test, computed from its recording.

On time is what the client measured: answered, and within the budget counted from the scheduled moment. Everything that
was offered is in the denominator of attainment and effective accuracy: a refusal is a miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.figures import Estimate, Group, LaneUse, Moment, Percentile, Reliability, Summary
from loadtests.intervals import percentile_interval, share_interval
from loadtests.recording import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.gateway import Scrape
    from loadtests.plan import RequestClass
    from loadtests.recording import Recording
    from loadtests.runner import Run

    Columns = dict[str, NDArray[Any]]

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
REFUSED: Final = (Status.SHED, Status.EXPIRED, Status.NOT_READY)
_BINS: Final = 60
_DECILES: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The measured requests as columns, with what became of each."""

    columns: Columns
    is_answered: NDArray[np.bool_]
    is_on_time: NDArray[np.bool_]
    is_correct: NDArray[np.bool_] | None


def judge(recording: Recording, classes: Sequence[RequestClass], labels: NDArray[np.int64] | None) -> Judged:
    """Return which measured requests were answered, on time, and right; ``labels`` (rows,) are the right answers."""
    columns = recording.measured()
    answered = columns["status"] == Status.OK
    budgets_s = np.array([item.budget_s for item in classes])[columns["classes"]]
    with np.errstate(invalid="ignore"):  # what never ended has no latency
        on_time = answered & (columns["latency_s"] <= budgets_s)
    correct = None if labels is None else answered & (columns["answer"] == labels[columns["rows"]])
    return Judged(columns, answered, on_time, correct)


def summarise(run: Run, classes: Sequence[RequestClass], labels: NDArray[np.int64] | None) -> Summary:
    """Return the figures of a run."""
    recording = run.recording
    judged = judge(recording, classes, labels)
    duration_s = _duration_s(judged.columns["scheduled_s"])
    everything = np.ones(len(judged.is_answered), np.bool_)
    whole = _group("all", judged, everything)
    cpu_s = _cpu_s(run.scrapes)
    good = whole.on_time if judged.is_correct is None else int((judged.is_on_time & judged.is_correct).sum())
    return Summary(
        duration_s=duration_s,
        offered_hz=whole.offered / duration_s,
        throughput_hz=whole.answered / duration_s,
        goodput_hz=whole.on_time / duration_s,
        all=whole,
        classes=tuple(
            _group(item.name, judged, judged.columns["classes"] == place, item.budget_s)
            for place, item in enumerate(classes)
        ),
        variants=tuple(
            _group(name, judged, judged.columns["variant"] == place) for place, name in enumerate(recording.variants)
        ),
        reasons={name: int((judged.columns["reason"] == place).sum()) for place, name in enumerate(recording.reasons)},
        timeline=_timeline(judged, recording.variants, duration_s),
        latency_curves={
            item.name: _curve(judged, judged.columns["classes"] == place) for place, item in enumerate(classes)
        },
        reliability=_reliability(judged),
        lanes=_lanes(run.scrapes, recording.started_at),
        gateway_cpu_s=cpu_s,
        cpu_s_per_on_time_correct=cpu_s / good if cpu_s is not None and good else None,
        server_counts=_server_counts(run.scrapes),
        client_counts=_names(recording.status),
        lag_p50_s=run.lag.p50_s,
        lag_p99_s=run.lag.p99_s,
        lag_most_s=run.lag.most_s,
        faults=run.lag.faults,
        generator_cpu_s=recording.cpu_s,
        connections=recording.connections,
        is_interrupted=recording.is_interrupted,
    )


def _group(name: str, judged: Judged, of: NDArray[np.bool_], budget_s: float | None = None) -> Group:
    offered = int(of.sum())
    answered, on_time = int(judged.is_answered[of].sum()), int(judged.is_on_time[of].sum())
    correct = None if judged.is_correct is None else int(judged.is_correct[of].sum())
    both = None if judged.is_correct is None else int((judged.is_correct & judged.is_on_time)[of].sum())
    expected = judged.columns["expected_accuracy"][of & judged.is_answered]
    expected = expected[~np.isnan(expected)]
    return Group(
        name=name,
        offered=offered,
        answered=answered,
        on_time=on_time,
        correct=correct,
        attainment=_share(on_time, offered),
        effective_accuracy=None if both is None else _share(both, offered),
        accuracy_of_answers=None if correct is None else _share(correct, answered),
        mean_expected_accuracy=float(expected.mean()) if len(expected) else None,
        latency=_percentiles(judged.columns["latency_s"][of & judged.is_answered]),
        statuses=_names(judged.columns["status"][of]),
        budget_s=budget_s,
    )


def _share(hits: int, count: int) -> Estimate | None:
    if not count:
        return None
    low, high = share_interval(hits, count)
    return Estimate(value=hits / count, low=low, high=high)


def _percentiles(latency_s: NDArray[np.float64]) -> tuple[Percentile, ...]:
    if not len(latency_s):
        return ()
    ordered = np.sort(latency_s)
    found = []
    for percent in PERCENTILES:
        low, high = percentile_interval(ordered, percent / 100)
        value = float(np.percentile(ordered, percent))
        found.append(Percentile(percent=percent, value=value, low=_finite(low), high=_finite(high)))
    return tuple(found)


def _curve(judged: Judged, of: NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return points of the distribution of latency, dense in the tail."""
    ordered = np.sort(judged.columns["latency_s"][of & judged.is_answered])
    if not len(ordered):
        return (), ()
    places = np.unique(np.concatenate([np.linspace(0, 1, 101), 1 - np.logspace(-2, -4, 21)]) * (len(ordered) - 1))
    ranks = np.unique(places.round().astype(np.int64))
    return tuple(ordered[ranks].tolist()), tuple(((ranks + 1) / int(of.sum())).tolist())


def _timeline(judged: Judged, variants: Sequence[str], duration_s: float) -> tuple[Moment, ...]:
    scheduled = judged.columns["scheduled_s"]
    if not len(scheduled):
        return ()
    start_s, width_s = float(scheduled[0]), duration_s / _BINS
    bins = np.clip(((scheduled - start_s) / width_s).astype(np.int64), 0, _BINS - 1)
    status = judged.columns["status"]
    refused = np.isin(status, [int(item) for item in REFUSED])
    failed = ~judged.is_answered & ~refused
    by_variant = {
        name: np.bincount(bins[judged.columns["variant"] == place], minlength=_BINS)
        for place, name in enumerate(variants)
    }
    counts = [np.bincount(bins, of, minlength=_BINS) for of in (np.ones(len(bins)), judged.is_on_time, refused, failed)]
    return tuple(
        Moment(
            at_s=place * width_s,
            offered=int(counts[0][place]),
            on_time=int(counts[1][place]),
            refused=int(counts[2][place]),
            failed=int(counts[3][place]),
            variants={name: int(found[place]) for name, found in by_variant.items() if found[place]},
        )
        for place in range(_BINS)
    )


def _reliability(judged: Judged) -> Reliability | None:
    """Compare what was predicted when the run was chosen; the wait up to then was known, and is taken off both."""
    columns = judged.columns
    predicted = columns["predicted_s"] - columns["queue_s"]
    actual = columns["total_s"] - columns["queue_s"]
    known = judged.is_answered & (predicted > 0) & (actual > 0)
    if not known.any():
        return None
    predicted, actual = predicted[known], actual[known]
    tenths = [part for part in np.array_split(np.argsort(predicted, kind="stable"), _DECILES) if len(part)]
    return Reliability(
        kept_ratio=float((actual <= predicted).mean()),
        ratio_p50=float(np.median(actual / predicted)),
        ratio_p95=float(np.percentile(actual / predicted, 95)),
        predicted_s=tuple(float(predicted[part].mean()) for part in tenths),
        actual_p50_s=tuple(float(np.median(actual[part])) for part in tenths),
        actual_p95_s=tuple(float(np.percentile(actual[part], 95)) for part in tenths),
    )


def _lanes(scrapes: Sequence[Scrape], started_at: float) -> LaneUse | None:
    pairs = [(left, right) for left, right in pairwise(scrapes) if right.lane_busy]
    if not pairs:
        return None
    spans = np.array([right.at - left.at for left, right in pairs])
    busy = np.array([right.lane_busy for _, right in pairs])  # (readings, lanes)
    return LaneUse(
        mean=tuple((spans @ busy / spans.sum()).tolist()),
        at_s=tuple(right.at - started_at for _, right in pairs),
        busy=tuple(busy.mean(1).tolist()),
    )


def _cpu_s(scrapes: Sequence[Scrape]) -> float | None:
    if len(scrapes) < 2 or scrapes[0].cpu_s is None or scrapes[-1].cpu_s is None:  # noqa: PLR2004 - a start and an end
        return None
    return scrapes[-1].cpu_s - scrapes[0].cpu_s


def _server_counts(scrapes: Sequence[Scrape]) -> dict[str, int]:
    """Return what the server counted between the first and the last reading, by outcome."""
    if not scrapes:
        return {}
    first, last = scrapes[0].requests, scrapes[-1].requests
    counts = {name: round(count - first.get(name, 0.0)) for name, count in last.items()}
    return {name: count for name, count in counts.items() if count}


def _names(status: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(status, minlength=len(Status))
    return {item.name.lower(): int(counts[item]) for item in Status if counts[item]}


def _duration_s(scheduled_s: NDArray[np.float64]) -> float:
    """Return the time that the measured part of the schedule takes, its last gap included."""
    if len(scheduled_s) < 2:  # noqa: PLR2004 - a gap needs two
        return 1.0
    length_s = float(scheduled_s[-1] - scheduled_s[0])
    return length_s * len(scheduled_s) / (len(scheduled_s) - 1)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
