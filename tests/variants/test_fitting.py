"""What a training may ask of the loop: dropout, small weights, and layers that stay as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from variants.determinism import deterministic
from variants.errors import RecipeError
from variants.fitting import Lesson, fit
from variants.losses import LabelLoss
from variants.recipe import Training


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.0))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x))
        return logits


def fitted(training: Training) -> tuple[Net, Net]:
    """Return a network before and after a training on noise."""
    with deterministic(0) as generator:
        model, inputs = Net(), torch.rand((64, 6), generator=generator)
    lesson = Lesson(inputs, torch.arange(64) % 2, LabelLoss(0.0))
    after = fit(model, lesson, training, 0, lambda: None)
    assert isinstance(after, Net)
    return model, after


def short(**settings: object) -> Training:
    return Training(20, batch_size=16, learning_rate=0.05, weight_decay=0.0, **settings)  # type: ignore[arg-type]


def test_frozen_modules_keep_weights_and_statistics_and_others_learn() -> None:
    before, after = fitted(short(frozen=("body",)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.body.state_dict().values(), after.body.state_dict().values(), strict=True)
    )
    assert not torch.equal(before.head.weight, after.head.weight)
    assert all(weight.requires_grad for weight in after.parameters())


def test_a_name_that_no_module_has_cannot_be_frozen() -> None:
    with pytest.raises(RecipeError, match=r"freezes 'backbone'; modules are body, body\.0"):
        fitted(short(frozen=("backbone",)))


def test_l1_makes_weights_small() -> None:
    sizes = [sum(w.abs().sum().item() for w in fitted(short(l1=l1))[1].parameters()) for l1 in (0.0, 0.05)]
    assert sizes[1] < 0.7 * sizes[0]


def test_dropout_is_that_of_the_training_while_it_lasts() -> None:
    _, after = fitted(short(dropout=0.5))
    _, other = fitted(short())
    assert not torch.equal(after.head.weight, other.head.weight)
    rows = torch.ones((3, 6))
    assert torch.equal(after(rows), after(rows))  # evaluation drops nothing


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"dropout 1\.0 and l1 0\.0; allowed are 0 to below 1"):
        short(dropout=1.0)
    with pytest.raises(RecipeError, match=r"l1 -0\.1"):
        short(l1=-0.1)


def test_a_training_that_diverges_stops_and_says_where() -> None:
    with pytest.raises(RecipeError, match=r"step \d+ of 20 gives no finite numbers; lower its learning_rate of 1e\+30"):
        fitted(replace(short(), learning_rate=1e30))
