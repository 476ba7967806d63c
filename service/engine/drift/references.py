"""What a manifest says of a model so that drift can be told: how answers are compared, and what is allowed.

A manifest of an older build has no reference of its own; then the disagreement with full on the test rows is what is
allowed, at the upper end of its interval, and there is no estimate without labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Final

from service.domain.drift import (
    AllowedLoss,
    ByBoxes,
    ByClass,
    ByValue,
    Calibration,
    Distribution,
    InputReference,
    VariantReference,
)
from service.policy.drift.classification import Classification
from service.policy.drift.detection import Detection
from service.policy.drift.regression import Regression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.drift import Scoring
    from service.policy.drift.pairs import Agreement
    from variants.manifest import ModelManifest, VariantManifest

_Z_90: Final = 1.2816


@dataclass(frozen=True, slots=True)
class ModelReference:
    """How a model's answers are compared, and what is known of its variants and inputs.

    ``scoring`` says when an answer is right; ``None`` where an older build did not write it down.
    """

    agreement: Agreement
    variants: Mapping[str, VariantReference]
    inputs: tuple[InputReference, ...] = ()
    scoring: Scoring | None = field(default_factory=ByClass)


def read_reference(manifest: ModelManifest) -> ModelReference:
    """Return what a manifest has."""
    described = next((item for item in manifest.published if item.drift is not None), None)
    found, scoring = manifest.input_drift, _scoring(manifest)
    return ModelReference(
        agreement=_agreement(manifest, described, scoring),
        variants={item.name: _variant(item) for item in manifest.published},
        inputs=()
        if found is None
        else (InputReference(found.name, found.rows, found.means, found.whitening, found.distances),),
        scoring=scoring,
    )


def _scoring(manifest: ModelManifest) -> Scoring | None:
    found = manifest.scoring
    if found is None:
        return ByClass() if manifest.task == "classification" else None
    if found.kind == "classes":
        return ByClass()
    if found.kind == "values":
        return ByValue(found.tolerance)
    return ByBoxes(found.least_score, found.overlap, found.suppression)


def _agreement(manifest: ModelManifest, described: VariantManifest | None, scoring: Scoring | None) -> Agreement:
    """Return how answers are compared; ``described`` is a variant that says more of it than the model's task does."""
    drift = None if described is None else described.drift
    if manifest.task == "classification":
        return Classification() if drift is None else Classification(drift.output_form)
    if manifest.task == "regression":
        return Regression() if drift is None else Regression(drift.scale)
    return Detection(scoring.least_score, scoring.suppression) if isinstance(scoring, ByBoxes) else Detection()


def _variant(item: VariantManifest) -> VariantReference:
    drift = item.drift
    if drift is None:
        measured, is_full = item.accuracy, item.tier == "full"
        allowed = None if is_full else AllowedLoss(_upper(measured.flips / measured.rows, measured.rows))
        return VariantReference(measured.value, measured.rows, allowed)
    limit, known, odds = drift.allowed, drift.calibration, drift.log_odds
    return VariantReference(
        accuracy=item.accuracy.value,  # of the test rows: what routing reckons with, and what labels are held against
        rows=item.accuracy.rows,
        allowed=None if limit is None else AllowedLoss(limit.rate, limit.intercept, limit.slope),
        calibration=None
        if known is None
        else Calibration(
            intercept=known.intercept,
            slope=known.slope,
            threshold=known.threshold,
            accuracy=drift.accuracy,
            error_floor=known.error_floor,
            error_slope=known.error_slope,
            pair_error_slope=known.pair_error_slope,
        ),
        log_odds=None if odds is None else Distribution(odds.edges, odds.counts),
    )


def _upper(share: float, rows: int) -> float:
    """Return the upper end of the one-sided 90 % Wilson interval of a share."""
    spread = _Z_90 * sqrt(share * (1.0 - share) / rows + _Z_90 * _Z_90 / (4.0 * rows * rows))
    return min(1.0, (share + _Z_90 * _Z_90 / (2.0 * rows) + spread) / (1.0 + _Z_90 * _Z_90 / rows))
