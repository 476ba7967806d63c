"""What a manifest says so that drift can be told later: nouns beside ``variants.evidence``, of the validation split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from variants.evidence import Count, Histogram, Ratio, Strict

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class ByClass(Strict):
    """A row is right where its largest score stands at the label."""

    kind: Literal["classes"] = "classes"


class ByValue(Strict):
    """A row is right where every value lies within the tolerance of its label."""

    kind: Literal["values"] = "values"
    tolerance: Positive = Field(description="in the answer's units")


class ByBoxes(Strict):
    """A picture is right where its boxes and the labelled ones match one to one, by class and overlap.

    The first output is (rows, 4 + classes, places): centre x, y, width, height, then the scores of the classes.
    """

    kind: Literal["boxes"] = "boxes"
    least_score: Ratio = Field(description="boxes that score less are none")
    overlap: Ratio = Field(description="intersection over union from which boxes match")
    suppression: Ratio = Field(description="of two boxes of a class that overlap by more, the lower score is none")


ScoringForm = Annotated[ByClass | ByValue | ByBoxes, Field(discriminator="kind")]


class AllowedLoss(Strict):
    """How much a variant may disagree with full: 0 where answers agree, 1 where they do not, means 0..1."""

    measured: Ratio = Field(description="mean loss on the validation rows")
    rate: Ratio = Field(description="upper end of the one-sided 90 % interval of the mean: what is allowed")
    intercept: Finite = Field(default=0.0, description="with slope: loss allowed by full's log-odds, as a logistic")
    slope: float | None = Field(default=None, allow_inf_nan=False, description="null: the same loss for every row")


class Calibration(Strict):
    """Chance that an answer is right = sigmoid(intercept + slope * log-odds of its largest class probability)."""

    intercept: Finite
    slope: Finite
    threshold: Finite = Field(description="log-odds below which as many validation rows lie as are wrong (ATC)")
    error_floor: Positive = Field(description="standard error that the calibration rows leave")
    error_slope: Positive = Field(
        description="standard error of an estimate from confidence, per point that it lies from validation accuracy"
    )
    pair_error_slope: Positive = Field(description="the same of an estimate from pairs of answers with full's")


class DriftReference(Strict):
    """What one variant is held against while it serves."""

    agreement: Literal["classification", "regression", "detection"] = "classification"
    output_form: Literal["logits", "probabilities"] = "logits"
    scale: Positive = Field(default=1.0, description="regression: the size below which errors are not relative")
    rows: Count
    accuracy: Ratio = Field(description="on the validation rows")
    allowed: AllowedLoss | None = Field(default=None, description="null for full")
    calibration: Calibration | None = None
    log_odds: Histogram | None = Field(default=None, description="bins of about equal counts; the outer ones are open")


class InputDrift(Strict):
    """Summaries of the input's rows: levels of its parts, contrast and texture, as ``docs/drift.md`` lists them."""

    name: str
    rows: Count
    means: tuple[Finite, ...] = Field(max_length=64)
    whitening: tuple[tuple[Finite, ...], ...] = Field(
        max_length=64,
        description="(summaries, directions): makes a summary less the means independent and of unit size",
    )
    distances: tuple[Positive, ...] = Field(
        min_length=2, max_length=128, description="evenly spaced quantiles of rows' squared lengths after whitening"
    )
