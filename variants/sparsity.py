"""Magnitude pruning: set the smallest weights to zero, ever more of them while the model is fitted.

The share of zeros follows a polynomial (Zhu and Gupta 2017, "To prune, or not to prune")::

    sparsity(t) = s * (1 - (1 - t / T)^3)        t = step, T = two thirds of the steps, s the goal

quick at first, when many weights are worth little, and slow at the end. At each step the smallest weights of every
layer are zeroed before it computes; until T they may come back if the gradient brings them back, and after T the mask
stays and the rest is fitted around it. Layers of few weights are left alone: they save nothing and matter most. The
size of a weight is what counts (Han et al. 2015), layer by layer: a global ranking would empty the wide ones.
Embeddings are layers like others here: of a small model of texts they are most of the file.

With ``pattern`` (n, m) only n of every m neighbouring weights stay, the largest (Mishra et al. 2021: 2 of 4 is what
some accelerators multiply faster; no CPU kernel of ONNX Runtime does).

**Smaller to download, not faster.** Zeros are multiplied like any number. The file gains by ``variants.packed`` alone.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Final

import torch

from variants.fitting import Lesson, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.plans import Download

FEWEST_WEIGHTS: Final = 1024
RAMP_SHARE: Final = 2 / 3
POWER: Final = 3


def sparsify(
    model: torch.nn.Module, lesson: Lesson, plan: Download, seed: int, advance: Callable[[], None]
) -> torch.nn.Module:
    """Return a fine-tuned copy with zeros; ``advance`` is called ``plan.training.steps`` times."""
    assert plan.training is not None, "fitting needs a training"  # noqa: S101 - our own invariant
    started = copy.deepcopy(model)
    for layer in _layers(started):
        layer.register_forward_pre_hook(_Thinning(plan, plan.training.steps))
    fitted = fit(started, lesson, plan.training, seed, advance)
    for layer in _layers(fitted):
        layer._forward_pre_hooks.clear()  # noqa: SLF001 - the handles stayed with the copy's original
        _zero(layer, mask(_weight(layer), plan.sparsity, plan.pattern))
    return fitted


def scheduled_sparsity(step: int, ramp: int, goal: float) -> float:
    """Return the share of zeros at ``step``; 0 at the first, ``goal`` from step ``ramp`` on."""
    done = min(1.0, step / ramp)
    return goal * (1.0 - (1.0 - done) ** POWER)


def mask(weight: torch.Tensor, sparsity: float, pattern: tuple[int, int] | None = None) -> torch.Tensor:
    """Return which weights stay: the largest ``1 - sparsity`` of them, or n of every m along the input dimension."""
    size = weight.abs()
    if pattern is not None:
        kept, block = pattern
        rows = size.flatten(1)  # (outputs, inputs)
        whole = rows[:, : rows.shape[1] // block * block].reshape(len(rows), -1, block)
        best = torch.zeros_like(whole, dtype=torch.bool).scatter(2, whole.topk(kept, dim=2).indices, value=True)
        result = torch.ones_like(rows, dtype=torch.bool)  # a rest of fewer than m stays
        result[:, : best.shape[1] * block] = best.flatten(1)
        return result.reshape(weight.shape)
    zeros = int(sparsity * weight.numel())
    if zeros == 0:
        return torch.ones_like(weight, dtype=torch.bool)
    return size > size.flatten().kthvalue(zeros).values


class _Thinning:
    """Zeroes a layer's smallest weights before each computation of its training; a copy goes on from where it is."""

    def __init__(self, plan: Download, steps: int) -> None:
        self._plan, self._ramp, self._step = plan, math.ceil(RAMP_SHARE * steps), 0
        self._mask = torch.ones(())

    def __call__(self, layer: torch.nn.Module, _: object) -> None:
        if not layer.training:
            return
        weight, plan = _weight(layer), self._plan
        if self._step < self._ramp:
            self._mask = mask(weight, scheduled_sparsity(self._step, self._ramp, plan.sparsity))
        elif self._step == self._ramp:
            self._mask = mask(weight, plan.sparsity, plan.pattern)
        _zero(layer, self._mask)
        self._step += 1


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)
    return [item for item in model.modules() if isinstance(item, kinds) and item.weight.numel() >= FEWEST_WEIGHTS]


def _weight(layer: torch.nn.Module) -> torch.Tensor:
    weight: torch.Tensor = layer.weight.data  # type: ignore[assignment]  # torch types attributes loosely
    return weight


def _zero(layer: torch.nn.Module, kept: torch.Tensor) -> None:
    _weight(layer).mul_(kept)
