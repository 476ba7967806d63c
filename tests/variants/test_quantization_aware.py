"""Networks that are fitted while they round: what rounds, that it helps, and that it comes off again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from tests.variants.tiny_recipe import Tiny
from variants.cache import StepCache
from variants.data import load_parts
from variants.errors import RecipeError
from variants.fitting import Lesson, fit
from variants.making import make_variants
from variants.plans import Quantization, Training
from variants.progress import SilentProgress
from variants.quantization import fits_int16_pairs
from variants.quantization_aware import Rounded, tune
from variants.runtime import run_logits
from variants.scoring import CLASSES
from variants.workshop import Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from variants.presets import Preset

WANTED = torch.tensor([[0.0, 0.3, 0.4, -0.2]])


def squared(answers: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return (answers[:, 0] - labels).square().mean()


def test_weights_and_inputs_are_rounded_as_by_hand() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[64.0, 1.4], [0.5, -1.0]])
    rounded = Rounded(layer, 64).train()
    inputs = torch.tensor([[0.0, 1.0], [-1.0, 1.54]])
    step = 2.54 / 255  # 100 of them lie below 0
    expected_inputs = torch.tensor([[0.0, 100 * step], [-100 * step, 155 * step]])
    expected_weights = torch.tensor([[64.0, 1.0], [0.5, -1.0]])  # steps of 1, and of 1 / 64
    assert torch.allclose(rounded(inputs), expected_inputs @ expected_weights.T, atol=1e-5)


def test_tuning_makes_up_for_what_rounding_costs() -> None:
    """A weight that no row uses sets a step of 1.6: the others round to 0, and the bias can make up for their mean."""
    model = nn.Sequential(nn.Linear(4, 1))
    model[0].bias.data = torch.zeros(1)
    model[0].weight.data = WANTED + torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    inputs = torch.rand(256, 4, generator=torch.Generator().manual_seed(0))
    inputs[:, 0] = 0.0
    labels = (inputs @ WANTED.T)[:, 0]
    lesson = Lesson(inputs, labels, squared)
    training = Training(steps=200, batch_size=64, learning_rate=0.005, weight_decay=0.0)
    done: list[int] = []

    def learn(rounding: nn.Module) -> nn.Module:
        return fit(rounding, lesson, training, 0, lambda: done.append(1))

    tuned = tune(model, "portable", learn)
    before, after = (_error_when_rounded(network, inputs, labels) for network in (model, tuned))
    assert after < 0.6 * before
    assert len(done) == 200
    again = tune(model, "portable", learn)
    assert all(torch.equal(one, other) for one, other in zip(tuned.parameters(), again.parameters(), strict=True))
    assert [type(layer) for layer in tuned.children()] == [nn.Linear]
    assert torch.equal(model[0].weight.data[:, 0], torch.tensor([100.0]))  # the one given stays as it was


def _error_when_rounded(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    rounded = nn.Sequential(Rounded(network.get_submodule("0"), 64)).train()
    with torch.no_grad():
        return float(squared(rounded(inputs), labels, None))


@pytest.mark.parametrize(("preset", "most"), [("portable", 64), ("vnni", 127), ("arm64", 127)])
def test_the_bits_are_those_of_the_preset(preset: Preset, most: int) -> None:
    found: list[int] = []

    def look(rounding: nn.Module) -> nn.Module:
        found.extend(layer.most for layer in rounding.modules() if isinstance(layer, Rounded))
        return rounding

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Flatten(), nn.Linear(2, 3)))
    tuned = tune(model, preset, look)
    assert found == [most, most]
    assert [(name, type(layer)) for name, layer in tuned.named_modules()] == [
        (name, type(layer)) for name, layer in model.named_modules()
    ]


def test_a_network_that_could_not_round_is_refused() -> None:
    with pytest.raises(RecipeError, match="nothing to round: the network has no Conv1d, Conv2d, Linear inside it"):
        tune(nn.Sequential(nn.ReLU()), "portable", lambda rounding: rounding)


class Tuned(Tiny):
    """The tests' recipe with tuned int8 forms."""

    plan = replace(
        Tiny.plan, quantization=Quantization(methods=("minmax",), tuning=Training(steps=10, learning_rate=0.01))
    )


def test_a_plan_with_a_tuning_makes_another_int8_form_of_every_network(tmp_path: Path) -> None:
    recipe = Tuned()
    parts = load_parts(recipe, 0)
    made = make_variants(Workshop(recipe, parts, 0, StepCache(tmp_path), SilentProgress()))
    by_name = {one.name: one for one in made}
    tuned = [one for one in made if one.name.endswith("-tuned")]
    assert [(one.name, one.tier, one.parent and one.parent.name) for one in tuned] == [
        ("quantized-tuned", "quantized", "full"),
        ("pruned-quantized-tuned", "pruned-quantized", "pruned"),
        ("distilled-quantized-tuned", "distilled-quantized", "distilled"),
    ]
    for one in tuned:
        plain = by_name[one.name.removesuffix("-tuned")]
        assert [step.name for step in one.steps] == ["tune", "quantize"]
        assert fits_int16_pairs(one.file)
        assert abs(len(one.file) - len(plain.file)) < 0.05 * len(plain.file)
        answers, others = (run_logits(item.file, parts.test.inputs) for item in (one, plain))
        assert not np.array_equal(answers, others)
        assert CLASSES.same(answers, others).mean() > 0.5  # tuned on the same network, for ten steps
