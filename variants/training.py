"""The first step: train the full model on the recipe's training rows, varied anew in every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from variants.determinism import deterministic
from variants.fitting import Lesson, fit
from variants.losses import objectives_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.recipe import DataParts, Recipe


def train_full(recipe: Recipe, parts: DataParts, seed: int, advance: Callable[[], None]) -> torch.nn.Module:
    """Return the trained full model in evaluation mode; ``advance`` is called ``plan.training.steps`` times."""
    training = recipe.plan.training
    with deterministic(seed):
        model = recipe.make_model()
    lesson = Lesson(
        inputs=torch.from_numpy(parts.train.inputs),
        labels=torch.from_numpy(parts.train.labels),
        objective=objectives_of(recipe).alone(training),
        augment=recipe.augment if training.augments else None,
    )
    return fit(model, lesson, training, seed, advance)
