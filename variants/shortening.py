"""Depth pruning: which residual blocks, a transformer's layers among them, a network can best do without.

A block hands on what it was given and adds to it, so that it may be left out whole (``variants.residual``). Unlike a
channel it takes its time with it whatever the widths: nothing gets too narrow for vector units, which is why depth may
pay where widths no longer do. It is the wrong tool for networks of few blocks, each of which does a stage's work.

How much a block matters is what the network loses without it: the loss of its answers on rows of the lesson, against
the teacher and the labels, as training measures it. The block without which that is least goes; then the others are
judged anew in the network that is left, since two blocks may stand in for each other (Song et al. 2024, "SLEB:
Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks"). This asks for one pass over
the rows for each block still there, and for no gradients. What follows is the fit that every pruning gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from variants.determinism import deterministic
from variants.errors import RecipeError
from variants.residual import find_blocks, leave_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.fitting import Lesson

ROWS: Final = 512


def choose_blocks(
    model: torch.nn.Module, lesson: Lesson, count: int, seed: int, advance: Callable[[], None]
) -> tuple[str, ...]:
    """Return the names of ``count`` blocks of ``model`` to leave out; ``advance`` is called after each.

    Raises:
        RecipeError: The model has fewer.
    """
    rows = torch.linspace(0, len(lesson.labels) - 1, min(ROWS, len(lesson.labels))).long()  # all over, classes mixed
    with deterministic(seed):
        left = list(find_blocks(model, lesson.inputs[rows[:2]]))
        if count > len(left):
            raise RecipeError(f"a pruning of {count} blocks; the model has {len(left)}: {', '.join(left) or 'none'}")
        chosen: list[str] = []
        for _ in range(count):
            losses = {name: _loss(leave_out(model, (*chosen, name)), lesson, rows) for name in left}
            least = min(left, key=lambda name: losses[name])
            left.remove(least)
            chosen.append(least)
            advance()
    return tuple(chosen)


def _loss(model: torch.nn.Module, lesson: Lesson, rows: torch.Tensor) -> float:
    teacher = None if lesson.teacher is None else lesson.teacher[rows]
    with torch.inference_mode():
        return float(lesson.objective(model.eval()(lesson.inputs[rows]), lesson.labels[rows], teacher))
