"""Pictures of characters: 221 classes of painted glyphs at 64x64, and a ResNet-18 that reads them.

``variants.sources.glyphs`` paints the data, so nothing is downloaded and there are test rows enough for a verdict at
one point: 4,420 test, 442 validation, 221 calibration and 22,100 training pictures, each part from a seed of its own.

The ladder is wide in time, so that the model's time and not the gateway's is what a load test sees, and has two
students: one that loses next to nothing, and one nine times smaller that loses some points. Training is kept short:
most steps see pictures at half the side (Tan and Le 2021, "EfficientNetV2", progressive learning) and compute in
bfloat16.

Input is ``image`` float32 (rows, 1, 64, 64), grey values 0..255; the model normalises each picture itself.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn

from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Quantization, Teaching, Thresholds, Training
from variants.sources.glyphs import ALPHABET, SIDE, paint
from variants.sources.resnet import RESNET18, ResNet, Shape

PART_ROWS: Final = {
    "train": 100 * len(ALPHABET),
    "calibration": len(ALPHABET),
    "validation": 2 * len(ALPHABET),
    "test": 20 * len(ALPHABET),
}
FULL: Final = Shape(RESNET18.blocks, stem="small")
STUDENT: Final = Shape((1, 1, 1, 1), (24, 48, 96, 192), stem="small")
SMALL: Final = Shape((1, 1, 1, 1), (8, 16, 32, 64), stem="small")
SHIFT: Final = 4


def _read(shape: Shape) -> ResNet:
    return ResNet(shape, channels=1, classes=len(ALPHABET), normalise=nn.InstanceNorm2d(1))


class Images:
    """The bundled recipe."""

    name = "images"
    metric = "accuracy"
    dataset = "painted glyphs of the DejaVu fonts"
    labels = tuple(ALPHABET)
    input_name = "image"
    input_shape = (1, SIDE, SIDE)
    output_name = "logits"
    more_students: Final = {"small": partial(_read, SMALL)}
    plan = Plan(
        training=Training(
            steps=1300,
            learning_rate=0.002,
            weight_decay=0.05,
            optimizer="adamw",
            precision="bfloat16",
            coarse_share=0.75,
        ),
        teaching=Teaching(copies=1, temperature=2.0, weight=0.9, precision="bfloat16"),
        pruning=Pruning(
            ratio=0.5,
            iterations=1,
            training=Training(
                steps=1600,
                learning_rate=0.003,
                weight_decay=0.05,
                optimizer="adamw",
                precision="bfloat16",
                coarse_share=0.85,
            ),
            apart=(("layer4.1.conv1", 0.53),),  # a little more, so that a quarter of the work is left
            settle=Training(steps=400, learning_rate=0.003, weight_decay=0.05, optimizer="adamw", precision="bfloat16"),
        ),
        distillation=Training(steps=1600, learning_rate=0.005, weight_decay=0.05, optimizer="adamw", coarse_share=0.6),
        thresholds=Thresholds(min_full=0.85, max_loss=0.12, min_agreement=0.93),
        quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.1, max_float_nodes=1),
        profiling=Profiling(runs=300),
    )

    def load(self, seed: int) -> DataParts:
        """Paint the four parts, each from a seed of its own."""
        parts = {}
        for number, (name, rows) in enumerate(PART_ROWS.items()):
            pictures, labels = paint(rows, len(PART_ROWS) * seed + number)
            parts[name] = Examples(pictures[:, None].astype(np.float32), labels)
        return DataParts(**parts)

    def make_model(self) -> nn.Module:
        """Return a ResNet-18 whose stem suits small pictures."""
        return _read(FULL)

    def make_student(self) -> nn.Module:
        """Return a student of half the depth and three eighths of the width."""
        return _read(STUDENT)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Shift each picture by up to four pixels, repeating its edge."""
        rows, places = len(inputs), torch.arange(SIDE)
        shifts = torch.randint(-SHIFT, SHIFT + 1, (2, rows, 1), generator=generator)
        down, right = (places + shifts).clamp(0, SIDE - 1)  # (rows, side) each
        return inputs[torch.arange(rows)[:, None, None], 0, down[:, :, None], right[:, None, :]][:, None]


RECIPE = Images()
