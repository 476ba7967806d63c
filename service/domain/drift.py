"""What a build wrote down so that drift can be told later, and what a gateway may do about it.

Everything here is of the validation split. A *pair* is one row answered by a variant and by full; its *loss* is what
the variant's answer lacks of agreeing with full's, 0..1. The *log-odds* of an answer are ln(p / (1 - p)) of its largest
class probability p: confidence on a scale that does not pile up near 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OutputForm = Literal["logits", "probabilities"]
DriftState = Literal["healthy", "warned", "demoted", "quarantined", "restored"]
"""``restored`` is healthy on probation: routed as before, but the next suspicion demotes."""


@dataclass(frozen=True, slots=True)
class ByClass:
    """A row is right where its largest score stands at the label."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """A row is right where every value lies within ``tolerance`` of its label, in the answer's units."""

    tolerance: float


@dataclass(frozen=True, slots=True)
class ByBoxes:
    """A picture is right where its boxes and the labelled ones match one to one, by class and overlap.

    Boxes below ``least_score`` are none; of two of one class that overlap by more than ``suppression`` the one of the
    lower score is none either; a match overlaps by at least ``overlap``. All are ratios, 0..1.
    """

    least_score: float = 0.25
    overlap: float = 0.5
    suppression: float = 0.45


Scoring = ByClass | ByValue | ByBoxes
"""When an answer counts as right, as the model's manifest has it."""


@dataclass(frozen=True, slots=True)
class AllowedLoss:
    """The mean loss against full that a variant may have, 0..1: overall, and by how sure full is.

    Where ``slope`` is given, sigmoid(intercept + slope * full's log-odds) holds for the row besides ``rate`` for all.
    """

    rate: float
    intercept: float = 0.0
    slope: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a variant's log-odds s become the chance sigmoid(intercept + slope s) that its answer is right.

    ``threshold`` is the log-odds below which as many validation rows lie as are wrong (ATC). An estimate has a standard
    error of ``error_floor`` from the calibration rows, and of ``error_slope`` (``pair_error_slope`` where pairs help)
    for each point that it lies from ``accuracy``, that of the validation rows.
    """

    intercept: float
    slope: float
    threshold: float
    accuracy: float
    error_floor: float
    error_slope: float
    pair_error_slope: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A reference distribution: ``counts[i]`` values between ``edges[i]`` and ``edges[i + 1]``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VariantReference:
    """What is known of one variant; ``allowed`` is ``None`` for full, the last two where the task has no confidence.

    ``accuracy`` is the manifest's claim, measured on ``rows`` of the test split.
    """

    accuracy: float
    rows: int
    allowed: AllowedLoss | None = None
    calibration: Calibration | None = None
    log_odds: Distribution | None = None


@dataclass(frozen=True, slots=True)
class InputReference:
    """Summaries of one input, one row each (``policy.drift.summary``): how they spread, and how far rows lie out.

    ``whitening`` (summaries, summaries) turns a summary less ``means`` into independent units; ``distances`` are the
    quantiles, evenly spaced from 0 to 1, of its squared length.
    """

    name: str
    rows: int
    means: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    distances: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When to act, and how far. Run lengths are in shadow samples (or labels): the mean time to a false alarm.

    ``drop`` is the loss of accuracy that must be found, ``severe_drop`` the one that quarantines; ``most`` is the
    severest state that is entered without a hand. ``distribution_level`` is the p below which distributions differ.
    """

    drop: float = 0.05
    severe_drop: float = 0.1
    warn_run_length: float = 200.0
    demote_run_length: float = 3_000.0
    restore_run_length: float = 500.0
    probation: int = 300
    window: int = 500
    most: DriftState = "quarantined"
    distribution_level: float = 1e-4
