"""What came of it: one array element per request, and the figures drawn from them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, SupportsFloat

import numpy as np

from loadtests.simulator.workload import model_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.workload import Workload


class Outcome(IntEnum):
    """How a request ended."""

    ANSWERED = 0
    """Before its hard deadline, in time for its budget or not."""
    SHED = 1
    """Refused on arrival or displaced, because of load."""
    INFEASIBLE = 2
    """Refused on arrival: no candidate could have met the hard deadline on an idle machine."""
    EXPIRED = 3
    """Its hard deadline passed while it waited."""
    EXPIRED_RUNNING = 4
    """Its hard deadline passed while it was computed: work for nothing."""


NO_VARIANT: Final = -1


class Records:
    """Where gateways write what becomes of requests; unwritten means expired in the queue."""

    def __init__(self, requests: int) -> None:
        """Make room."""
        self.outcome = array("b", bytes([Outcome.EXPIRED])) * requests
        self.variant = array("b", [NO_VARIANT]) * requests
        self.lane = array("i", [-1]) * requests
        self.batch = array("h", [0]) * requests
        self.start_s = array("d", [np.nan]) * requests
        self.finish_s = array("d", [np.nan]) * requests

    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """Return outcome, variant, lane, batch, start and finish without copying."""
        return (
            np.frombuffer(self.outcome, np.int8),
            np.frombuffer(self.variant, np.int8),
            np.frombuffer(self.lane, np.int32),
            np.frombuffer(self.batch, np.int16),
            np.frombuffer(self.start_s, np.float64),
            np.frombuffer(self.finish_s, np.float64),
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one simulation; shares are 0..1, of all offered requests where nothing else is said."""

    policy: str
    offered: int
    attainment: float
    effective_accuracy: float
    mean_accuracy: float
    """Of the answers, late ones included."""
    expected_accuracy: float
    """Effective accuracy with each answer counted at its variant's accuracy: free of the luck of the draw."""
    goodput_hz: float
    shed: int
    expired: int
    late: int
    cpu_s_per_good_answer: float
    """Lane-busy seconds per on-time correct answer."""
    busy_ratio: float
    expired_work_ratio: float
    """Of lane-busy time, what went into answers that came after the hard deadline."""
    mean_wait_s: float
    mean_batch: float
    variant_shares: dict[str, float]
    """Of the answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Per-request arrays of shape (N,), in the workload's order.

    ``variant`` is the place in its model's ladder or ``NO_VARIANT``, ``lane`` counts through the fleet, ``finish_s``
    is when the answer reaches its client, NaN without one. ``busy_s`` is computing time by lane, overheads included.
    """

    policy: str
    workload: Workload
    fleet: Fleet
    outcome: NDArray[np.int8]
    variant: NDArray[np.int8]
    lane: NDArray[np.int32]
    batch: NDArray[np.int16]
    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    is_on_time: NDArray[np.bool_]
    is_correct: NDArray[np.bool_]
    busy_s: NDArray[np.float64]
    wasted_s: float

    def summary(self) -> Summary:
        """Return the figures; a workload without requests has none."""
        offered = len(self.workload)
        if not offered:
            raise ValueError("result: the workload was empty")
        answered, good = self.outcome == Outcome.ANSWERED, self.is_on_time & self.is_correct
        expired = int(np.count_nonzero((self.outcome == Outcome.EXPIRED) | (self.outcome == Outcome.EXPIRED_RUNNING)))
        span_s = self._span_s()
        busy_s = float(self.busy_s.sum())
        started = self.lane >= 0
        return Summary(
            policy=self.policy,
            offered=offered,
            attainment=float(self.is_on_time.mean()),
            effective_accuracy=float(good.mean()),
            mean_accuracy=_ratio(np.count_nonzero(self.is_correct & answered), np.count_nonzero(answered)),
            expected_accuracy=float(self.expected()[self.is_on_time].sum() / offered),
            goodput_hz=_ratio(np.count_nonzero(self.is_on_time), span_s),
            shed=int(np.count_nonzero((self.outcome == Outcome.SHED) | (self.outcome == Outcome.INFEASIBLE))),
            expired=expired,
            late=int(np.count_nonzero(answered & ~self.is_on_time)),
            cpu_s_per_good_answer=_ratio(busy_s, np.count_nonzero(good)),
            busy_ratio=_ratio(busy_s, span_s * len(self.busy_s)),
            expired_work_ratio=_ratio(self.wasted_s, busy_s),
            mean_wait_s=float(np.mean((self.start_s - self.workload.arrival_s)[started])) if started.any() else 0.0,
            mean_batch=float(1.0 / np.mean(1.0 / self.batch[started])) if started.any() else 0.0,
            variant_shares=self.variant_shares(),
        )

    def expected(self) -> NDArray[np.float64]:
        """Return the accuracy of the variant that ran each request, (N,); 0 where none did."""
        return self._by_variant([model.accuracy for model in self.fleet.models])

    def variant_shares(self) -> dict[str, float]:
        """Return each variant's share of the answers; names are ``model/variant`` where there are several models."""
        answered = self.outcome == Outcome.ANSWERED
        models = model_of(self.workload)
        shares: dict[str, float] = {}
        for number, ladder in enumerate(self.fleet.models):
            mine = answered & (models == number)
            for place, name in enumerate(ladder.names):
                key = name if len(self.fleet.models) == 1 else f"{ladder.name}/{name}"
                shares[key] = _ratio(np.count_nonzero(self.variant[mine] == place), np.count_nonzero(answered))
        return shares

    def _by_variant(self, figures: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        models, values = model_of(self.workload), np.zeros(len(self.workload))
        for number, figure in enumerate(figures):
            mine = (models == number) & (self.variant != NO_VARIANT)
            values[mine] = figure[self.variant[mine]]
        return values

    def _span_s(self) -> float:
        first = float(self.workload.arrival_s[0])
        ends = self.finish_s[~np.isnan(self.finish_s)]
        return max(float(self.workload.arrival_s[-1]), float(ends.max()) if len(ends) else first) - first


def _ratio(part: SupportsFloat, whole: SupportsFloat) -> float:
    return float(part) / float(whole) if float(whole) else 0.0
