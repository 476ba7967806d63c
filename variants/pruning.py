"""Structured pruning: remove whole channels, a little at a time, and let the teacher repair what was lost.

A channel is one row of a convolution's weights. Removing it also removes its batch norm entry and one column of every
layer that reads it, and where a residual addition joins two layers, their channels can only go together: such a set is
a group. torch-pruning finds the groups by tracing the model (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning"). A channel's importance is the L2 norm of all weights of its group, averaged over the group's members::

    I(c) = mean over members m of || W_m[c] ||_2

and in each layer the least important go, rounded to a multiple of ``round_to`` because vector units work in such
widths. Layers are pruned by the same ratio (not by a global ranking, which here starves the narrow early layers).

Iterations matter: after removing a third of the channels the rest is retrained before importance is judged again
(Han et al. 2015); one cut to the final size loses more than several. Between cuts the model is fitted to the
teacher's answers, not to the labels alone.

The result is really smaller: dense layers of fewer channels, no masks, so files, memory, multiply-accumulates and time
all fall. Time falls less than multiply-accumulates do; the profile measures by how much. It is the wrong tool for
models whose widths are already at the vector width.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch_pruning

from variants.determinism import deterministic
from variants.fitting import Lesson, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.recipe import Pruning


def prune(
    model: torch.nn.Module, lesson: Lesson, pruning: Pruning, seed: int, advance: Callable[[], None]
) -> torch.nn.Module:
    """Return a smaller, fine-tuned copy; ``advance`` is called ``iterations * training.steps`` times."""
    pruned = copy.deepcopy(model)
    example = lesson.inputs[:1]  # (1, ...)
    with deterministic(seed):
        outputs = pruned(example).shape[1]
    for done in range(pruning.iterations):
        is_last = done == pruning.iterations - 1
        # Widths on the way are not shipped; rounding them too would add up to more than was asked for.
        round_to = pruning.round_to if is_last else None
        pruned = _cut(pruned, example, outputs, _share(pruning, done), round_to)
        pruned = fit(pruned, lesson, pruning.training, seed + done, advance)
    return pruned


def _share(pruning: Pruning, done: int) -> float:
    """Return what share of the channels still present to remove now, so that all iterations together reach ``ratio``.

    After iteration i the remaining share is ``1 - ratio * i / iterations``.
    """
    before = 1.0 - pruning.ratio * done / pruning.iterations
    after = 1.0 - pruning.ratio * (done + 1) / pruning.iterations
    return 1.0 - after / before


def _cut(
    model: torch.nn.Module, example: torch.Tensor, outputs: int, share: float, round_to: int | None
) -> torch.nn.Module:
    """Return a copy of ``model`` without the least important ``share`` of its channels; outputs stay as they are."""
    smaller = copy.deepcopy(model)
    last = [
        layer for layer in smaller.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == outputs
    ]
    pruner = torch_pruning.pruner.BasePruner(
        smaller,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=last,
        round_to=round_to,
    )
    pruner.step()
    return smaller
