"""What a load test is summed up in: plain figures that survive JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Figures(BaseModel):
    """Plain data that survives JSON; ``None`` is a figure that there is not."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Figures):
    """A figure and its 95 % interval; an end is ``None`` where there are too few samples for one."""

    value: float
    low: float | None
    high: float | None


class Percentile(Estimate):
    """A percentile of latency, in seconds."""

    percent: float


class Group(Figures):
    """The figures of some of the requests: all of them, those of one kind, or those that one variant answered."""

    name: str
    offered: int
    answered: int
    on_time: int
    correct: int | None
    """Right answers, on time or not."""
    attainment: Estimate | None
    effective_accuracy: Estimate | None
    accuracy_of_answers: Estimate | None
    mean_expected_accuracy: float | None
    latency: tuple[Percentile, ...]
    statuses: dict[str, int]
    budget_s: float | None = None


class Moment(Figures):
    """One piece of the timeline, which starts at ``at_s``."""

    at_s: float
    offered: int
    on_time: int
    refused: int
    failed: int
    variants: dict[str, int]


class Reliability(Figures):
    """Predicted against real time from the choice of a run to the answer: all answers, and in tenths by prediction."""

    kept_ratio: float
    """Share of answers that took no longer than predicted."""
    ratio_p50: float
    """Real over predicted."""
    ratio_p95: float
    predicted_s: tuple[float, ...]
    actual_p50_s: tuple[float, ...]
    actual_p95_s: tuple[float, ...]


class LaneUse(Figures):
    """Share of the time that lanes computed: by lane over the whole run, and the mean over lanes at each reading."""

    mean: tuple[float, ...]
    at_s: tuple[float, ...]
    busy: tuple[float, ...]


class Summary(Figures):
    """All figures of one run."""

    duration_s: float
    offered_hz: float
    throughput_hz: float
    goodput_hz: float
    all: Group
    classes: tuple[Group, ...]
    variants: tuple[Group, ...]
    reasons: dict[str, int]
    timeline: tuple[Moment, ...]
    latency_curves: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    """For each kind: latencies in seconds, and the share of its OFFERED requests answered within each."""
    reliability: Reliability | None
    lanes: LaneUse | None
    gateway_cpu_s: float | None
    cpu_s_per_on_time_correct: float | None
    """Per on-time answer where nobody knows what is correct."""
    server_counts: dict[str, int]
    client_counts: dict[str, int]
    lag_p50_s: float
    lag_p99_s: float
    lag_most_s: float
    faults: tuple[str, ...]
    generator_cpu_s: float
    connections: int
    is_interrupted: bool

    @property
    def is_valid(self) -> bool:
        """Tell whether the run's figures may be believed."""
        return not self.faults
