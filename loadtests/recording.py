"""What a load test saw: one row per request, as columns.

Times are seconds from the start of the schedule, by a monotonic clock of the sending process. Latency counts from the
SCHEDULED moment: a request that had to wait because the sender, the connection or the server was stuck has waited for
its user too (Tene, "How NOT to measure latency": leaving this out is coordinated omission).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadtests.plan import Schedule


class Status(IntEnum):
    """How a request ended, seen from the client."""

    UNSENT = 0
    """The run was interrupted before its moment came."""
    OK = 1
    SHED = 2
    """Refused for load: HTTP 429, gRPC RESOURCE_EXHAUSTED."""
    EXPIRED = 3
    """Its hard deadline passed or could not be met: HTTP 504, gRPC DEADLINE_EXCEEDED."""
    NOT_READY = 4
    """HTTP 503 and 502, gRPC UNAVAILABLE."""
    INVALID = 5
    """Any other HTTP 4xx, gRPC INVALID_ARGUMENT, NOT_FOUND and the like: the load test itself is wrong."""
    FAILED = 6
    """Any other HTTP 5xx, gRPC INTERNAL and the like."""
    UNREADABLE = 7
    """Answered, and what came is not an answer of the protocol."""
    NO_CONNECTION = 8
    """The connection was not made."""
    LOST_CONNECTION = 9
    """The connection ended before the answer came."""
    TIMED_OUT = 10
    """The client gave up."""
    CANCELLED = 12
    """The server ended the call without a reason: gRPC CANCELLED, which grpcio sends where too many calls wait."""
    CUT_OFF = 11
    """Sent, and unanswered when the run was interrupted."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one answer says; NaN and empty where it says nothing. ``answer`` is the predicted class, -1 for none."""

    answer: int = -1
    variant: str = ""
    reason: str = ""
    predicted_s: float = np.nan
    queue_s: float = np.nan
    compute_s: float = np.nan
    total_s: float = np.nan
    expected_accuracy: float = np.nan
    predicted_p99_s: float = np.nan
    """What the server claims that 99 of 100 such answers take at most."""


_TIMES = (
    "sent_s", "done_s", "predicted_s", "predicted_p99_s", "queue_s", "compute_s", "total_s", "expected_accuracy",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Recording:
    """Columns of length N, one entry per scheduled request; NaN where a moment or a figure never came."""

    scheduled_s: NDArray[np.float64]
    classes: NDArray[np.uint8]
    rows: NDArray[np.int32]
    warmups: int
    columns: dict[str, NDArray[np.float64]]
    status: NDArray[np.uint8]
    variant: NDArray[np.int16]
    """Index into ``variants``, -1 for none."""
    reason: NDArray[np.int16]
    """Index into ``reasons``, -1 for none."""
    answer: NDArray[np.int32]
    variants: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    started_at: float = 0.0
    """The schedule's start as seconds of Unix time."""
    connections: int = 0
    """Connections opened in all."""
    cpu_s: float = 0.0
    """CPU time of the sending process between start and end."""
    is_interrupted: bool = False

    @classmethod
    def blank(cls, schedule: Schedule) -> Recording:
        """Return a recording in which nothing has happened yet."""
        count = len(schedule)
        return cls(
            scheduled_s=schedule.times_s,
            classes=schedule.classes,
            rows=schedule.rows,
            warmups=schedule.warmups,
            columns={name: np.full(count, np.nan) for name in _TIMES},
            status=np.zeros(count, np.uint8),
            variant=np.full(count, -1, np.int16),
            reason=np.full(count, -1, np.int16),
            answer=np.full(count, -1, np.int32),
        )

    @property
    def lag_s(self) -> NDArray[np.float64]:
        """How late each request was sent; NaN where it was not."""
        return self.columns["sent_s"] - self.scheduled_s

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """From the scheduled moment to the end of the answer or of the attempt; NaN where it never ended."""
        return self.columns["done_s"] - self.scheduled_s

    def note(self, index: int, done_s: float, status: Status, reply: Reply | None) -> None:
        """Write down how a request ended."""
        self.columns["done_s"][index] = done_s
        self.status[index] = status
        if reply is None:
            return
        self.answer[index] = reply.answer
        self.variant[index] = _index_of(reply.variant, self.variants)
        self.reason[index] = _index_of(reply.reason, self.reasons)
        columns = self.columns
        columns["predicted_s"][index] = reply.predicted_s
        columns["predicted_p99_s"][index] = reply.predicted_p99_s
        columns["queue_s"][index] = reply.queue_s
        columns["compute_s"][index] = reply.compute_s
        columns["total_s"][index] = reply.total_s
        columns["expected_accuracy"][index] = reply.expected_accuracy

    def measured(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the requests that count: all after the warm-up whose moment came."""
        keep = np.arange(len(self.status)) >= self.warmups
        keep &= self.status != Status.UNSENT
        named: dict[str, NDArray[Any]] = {
            "scheduled_s": self.scheduled_s,
            "latency_s": self.latency_s,
            "lag_s": self.lag_s,
            "classes": self.classes,
            "rows": self.rows,
            "status": self.status,
            "variant": self.variant,
            "reason": self.reason,
            "answer": self.answer,
            **self.columns,
        }
        return {name: column[keep] for name, column in named.items()}


def _index_of(name: str, names: list[str]) -> int:
    """Return the name's place, giving it one when it is new."""
    if not name:
        return -1
    try:
        return names.index(name)
    except ValueError:
        names.append(name)
        return len(names) - 1
