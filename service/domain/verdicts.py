"""What drift says of variants, and what can be told of it: the nouns between who watches, who routes and who shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.drift import DriftState

Action = Literal["quarantine", "restore", "hold", "release"]
"""By hand: take out of routing; give everything back and judge anew; stay as it is; let drift judge again."""

ACTIONS: Final[tuple[Action, ...]] = ("quarantine", "restore", "hold", "release")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What routing has to know of one variant.

    ``accuracy`` takes the manifest's place where it is not ``None``. ``is_out`` takes the variant out of routing; a
    request that pins it is still answered by it.
    """

    state: DriftState = "healthy"
    accuracy: float | None = None
    is_out: bool = False
    why: str = ""


HEALTHY: Final = Verdict()


@dataclass(frozen=True, slots=True)
class Happening:
    """One action: from one state to another, when (seconds since 1970), by whom, and on what evidence."""

    at_s: float
    before: DriftState
    after: DriftState
    by: Literal["drift", "hand"]
    evidence: str


@dataclass(frozen=True, slots=True)
class Rolling:
    """The accuracy by the labels of the last answers, with its 95 % interval; 0..1."""

    rows: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantDrift:
    """All that is known of one variant's drift.

    ``agreement`` is 1 less the mean loss of its shadow samples against full, ``allowed_agreement`` what its manifest
    has. ``score_distance`` (0..1) and ``margin`` (largest less second largest probability, 0..1; only for classes) are
    means over the same samples. ``estimate`` is the accuracy that is believed now, by labels or else without them, with
    its 95 % interval.
    ``scores`` are by detector, each so that 1.0 is where it speaks up; ``detected`` names those above. ``shadow_runs``
    are by outcome.
    """

    variant: str
    state: DriftState
    is_held: bool
    is_routed: bool
    claimed_accuracy: float
    routed_accuracy: float
    shadow_share: float
    shadow_samples: int
    agreement: float | None
    allowed_agreement: float | None
    score_distance: float | None
    margin: float | None
    estimate: tuple[float, float, float] | None
    estimate_by: str
    labels: Rolling | None
    scores: Mapping[str, float] = field(default_factory=dict)
    detected: tuple[str, ...] = ()
    shadow_runs: Mapping[str, int] = field(default_factory=dict)
    history: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """All that is known of one model's drift; ``notes`` say what is not watched, and why."""

    model: str
    version: str
    most: str
    variants: tuple[VariantDrift, ...]
    notes: tuple[str, ...] = ()
    labels_kept: bool = False
    feedback: Mapping[str, int] = field(default_factory=dict)
    input_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """What the right answer to a request was, one entry for each row.

    A class by its index or name; a number or a list of them; or a list of boxes, each its class and four numbers.
    """

    request_id: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """What became of labels: ``joined`` with a kept prediction, ``unknown`` ids, and those that do not ``fit``."""

    joined: int
    unknown: tuple[str, ...]
    unfit: tuple[str, ...]
