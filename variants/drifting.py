"""What is written down of a variant on validation rows so that drift can be told later without the data.

**Allowed disagreement.** Of n validation rows k differ from full: what is allowed is the upper end of the one-sided
90 % Clopper and Pearson interval of k / n. It also says what is allowed *by how sure full is*: a logistic in full's
log-odds, fitted on clean and perturbed rows together, since clean ones alone hold too few disagreements. Rows on which
full is sure are allowed nearly none, so that one disagreement there is worth many elsewhere. Of values the loss is the
relative error (``service.policy.drift.regression``), of boxes 1 less F1 (``service.policy.drift.detection``), and what
is allowed is its mean and as much as chance adds.

**Calibration.** The chance that an answer is right, logistic in its log-odds (Platt 1999), fitted on clean validation
rows with a weak prior at slope 1, intercept 0. Fitting it on perturbed rows as well, or making it depend on how far a
window's mean confidence has fallen, was measured and was worse: perturbations are not the shifts that come.

**How wrong it becomes.** Perturbed rows do say how the error of an estimate grows with its distance from the validation
accuracy: the most, over all perturbations, by which an error exceeds 1.96 standard errors, per point of distance, over
1.96 is the ``error_slope``. (Nine of ten perturbations were too few: shifts came that are worse than all but one.)
Once from confidence alone, once from pairs of answers (``service.policy.drift.estimate``), whose combination is
repeated here:

    t = c where both agree, else u (1 - c) / (u (1 - c) + c (1 - u) + (1 - u)(1 - c))

with c and u the chances of full and of the variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import beta

from variants.drift_reference import AllowedLoss, Calibration, DriftReference
from variants.evidence import Histogram
from variants.perturbing import perturbed_places
from variants.scoring import Boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from variants.probabilities import Reals
    from variants.recipe import Classes, Floats, Labels
    from variants.scoring import Scoring

MOST_LOG_ODDS: Final = 30.0
CONFIDENCE: Final = 0.9
BINS: Final = 10
_STEPS: Final = 50
_PRIOR: Final = 1.0
_LEAST_DISTANCE: Final = 0.02
_LEAST_VARIANCE: Final = 0.01
_Z: Final = 1.96
_Z_90: Final = 1.2816


@dataclass(frozen=True, slots=True)
class Seen:
    """The first output (rows, ...) of one variant on clean validation rows and, perturbed, on those that are."""

    clean: Floats
    perturbed: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """The labels (rows, ...) of the clean rows, which are those of the perturbed ones too, and what is right."""

    labels: Labels
    scoring: Scoring


def describe_drift(full: Seen | None, variant: Seen, truth: Truth) -> DriftReference:
    """Return what ``variant`` will be held against beside ``full``, which is ``None`` for full itself."""
    task = truth.scoring.task
    reference = DriftReference(
        agreement=task,
        rows=len(truth.labels),
        accuracy=float(truth.scoring.right(variant.clean, truth.labels).mean()),
    )
    if task == "classification":
        found = {
            "output_form": "probabilities" if _are_probabilities(variant.clean) else "logits",
            "allowed": None if full is None else _allow_classes(full, variant),
            "calibration": _calibrate(full or variant, variant, truth.labels),
            "log_odds": _equal_bins(log_odds(variant.clean)),
        }
        return reference.model_copy(update=found)
    if task == "regression":
        outputs = (full or variant).clean
        scale = float(outputs.std()) or 1.0
        allowed = None if full is None else _allow_losses(_relative_errors(full.clean, variant.clean, scale))
        return reference.model_copy(update={"scale": scale, "allowed": allowed})
    if isinstance(truth.scoring, Boxes) and full is not None:
        losses = truth.scoring.disagreement(full.clean, variant.clean)
        return reference.model_copy(update={"allowed": _allow_losses(losses)})
    return reference


def log_odds(outputs: Floats) -> Reals:
    """Return ln(p / (1 - p)) of each row's largest class probability, from logits or probabilities, (rows,)."""
    values = outputs.astype(np.float64)
    if _are_probabilities(outputs):
        values = np.log(np.maximum(values, 1e-300))
    if values.shape[1] < 2:  # noqa: PLR2004 - one class is always right
        return np.full(len(values), MOST_LOG_ODDS)
    ordered = np.sort(values, axis=1)
    top, others = ordered[:, -1], ordered[:, :-1]
    rest = others[:, -1] + np.log(np.exp(others - others[:, -1:]).sum(1))
    return np.asarray(np.clip(np.nan_to_num(top - rest, nan=-MOST_LOG_ODDS), -MOST_LOG_ODDS, MOST_LOG_ODDS))


def _are_probabilities(outputs: Floats) -> bool:
    return bool(outputs.min() >= 0.0 and np.abs(outputs.sum(1) - 1.0).max() < 1e-3)  # noqa: PLR2004 - rounding of float16


def _relative_errors(full: Floats, variant: Floats, scale: float) -> Reals:
    ratio = np.minimum(np.abs(variant - full) / np.maximum(np.abs(full), scale), 1.0)
    return np.asarray(ratio.reshape(len(ratio), -1).mean(1), dtype=np.float64)  # (rows,)


def _allow_losses(losses: Reals) -> AllowedLoss:
    """Allow the mean of ``losses`` (rows,); the interval's end by the normal approximation, one-sided 90 %."""
    measured = float(losses.mean())
    return AllowedLoss(measured=measured, rate=min(1.0, measured + _Z_90 * float(losses.std()) / sqrt(len(losses))))


def _allow_classes(full: Seen, variant: Seen) -> AllowedLoss:
    clean = variant.clean.argmax(1) != full.clean.argmax(1)
    differing, rows = int(clean.sum()), len(clean)
    pairs = list(zip((full.clean, *full.perturbed), (variant.clean, *variant.perturbed), strict=True))
    losses = np.concatenate([theirs.argmax(1) != ours.argmax(1) for ours, theirs in pairs])
    intercept, slope = fit_logistic(np.concatenate([log_odds(ours) for ours, _ in pairs]), losses, (0.0, -1.0))
    return AllowedLoss(
        measured=differing / rows,
        rate=1.0 if differing == rows else float(beta.ppf(CONFIDENCE, differing + 1, rows - differing)),
        intercept=intercept,
        slope=slope,
    )


def _calibrate(full: Seen, variant: Seen, labels: Classes) -> Calibration:
    own = _fit(variant, labels)
    others = _fit(full, labels)
    right = variant.clean.argmax(1) == labels
    accuracy, rows = float(right.mean()), len(labels)
    perturbed_labels = labels[perturbed_places(rows)]
    estimates = []
    for ours, theirs in zip(full.perturbed, variant.perturbed, strict=True):
        truth = float((theirs.argmax(1) == perturbed_labels).mean())
        u, c = _chances(own, theirs), _chances(others, ours)
        both = _together(c, u, theirs.argmax(1) == ours.argmax(1))
        estimates.append((truth, float(u.mean()), float(both.mean()), len(theirs)))
    return Calibration(
        intercept=own[0],
        slope=own[1],
        threshold=float(np.quantile(log_odds(variant.clean), 1.0 - accuracy)),
        error_floor=sqrt(max(accuracy * (1.0 - accuracy), 0.5 / rows) / rows),
        error_slope=_growth([(truth, alone, rows) for truth, alone, _, rows in estimates], accuracy),
        pair_error_slope=_growth([(truth, both, rows) for truth, _, both, rows in estimates], accuracy),
    )


def _fit(seen: Seen, labels: Classes) -> tuple[float, float]:
    return fit_logistic(log_odds(seen.clean), seen.clean.argmax(1) == labels, (0.0, 1.0))


def _chances(fit: tuple[float, float], outputs: Floats) -> Reals:
    return np.asarray(_sigmoid(fit[0] + fit[1] * log_odds(outputs)))


def _together(full: Reals, variant: Reals, agrees: NDArray[np.bool_]) -> Reals:
    mine = variant * (1.0 - full)
    total = mine + full * (1.0 - variant) + (1.0 - full) * (1.0 - variant)
    return np.where(agrees, full, mine / np.maximum(total, 1e-12))


def _growth(estimates: Sequence[tuple[float, float, int]], accuracy: float) -> float:
    """Return the error per distance that every perturbation keeps, as a standard error."""
    ratios = [
        max(abs(found - truth) - _Z * sqrt(max(truth * (1.0 - truth), _LEAST_VARIANCE) / rows), 0.0)
        / max(abs(accuracy - found), _LEAST_DISTANCE)
        for truth, found, rows in estimates
    ]
    return max(ratios) / _Z if ratios else 1.0


def fit_logistic(values: Reals, outcomes: NDArray[np.bool_], prior: tuple[float, float]) -> tuple[float, float]:
    """Return intercept and slope of P(outcome | value): Newton's method under a unit normal prior around ``prior``."""
    design = np.stack([np.ones_like(values), values], axis=1)  # (rows, 2)
    centre = np.asarray(prior)
    weights = centre.copy()
    for _ in range(_STEPS):
        chance = _sigmoid(design @ weights)
        gradient = design.T @ (outcomes - chance) - _PRIOR * (weights - centre)
        curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step / max(1.0, float(np.abs(step).max()))
    return float(weights[0]), float(weights[1])


def _sigmoid(values: Reals) -> Reals:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0))))


def _equal_bins(values: Reals) -> Histogram | None:
    """Return a histogram in bins of about equal counts; ``None`` where all values are one."""
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, BINS + 1)))
    if len(edges) < 3:  # noqa: PLR2004 - two bins are the fewest that can differ
        return None
    edges[0], edges[-1] = -MOST_LOG_ODDS, MOST_LOG_ODDS
    counts = np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=len(edges) - 1)
    return Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))
