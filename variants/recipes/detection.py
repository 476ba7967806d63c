"""Shapes in pictures: eight classes at 64x64 under noise, light and each other, and a detector that finds them.

``variants.sources.shapes`` draws the data, so nothing is downloaded and there are test rows enough for a verdict at one
point: 4,000 test, 400 validation, 200 calibration and 8,000 training pictures, each part from a seed of its own.

A picture is right where every shape is found, of its class and with an overlap of at least 0.5, and nothing besides: of
boxes that score at least ``scoring.least_score``, those of one class suppressed that overlap a better one. That is a
0/1 score of each row, which paired comparison and routing need; mAP stands beside it.

Input is ``image`` float32 (rows, 1, 64, 64), grey values 0..255; the answer is ``boxes`` (rows, 12, 80) in YOLO's
layout. No picture is varied in training, since a label would have to move with it: there are more pictures instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from variants.box_losses import BoxObjectives
from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Quantization, Teaching, Thresholds, Training
from variants.scoring import Boxes
from variants.sources.detector import Detector, Width, centres
from variants.sources.shapes import CLASSES, SIDE, draw_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

PART_ROWS: Final = {"train": 8_000, "calibration": 200, "validation": 400, "test": 4_000}
FULL: Final = Width(16, (32, 64, 128), 64, blocks=2)
STUDENT: Final = Width(8, (16, 32, 48), 32, blocks=1)


def _adamw(steps: int, learning_rate: float) -> Training:
    return Training(steps, batch_size=16, learning_rate=learning_rate, weight_decay=0.05, optimizer="adamw")


class Detection:
    """The bundled recipe."""

    name = "detection"
    metric = "right pictures"
    scoring = Boxes(least_score=0.3)
    objectives = BoxObjectives(centres(SIDE)[:2])
    dataset = "drawn shapes"
    labels = CLASSES
    input_name = "image"
    input_shape = (1, SIDE, SIDE)
    output_name = "boxes"
    plan = Plan(
        training=_adamw(2400, 0.004),
        teaching=Teaching(copies=1, weight=0.8),
        pruning=Pruning(ratio=0.5, iterations=2, training=_adamw(450, 0.003)),
        distillation=_adamw(2000, 0.006),
        thresholds=Thresholds(min_full=0.5, max_loss=0.25, min_agreement=0.8),
        quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.15, max_float_nodes=1),
        profiling=Profiling(runs=300),
    )

    def load(self, seed: int) -> DataParts:
        """Draw the four parts, each from a seed of its own."""
        parts = {}
        for number, (name, rows) in enumerate(PART_ROWS.items()):
            pictures, labels = draw_shapes(rows, len(PART_ROWS) * seed + number)
            parts[name] = Examples(pictures[:, None].astype(np.float32), labels)
        return DataParts(**parts)

    def make_model(self) -> nn.Module:
        """Return a detector of a million weights."""
        return Detector(FULL, len(CLASSES), SIDE)

    def make_student(self) -> nn.Module:
        """Return a detector of half the depth and width."""
        return Detector(STUDENT, len(CLASSES), SIDE)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002 - nothing is drawn
        """Return the rows as they are."""
        return inputs


RECIPE = Detection()
