"""Handwritten digits: 1,797 real 8x8 scans that ship with scikit-learn, and a residual CNN that reads them.

The data is UCI's "Optical Recognition of Handwritten Digits" test set (Alpaydin and Kaynak 1998): grey values 0..16.
560 rows are held out for test, since a claim of one point needs about 540; 140 validate, 120 calibrate, the other
977 train. All parts are drawn class by class from one seeded permutation.

The full model is wide on purpose (41 million multiply-accumulates, 4 million parameters): digits need less, and the
surplus is what the smaller tiers show by doing without it. Input is ``image`` float32 (rows, 1, 8, 8) as scikit-learn
gives it; the model scales it itself, so that a client sends raw values.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from sklearn.datasets import load_digits
from torch import nn

from variants.recipe import (
    Classes,
    DataParts,
    Examples,
    Plan,
    Pruning,
    Teaching,
    Thresholds,
    Training,
)

PART_ROWS = {"test": 560, "validation": 140, "calibration": 120}
ROTATION, SCALE, SHIFT, NOISE = math.radians(9.0), 0.09, 0.15, 0.4


class Block(nn.Module):
    """A residual block (He et al. 2016): two 3x3 convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.around(x))


class ResidualNet(nn.Module):
    """A stem, one stage of ``blocks`` blocks per width (each stage after the first halves the image), and a mean."""

    def __init__(self, widths: tuple[int, ...], blocks: int, classes: int = 10) -> None:
        super().__init__()
        stem = [nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        stages: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(Block(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = width
        self.features = nn.Sequential(*stem, *stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map raw grey values (N, 1, 8, 8) in 0..16 to logits (N, classes)."""
        x = image * (1.0 / 16.0) - 0.3  # about zero mean
        x = self.features(x)  # (N, channels, h, w)
        logits: torch.Tensor = self.head(x.mean((2, 3)))  # (N, classes)
        return logits


def split_rows(labels: Classes, seed: int) -> dict[str, Classes]:
    """Return row numbers by part, each class dealt out in proportion, from one seeded permutation."""
    order = np.random.default_rng(seed).permutation(len(labels))
    free = order[np.argsort(labels[order], kind="stable")]  # grouped by class, random within it
    parts: dict[str, Classes] = {}
    for name, rows in PART_ROWS.items():
        chosen = np.linspace(0, len(free) - 1, rows).round().astype(np.int64)  # evenly over the classes
        parts[name] = free[chosen]
        free = np.delete(free, chosen)
    return {**parts, "train": free}


class Digits:
    """The bundled recipe."""

    name = "digits"
    metric = "accuracy"
    dataset = "scikit-learn digits (UCI optical recognition of handwritten digits)"
    labels = tuple("0123456789")
    input_name = "image"
    input_shape = (1, 8, 8)
    output_name = "logits"
    plan = Plan(
        training=Training(steps=260, learning_rate=0.02),
        teaching=Teaching(copies=12, temperature=3.0, weight=0.9),
        pruning=Pruning(ratio=0.5, iterations=3, training=Training(steps=60, learning_rate=0.01)),
        distillation=Training(steps=900, learning_rate=0.05),
        thresholds=Thresholds(min_full=0.98, max_loss=0.03),
    )

    def load(self, seed: int) -> DataParts:
        """Return the four parts, without repeated scans."""
        raw = load_digits()
        images = raw.images.astype(np.float32)[:, None]  # (1797, 1, 8, 8)
        _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
        images, labels = images[np.sort(first)], raw.target.astype(np.int64)[np.sort(first)]
        rows = split_rows(labels, seed)
        return DataParts(**{name: Examples(images[chosen], labels[chosen]) for name, chosen in rows.items()})

    def make_model(self) -> nn.Module:
        """Return the wide residual network."""
        return ResidualNet((80, 160, 320), blocks=2)

    def make_student(self) -> nn.Module:
        """Return a student some two hundred times smaller."""
        return ResidualNet((8, 16), blocks=1)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Turn, scale and shift each scan a little, and add noise; values stay in 0..16."""

        def uniform(limit: float, *shape: int) -> torch.Tensor:
            return (torch.rand(*shape, generator=generator) * 2 - 1) * limit

        rows = len(inputs)
        angle, zoom, shift = uniform(ROTATION, rows), 1 + uniform(SCALE, rows), uniform(SHIFT, rows, 2)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()  # (rows,)
        first = torch.stack([cos, -sin, shift[:, 0]], 1)  # (rows, 3)
        second = torch.stack([sin, cos, shift[:, 1]], 1)  # (rows, 3)
        grid = F.affine_grid(torch.stack([first, second], 1), list(inputs.shape), align_corners=False)
        moved = F.grid_sample(inputs, grid, align_corners=False)  # (rows, 1, 8, 8)
        noisy = moved + torch.randn(moved.shape, generator=generator) * NOISE
        return noisy.clamp(0.0, 16.0)


RECIPE = Digits()
