"""What a search may vary of a network: how wide its layers are, how many residual blocks it has, how exact it computes.

Layers of one width share a choice, since they are what a stage is made of and additions join most of them anyway.
Widths to choose from fall by the cube root of a half, so that each step saves the same share of time wherever it is
taken, and are multiples of what the recipe's pruning rounds to. Of the residual blocks that pass on tensors of one
shape the last are left out first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from variants.errors import RecipeError
from variants.plans import Pruning
from variants.pruning import prunable_widths
from variants.residual import find_blocks

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    import torch

    from variants.plans import Training
    from variants.recipe import Recipe

Precision = Literal["float32", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
STEP: Final = 2 ** (-1 / 3)
NARROWEST: Final = 1 / 24
"""Of a layer's width; below it nothing is left to learn with."""
ROUND_TO: Final = 8
SCATTER: Final = 0.35
"""How far a dimension may lie from the others, of its range, in a spread."""

Choice = dict[str, int]
"""A number for each dimension: 0 is what the full model has, more is less of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One network of the space: what each narrowed layer loses of its channels, 0..1, and which blocks are left out."""

    ratios: tuple[tuple[str, float], ...]
    without: tuple[str, ...]

    @property
    def is_full(self) -> bool:
        """Tell whether nothing is missing."""
        return not self.ratios and not self.without


@dataclass(frozen=True, slots=True)
class Space:
    """Layers by their width, the widths that each may be cut to (its own first), and residual blocks in their order."""

    layers: Mapping[int, tuple[str, ...]]
    levels: Mapping[int, tuple[int, ...]]
    blocks: Mapping[str, tuple[str, ...]]
    pruning: Pruning

    @property
    def dimensions(self) -> dict[str, int]:
        """The largest number of each dimension."""
        widths = {f"width {width}": len(levels) - 1 for width, levels in self.levels.items()}
        return widths | {f"blocks {passed}": len(names) for passed, names in self.blocks.items()}

    def shape(self, choice: Choice) -> Shape:
        """Return the network of a choice."""
        cut = {width: levels[choice[f"width {width}"]] for width, levels in self.levels.items()}
        ratios = [
            (name, 1.0 - kept / width) for width, kept in cut.items() if kept < width for name in self.layers[width]
        ]
        kept_blocks = {passed: len(names) - choice[f"blocks {passed}"] for passed, names in self.blocks.items()}
        without = [name for passed, names in self.blocks.items() for name in names[kept_blocks[passed] :]]
        return Shape(tuple(ratios), tuple(without))

    def describe(self, choice: Choice) -> str:
        """Return a choice in a few words: the widths, and how many residual blocks are left out."""
        widths = "/".join(str(levels[choice[f"width {width}"]]) for width, levels in sorted(self.levels.items()))
        left_out = sum(choice[f"blocks {passed}"] for passed in self.blocks)
        return f"widths {widths}" + (f", {left_out} blocks fewer" if left_out else "")

    def spread(self, count: int, chance: random.Random) -> list[Choice]:
        """Return random choices from nearly full to nearly nothing, evenly: each keeps about the same of everything."""
        most, found = self.dimensions, []
        for number in range(count):
            level = (number + 0.5) / count
            parts = {name: level + chance.uniform(-SCATTER, SCATTER) for name in most}
            found.append({name: round(most[name] * min(1.0, max(0.0, part))) for name, part in parts.items()})
        return found

    def plan(self, shape: Shape, training: Training | None) -> Pruning | None:
        """Return how to prune the full model to ``shape``, ``None`` where that is the full model."""
        if shape.is_full:
            return None
        return replace(self.pruning, ratio=0.0, iterations=1, training=training, apart=shape.ratios, blocks=0)


def find_space(recipe: Recipe, model: torch.nn.Module, rows: torch.Tensor) -> Space:
    """Return what can be varied of ``model``, the trained full one; ``rows`` (2 or more, ...) are run.

    Raises:
        RecipeError: Nothing can.
    """
    pruning = recipe.plan.pruning or Pruning(ratio=0.0, iterations=1, training=None)
    layers: dict[int, list[str]] = defaultdict(list)
    for name, width in prunable_widths(model, rows[:1]).items():
        layers[width].append(name)
    levels = {width: _levels(width, pruning.round_to) for width in sorted(layers)}
    levels = {width: choices for width, choices in levels.items() if len(choices) > 1}
    blocks: dict[str, list[str]] = defaultdict(list)
    for name, passed in find_blocks(model, rows).items():
        blocks["x".join(map(str, passed))].append(name)
    if not levels and not blocks:
        raise RecipeError(
            f"recipe '{recipe.name}' cannot be searched: its model has no layer wider than {pruning.round_to} channels "
            "and no residual block, so there is nothing to vary (docs/search.md)"
        )
    return Space(
        {width: tuple(names) for width, names in layers.items()},
        levels,
        {passed: tuple(names) for passed, names in blocks.items()},
        pruning,
    )


def _levels(width: int, round_to: int) -> tuple[int, ...]:
    """Return the widths to choose from, widest first."""
    chosen, exact = [width], float(width)
    while exact * STEP >= max(round_to, NARROWEST * width) * (1 - 1e-9):
        exact *= STEP
        chosen.append(max(round_to, round(exact / round_to) * round_to))
    return tuple(dict.fromkeys(chosen))
