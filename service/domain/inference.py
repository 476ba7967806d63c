"""A request as the data plane sees it, and its answer, free of any wire form.

What is made anew for each request is not frozen, because that makes the making twice as dear; nobody changes it either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.domain.observer import RunReport
    from service.domain.tensors import Tensor
    from service.domain.trace import Trace


class Criticality(IntEnum):
    """Who is refused last; lower is served first."""

    CRITICAL = 0
    NORMAL = 1
    SHEDDABLE = 2


class Reason(StrEnum):
    """Why this variant answered."""

    WITHIN_BUDGET = "within_budget"
    DOWNGRADED = "downgraded"
    ACCURACY_FLOOR = "accuracy_floor"
    PINNED = "pinned"
    HARDWARE = "hardware"
    CASCADED = "cascaded"
    LATE = "late"
    FALLBACK = "fallback"

    # Enum's own hash is a Python function, called for every answer that is counted or told.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class ClientHardware:
    """What a client said of the device that it runs on; ``None`` means not said.

    Either ``class_name`` names a class of the policy file, or the other fields describe the device and the policy
    file's rules find the class. ``network_s`` is network time that the client will still need; it is taken off
    the budget.
    """

    class_name: str | None = None
    memory_bytes: float | None = None
    accelerator: str | None = None
    isa: tuple[str, ...] = ()
    is_mobile: bool | None = None
    saves_data: bool | None = None
    network: str | None = None
    network_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a request asks of routing; durations are seconds from the request's arrival, ``None`` means not said."""

    budget_s: float | None = None
    timeout_s: float | None = None
    min_accuracy: float | None = None
    variant: str | None = None
    tier: str | None = None
    hardware: ClientHardware | None = None
    criticality: Criticality = Criticality.NORMAL


NO_KNOBS = Knobs()


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the client asked for by name; ``binary`` says how HTTP carries it."""

    name: str
    binary: bool = False


@dataclass(slots=True, eq=False)
class InferenceRequest:
    """One decoded request.

    ``id`` is never empty: the codec makes one where none came. ``outputs`` empty means all outputs, and
    ``binary_outputs`` is then how HTTP carries them. ``trace`` is set where the request is traced.
    """

    model: str
    id: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    binary_outputs: bool = False
    knobs: Knobs = NO_KNOBS
    protocol: str = "http"
    trace: Trace | None = None


@dataclass(slots=True)
class Answer:
    """Who answered and how that compares with what was asked; all durations in seconds.

    ``predicted_s`` is what the total was most likely to be when the run was decided, ``claimed_s`` what it exceeds once
    in a hundred. ``cascade`` tells of a cascade's answer: ``sure`` after its first stage, ``escalated`` after its
    second, or ``settled`` with the first one's though that was unsure. ``best_accuracy`` is the accuracy of the best
    candidate that keeps the budget on an idle machine, 0 where none does. ``runs`` are those that it took.
    """

    variant: str
    tier: str
    reason: Reason
    predicted_s: float
    queue_s: float
    compute_s: float
    total_s: float
    budget_s: float
    budget_met: bool
    expected_accuracy: float
    batch_size: int = 1
    claimed_s: float = 0.0
    cascade: str = ""
    best_accuracy: float = 0.0
    runs: tuple[RunReport, ...] = ()


@dataclass(slots=True, eq=False)
class InferenceResponse:
    """The outputs in the order asked for, and the story of how they came about."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    answer: Answer
    request: InferenceRequest | None = field(default=None, repr=False)
