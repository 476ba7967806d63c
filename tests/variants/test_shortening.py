"""Whole blocks are left out: those that matter least go first, and a build fits, exports and restores what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from tests.variants.conftest import Listener
from variants.cache import StepCache
from variants.determinism import deterministic
from variants.errors import RecipeError
from variants.fitting import Lesson
from variants.losses import ClassObjectives
from variants.making import make_variants
from variants.recipe import Pruning, Teaching, Training
from variants.recipes.digits import ResidualNet
from variants.recipes.text import Reader, Size
from variants.shortening import choose_blocks
from variants.sources.tokens import Trigrams
from variants.workshop import Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Recipe
    from variants.workshop import Made

NET_BLOCKS = ["features.3", "features.4", "features.5"]


def net() -> ResidualNet:
    return ResidualNet((8,), blocks=len(NET_BLOCKS))


def taught_by(model: torch.nn.Module, inputs: torch.Tensor) -> Lesson:
    with torch.no_grad():
        answers = model.eval()(inputs)
    return Lesson(inputs, answers.argmax(1), ClassObjectives().taught(Teaching(weight=1.0)), teacher=answers)


def choose(model: torch.nn.Module, lesson: Lesson, count: int) -> tuple[str, ...]:
    return choose_blocks(model, lesson, count, 0, lambda: None)


@pytest.mark.parametrize("least", NET_BLOCKS)
def test_the_residual_block_that_adds_least_goes_first(least: str) -> None:
    with deterministic(0):
        model, pictures = net(), 16.0 * torch.rand((64, 1, 8, 8))
    norm = model.get_submodule(f"{least}.body.4")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.mul_(1e-3)  # so that the block adds next to nothing
    assert choose(model, taught_by(model, pictures), 1) == (least,)


@pytest.mark.parametrize("least", ["net.layers.0", "net.layers.2", "net.layers.3"])
def test_the_transformer_layer_that_adds_least_goes_first(least: str) -> None:
    tokens = Trigrams(length=8, buckets=64)
    with deterministic(0):
        model = Reader(Size(width=16, hidden=32, layers=4, heads=2), tokens, ("a", "b", "c"))
        torch.nn.init.normal_(model.net.word.weight)
        for number in range(4):  # layers that do something
            torch.nn.init.normal_(model.get_submodule(f"net.layers.{number}.narrow").get_parameter("weight"))
        rows = torch.randint(2, 64, (64, 8))
    layer: Any = model.get_submodule(least)
    with torch.no_grad():
        for part in (layer.mix, layer.narrow):
            part.weight.zero_()
            part.bias.zero_()
    assert choose(model, taught_by(model, rows), 2)[0] == least


def test_more_blocks_than_there_are_is_refused() -> None:
    with deterministic(0):
        model, pictures = net(), torch.rand((8, 1, 8, 8))
    with pytest.raises(RecipeError, match=r"a pruning of 4 blocks; the model has 3: features\.3, features\.4"):
        choose(model, taught_by(model, pictures), 4)


class Deep:
    """The tiny recipe with a network of three blocks, of which pruning leaves out two."""

    def __init__(self, tiny: Recipe) -> None:
        self._tiny, short = tiny, Training(steps=8, batch_size=16)
        pruning = Pruning(ratio=0.0, iterations=1, training=short, round_to=4, blocks=2)
        self.plan = replace(tiny.plan, training=short, distillation=short, pruning=pruning, quantization=None)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the tiny recipe has
        return getattr(self._tiny, name)

    def make_model(self) -> torch.nn.Module:
        return net()


def test_a_plan_that_leaves_out_blocks_makes_a_shallower_variant(tiny: Recipe, tmp_path: Path) -> None:
    recipe: Any = Deep(tiny)

    def make(listener: Listener) -> dict[str, Made]:
        made = make_variants(Workshop(recipe, recipe.load(0), 0, StepCache(tmp_path), listener))
        return {one.name: one for one in made}

    first = make(Listener())
    without = first["pruned"].steps[0].parameters["without"]
    assert len(without) == 2
    assert set(without) < set(NET_BLOCKS)
    kinds = {name: [node.op_type for node in onnx.load_from_string(one.file).graph.node] for name, one in first.items()}
    assert kinds["full"].count("Conv") == 1 + 2 * 3
    assert kinds["pruned"].count("Conv") == 1 + 2 * 1
    parity = first["pruned"].parity
    assert parity is not None
    assert parity.max_error < 1e-3

    again = Listener()
    assert make(again)["pruned"].file == first["pruned"].file
    assert again.tasks == []
