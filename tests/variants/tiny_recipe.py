"""A recipe small enough for tests: a few hundred scanned digits, narrow nets, a few dozen steps.

It is loaded by its path, as a user's own recipe would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits

from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Quantization, Teaching, Thresholds, Training
from variants.recipes.digits import ResidualNet

if TYPE_CHECKING:
    import torch

ROWS = {"train": 240, "calibration": 40, "validation": 40, "test": 120}


class Tiny:
    name = "tiny"
    metric = "accuracy"
    dataset = "440 scanned digits"
    labels = tuple("0123456789")
    input_name = "image"
    input_shape = (1, 8, 8)
    output_name = "logits"
    plan = Plan(
        training=Training(steps=40, batch_size=32, learning_rate=0.05),
        teaching=Teaching(copies=2),
        pruning=Pruning(ratio=0.5, iterations=2, training=Training(steps=15, batch_size=32), round_to=4),
        distillation=Training(steps=30, batch_size=32, learning_rate=0.05),
        thresholds=Thresholds(min_full=0.6, max_loss=0.9, min_agreement=0.8),
        quantization=Quantization(methods=("minmax",)),
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1),
    )

    def load(self, seed: int) -> DataParts:
        raw = load_digits()
        images = raw.images.astype(np.float32)[:, None]  # (1797, 1, 8, 8)
        order = np.random.default_rng(seed).permutation(len(images))
        parts, start = {}, 0
        for name, rows in ROWS.items():
            chosen = order[start : start + rows]
            parts[name] = Examples(images[chosen], raw.target.astype(np.int64)[chosen])
            start += rows
        return DataParts(**parts)

    def make_model(self) -> torch.nn.Module:
        return ResidualNet((16, 24), blocks=1)

    def make_student(self) -> torch.nn.Module:
        return ResidualNet((8,), blocks=1)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise: torch.Tensor = inputs.new_empty(inputs.shape).normal_(generator=generator)
        return inputs + 0.2 * noise


RECIPE = Tiny()
