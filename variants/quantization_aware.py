"""Quantization-aware tuning: fit a network on while its products compute as they will in int8.

Static int8 rounds weights and activations after training; what that costs, the network never learnt to make up for.
Here every convolution and linear layer rounds while it is fitted (Jacob et al. 2018, "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference"; Nagel et al. 2021, "A White Paper on Neural Network
Quantization", section 4)::

    q(v) = scale * (clamp(round(v / scale) + zero) - zero)        dq/dv = 1 inside the range, 0 outside

The gradient is taken as if rounding were not there (Bengio et al. 2013, "straight-through"). Weights have one scale for
each output channel, symmetric, in the bits that the preset keeps; inputs of layers one for each tensor, whose range is
a running mean of the extremes of batches. A batch norm behind a convolution scales whole output channels, so rounding
weights by channel before it is folded in is the same as after; it goes on learning from batches, as in any fitting.

What comes out is a float network again, with its rounding taken off: it is exported and quantized as any other, with
ranges from calibration rows. Its float answers are not used.

It is worth its training where int8 costs accuracy, and only there: where int8 loses nothing, as on digits,
it moves answers about by chance, and what it gains the same steps without rounding may gain as well
(``docs/compression.md`` has the measurement). It is the wrong tool for dynamic int8, whose ranges are taken while
running. A module that is used under two names is rounded under its first alone; transposed convolutions, and classes
derived from the three kinds, whose owner may read their weights itself (``MultiheadAttention``), are not rounded.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from variants.errors import RecipeError
from variants.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.presets import Preset

PRODUCTS: Final = (nn.Conv1d, nn.Conv2d, nn.Linear)
MOST, REDUCED_MOST = 127, 64
"""The largest integer that a weight may be, in 8 bits and in the 7 that cannot saturate."""
LEVELS: Final = 255
FORGETS: Final = 0.05
"""Share of a running extreme that each batch replaces."""
LEAST_SCALE: Final = 1e-8


class Rounded(nn.Module):
    """A layer that computes with rounded weights and inputs; ``most`` is the largest integer that a weight may be."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, layer: nn.Module, most: int) -> None:
        """Round no inputs until a batch has shown their range."""
        super().__init__()
        self.layer, self.most = layer, most
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the layer on ``inputs``, of whatever shape it takes."""
        weight: torch.Tensor = self.layer.weight  # type: ignore[assignment] # PRODUCTS have one
        widest = weight.detach().abs().flatten(1).amax(1)  # (outputs,)
        scales = (widest / self.most).clamp(min=LEAST_SCALE)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -self.most, self.most)
        result: torch.Tensor = torch.func.functional_call(self.layer, {"weight": rounded}, self._round(inputs))
        return result

    def _round(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        if self.training:
            self._see(values.detach())
        if bool(self.low == self.high):  # a frozen layer, which sees nothing, or inputs that are all 0
            return values
        scale = ((self.high - self.low) / LEVELS).clamp(min=LEAST_SCALE)
        zero = (-self.low / scale).round().clamp(0, LEVELS).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LEVELS)

    def _see(self, values: torch.Tensor) -> None:
        """Move the range towards a batch's extremes; 0 is always in it, as padding is 0."""
        low, high = values.amin().clamp(max=0.0), values.amax().clamp(min=0.0)
        is_first = bool(self.low == self.high)
        self.low.lerp_(low, 1.0 if is_first else FORGETS)
        self.high.lerp_(high, 1.0 if is_first else FORGETS)


def tune(model: nn.Module, preset: Preset, fit: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return what ``fit`` makes of a copy of ``model`` that rounds as ``preset`` does; it rounds no more.

    ``fit`` returns a fitted network of the modules that it is given, or of copies of them.

    Raises:
        RecipeError: The network has no layer that could round.
    """
    rounding = copy.deepcopy(model)
    most = REDUCED_MOST if PRESETS[preset].is_reduced else MOST
    layers = _products(rounding)
    if not layers:
        kinds = ", ".join(kind.__name__ for kind in PRODUCTS)
        raise RecipeError(f"a tuning finds nothing to round: the network has no {kinds} inside it")
    for name, layer in layers:
        _put(rounding, name, Rounded(layer, most))
    tuned = fit(rounding)
    for name, layer in list(tuned.named_modules()):
        if isinstance(layer, Rounded):
            _put(tuned, name, layer.layer)
    return tuned


def _products(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in model.named_modules() if name and type(layer) in PRODUCTS]


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
