"""Residual blocks: which a network has, and the network without some of them.

A block adds what it computes to what it was given, so that the network still works, if worse, where the block hands on
its input instead (Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"). Whether
a module is such a block is tried, not read from its class: it must return a tensor of the shape that it was given, and
with the weights of its convolutions and linear layers set to zero its output must still follow its input. The innermost
modules that pass are the blocks: a stage of residual blocks passes too, the branch inside a block does not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHTED = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)


class Bypass(torch.nn.Module):
    """Stands where a block was: returns its first argument."""

    def forward(self, inputs: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:  # noqa: ANN401 - a mask, perhaps
        """Return ``inputs`` as they are."""
        return inputs


def leave_out(model: torch.nn.Module, blocks: Iterable[str]) -> torch.nn.Module:
    """Return a copy of ``model`` in which the blocks of these names hand on their input."""
    shorter = copy.deepcopy(model)
    for name in blocks:
        shorter.set_submodule(name, Bypass())
    return shorter


def find_blocks(model: torch.nn.Module, rows: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Return the residual blocks of ``model``, in order, with the shape of one row of what passes through them.

    ``rows`` (2 or more, ...) are run; they must differ.
    """
    seen = _same_shapes(model, rows)
    found = [name for name, calls in seen.items() if _hands_on(model.get_submodule(name), calls)]
    inner = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    return {name: tuple(seen[name][0].shape[1:]) for name in inner}


def _same_shapes(model: torch.nn.Module, rows: torch.Tensor) -> dict[str, tuple[Any, ...]]:
    """Return what modules were called with, where they returned a tensor of their first argument's shape."""
    seen: dict[str, tuple[Any, ...]] = {}

    def watch(name: str) -> Any:  # noqa: ANN401 - torch's own type of hooks
        def hook(_: torch.nn.Module, given: tuple[Any, ...], output: object) -> None:
            tensors = isinstance(output, torch.Tensor) and bool(given) and isinstance(given[0], torch.Tensor)
            if tensors and output.shape == given[0].shape:  # type: ignore[attr-defined]  # a tensor, as asked above
                seen[name] = given

        return hook

    parts = [(name, module) for name, module in model.named_modules() if name and _has_weights(module)]
    hooks = [module.register_forward_hook(watch(name)) for name, module in parts]
    try:
        with torch.no_grad():
            model.eval()(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: seen[name] for name, _ in parts if name in seen}


def _has_weights(module: torch.nn.Module) -> bool:
    """Tell whether the module holds layers with weights and is none itself."""
    return not isinstance(module, WEIGHTED) and any(isinstance(part, WEIGHTED) for part in module.modules())


def _hands_on(module: torch.nn.Module, given: tuple[Any, ...]) -> bool:
    """Tell whether the output follows the input although all weights are zero."""
    silent = copy.deepcopy(module)
    with torch.no_grad():
        for part in silent.modules():
            if isinstance(part, WEIGHTED):
                part.weight.zero_()
        output = silent(*given)
    return bool((output[0] - output[1]).abs().max() > 0)
