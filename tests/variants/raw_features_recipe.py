"""A network over raw measurements whose scales differ by five orders of magnitude, as tables of real data have them.

Batch norm does the scaling, inside the model; ``augment`` is what a user's own would be.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Quantization, Teaching, Thresholds, Training


def net(width: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.BatchNorm1d(30),
        torch.nn.Linear(30, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, 2),
    )


class RawFeatures:
    name = "raw-features"
    metric = "accuracy"
    dataset = "scikit-learn breast cancer (Wisconsin)"
    labels = ("malignant", "benign")
    input_name = "features"
    input_shape = (30,)
    output_name = "logits"
    plan = Plan(
        training=Training(steps=120),
        teaching=Teaching(copies=2),
        pruning=Pruning(ratio=0.5, iterations=1, training=Training(steps=20)),
        distillation=Training(steps=60),
        thresholds=Thresholds(min_full=0.85, max_loss=0.1, min_agreement=0.9),
        quantization=Quantization(methods=("minmax",), max_float_nodes=9),  # more than there are layers
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1),
    )

    def load(self, seed: int) -> DataParts:
        raw = load_breast_cancer()
        inputs, labels = raw.data.astype(np.float32), raw.target.astype(np.int64)
        parts = np.split(np.random.default_rng(seed).permutation(len(labels)), [270, 320, 370])
        return DataParts(*(Examples(inputs[rows], labels[rows]) for rows in parts))

    def make_model(self) -> torch.nn.Module:
        return net(64)

    def make_student(self) -> torch.nn.Module:
        return net(16)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs * (1 + 0.05 * torch.randn(inputs.shape, generator=generator))


RECIPE = RawFeatures()
