"""A value from ten measurements: Friedman's first function with noise, and a network that estimates it.

The table is scikit-learn's ``make_friedman1`` (Friedman 1991)::

    y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + noise of standard deviation 1

with five more features that say nothing. An answer is right within 1.5 of the measured value, a tolerance of one and a
half times the noise: whoever knew the function itself would be right on 86.6 % of rows. R2, the mean absolute and the
root mean square error stand beside that share. 20,000 rows are held out.

Full is wide on purpose, as in the recipe ``digits``. There is no variation of a row that keeps its value, so that
``augment`` returns rows as they are, and what the teacher says of a row differs from its label by the noise alone.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch import nn

from variants.recipe import DataParts, Examples, Plan, Pruning, Quantization, Teaching, Thresholds, Training
from variants.scoring import Values

ROWS = (40_000, 500, 1_000, 20_000)
FEATURES = 10


def _net(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def _adamw(steps: int, learning_rate: float) -> Training:
    return Training(steps, batch_size=256, learning_rate=learning_rate, weight_decay=0.01, optimizer="adamw")


class Regression:
    """The bundled recipe."""

    name = "regression"
    metric = "within 1.5"
    scoring = Values(tolerance=1.5)
    dataset = "Friedman's first function with noise"
    labels: tuple[str, ...] = ()
    input_name = "features"
    input_shape: tuple[int, ...] = (FEATURES,)
    output_name = "value"
    plan = Plan(
        training=_adamw(1200, 0.003),
        teaching=Teaching(copies=1, weight=0.7),
        pruning=Pruning(ratio=0.5, iterations=2, training=_adamw(300, 0.002)),
        distillation=_adamw(3000, 0.01),
        thresholds=Thresholds(min_full=0.8, max_loss=0.05),
        quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.005, max_float_nodes=2),
    )

    def load(self, seed: int) -> DataParts:
        """Generate the table and deal its rows out."""
        inputs, values = make_friedman1(sum(ROWS), FEATURES, noise=1.0, random_state=seed)
        ends = np.cumsum(ROWS)[:-1]
        parts = zip(np.split(inputs.astype(np.float32), ends), np.split(values.astype(np.float32), ends), strict=True)
        return DataParts(*(Examples(*part) for part in parts))

    def make_model(self) -> nn.Module:
        """Return a network of three wide hidden layers."""
        return _net(512, depth=3)

    def make_student(self) -> nn.Module:
        """Return a network some two hundred times smaller."""
        return _net(40, depth=2)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002 - nothing is drawn
        """Return the rows as they are."""
        return inputs


RECIPE = Regression()
