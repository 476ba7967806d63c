"""Structured pruning: remove whole channels, a little at a time, and let the teacher repair what was lost.

A channel is one row of a convolution's weights. Removing it also removes its batch norm entry and one column of every
layer that reads it, and where a residual addition joins two layers, their channels can only go together: such a set is
a group. torch-pruning finds the groups by tracing the model (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning"). A channel's importance is the L2 norm of all weights of its group, averaged over the group's members::

    I(c) = mean over members m of || W_m[c] ||_2

and in each layer the least important go, rounded to a multiple of ``round_to`` because vector units work in such widths
(odd ones trained four times slower here). Layers are pruned by the same ratio, not by a global ranking, which here
starves the narrow early layers.

Iterations matter where training is short: after removing a third of the channels the rest is retrained before
importance is judged again (Han et al. 2015), and one cut to the final size loses more than several. Where training is
long one cut does as well, and what counts is the last fit, ``settle``: on pictures that were learnt at half the side,
steps at the full one. Models are fitted to the teacher's answers, not to the labels alone.

Two other measures of importance can be asked for: ``bn-scale``, the size of the batch norm's factor (Liu et al. 2017,
"Network Slimming"), which says most where that factor was trained towards zero; and ``group-taylor``, the size of
weight times gradient of the loss on some rows (Molchanov et al. 2019), which suits transformers, whose large weights
need not matter. An attention block with a number of ``heads`` and one ``qkv`` layer, or ``query``, ``key`` and
``value``, loses whole heads, and says so in ``heads``. Without a training (for those who have no data to fit with) all
is cut at once and batch norms alone are set anew from the rows there are.

The result is really smaller: dense layers of fewer channels, no masks, so files, memory, multiply-accumulates and time
all fall. Time falls less than multiply-accumulates do; the profile measures by how much. It is the wrong tool for
models whose widths are already at the vector width.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
import torch_pruning

from variants.determinism import deterministic
from variants.fitting import Lesson, fit
from variants.sampling import sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from variants.plans import Importance, Pruning

IMPORTANCES: Final[dict[Importance, Callable[[], Any]]] = {
    "group-l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "bn-scale": torch_pruning.importance.BNScaleImportance,
    "group-taylor": torch_pruning.importance.GroupTaylorImportance,
}
PROJECTIONS: Final = ("qkv", "query", "key", "value")
MOST_FELT: Final = 256
MOST_SEEN: Final = 1024
ROWS_AT_ONCE: Final = 128
ROUNDING: Final = 1e-9  # a goal of 40 of 48 must not come out as 39.99 and be cut to 39


def prune(
    model: torch.nn.Module, lesson: Lesson, pruning: Pruning, seed: int, advance: Callable[[], None]
) -> torch.nn.Module:
    """Return a smaller, fine-tuned copy; ``advance`` is called ``fitting_steps`` times."""
    pruned = copy.deepcopy(model)
    with deterministic(seed):
        widths = prunable_widths(pruned, lesson.inputs[:1])
    for done in range(pruning.iterations if pruning.training else 1):
        share = (done + 1) / pruning.iterations if pruning.training else 1.0
        goals = {name: (1.0 - share * _ratio_of(name, pruning)) * width for name, width in widths.items()}
        pruned = _cut(pruned, lesson, goals, pruning, seed)
        if pruning.training:
            pruned = fit(pruned, lesson, pruning.training, seed + done, advance)
        else:
            advance()
    if not pruning.training:
        return _recalibrate(pruned, lesson.inputs, seed)
    return fit(pruned, lesson, pruning.settle, seed + pruning.iterations, advance) if pruning.settle else pruned


def fitting_steps(pruning: Pruning) -> int:
    """Return how many steps of work pruning takes, at least one."""
    if not pruning.training:
        return 1
    return pruning.iterations * pruning.training.steps + (pruning.settle.steps if pruning.settle else 0)


def prunable_widths(model: torch.nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Return the output channels of every layer but the one that gives the answer; ``example`` is (1, ...)."""
    with torch.no_grad():
        outputs = model(example).shape[1]
    return {name: width for name, width in _widths(model).items() if not _is_output(model, name, outputs)}


def _widths(model: torch.nn.Module) -> dict[str, int]:
    """Return the output channels of every layer whose channels can be removed."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return {name: len(layer.weight) for name, layer in model.named_modules() if isinstance(layer, kinds)}


def _ratio_of(name: str, pruning: Pruning) -> float:
    """Return what to remove of a layer: its own ratio where the plan sets it apart, by the longest name that fits.

    A name is a layer's or that of a module around it, so that ``net.1`` says nothing of ``net.10``; '' is the model's.
    """
    fitting = [(len(part), ratio) for part, ratio in pruning.apart if f"{name}.".startswith(f"{part}." if part else "")]
    return max(fitting)[1] if fitting else pruning.ratio


def _attentions(model: torch.nn.Module) -> list[tuple[Any, list[torch.nn.Linear]]]:
    """Return the attention blocks, which have ``heads``, each with the layers of its queries, keys and values."""
    blocks = [item for item in model.modules() if isinstance(getattr(item, "heads", None), int)]
    found = [(item, [part for name in PROJECTIONS if (part := getattr(item, name, None))]) for item in blocks]
    return [(item, parts) for item, parts in found if parts]


def _is_output(model: torch.nn.Module, name: str, outputs: int) -> bool:
    """Tell whether a layer gives the model's answer, whose width is not ours to change.

    A model whose answer is put together from several layers names them in ``answering``.
    """
    layer = model.get_submodule(name)
    is_last = isinstance(layer, torch.nn.Linear) and layer.out_features == outputs
    return is_last or name in getattr(model, "answering", ())


def _cut(
    model: torch.nn.Module, lesson: Lesson, goals: Mapping[str, float], pruning: Pruning, seed: int
) -> torch.nn.Module:
    """Return a copy of ``model`` with its layers cut to ``goals`` channels; layers without a goal keep their outputs.

    Goals are of the original widths, so that rounding in one iteration does not add to that of the next. Every cut of
    a pruning feels the same rows.
    """
    smaller = copy.deepcopy(model)
    widths = _widths(smaller)
    ratios = {
        smaller.get_submodule(name): max(0.0, 1.0 - goal / widths[name] - ROUNDING) for name, goal in goals.items()
    }
    attentions = _attentions(smaller)
    projections = {part: item.heads for item, parts in attentions for part in parts}
    pruner = torch_pruning.pruner.BasePruner(
        smaller,
        lesson.inputs[:1],
        importance=IMPORTANCES[pruning.importance](),
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        ignored_layers=[smaller.get_submodule(name) for name in widths if name not in goals],
        round_to=pruning.round_to,
        num_heads=dict(projections),
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio_dict={part: ratios.get(part, 0.0) for part in projections},
    )
    if pruning.importance == "group-taylor":
        _feel(smaller, lesson, seed)
    pruner.step()
    smaller.zero_grad()
    for item, parts in attentions:
        item.heads = pruner.num_heads[parts[0]]
    return smaller


def _feel(model: torch.nn.Module, lesson: Lesson, seed: int) -> None:
    """Leave the gradient of the loss on a sample of rows in every weight, as the Taylor criterion wants it."""
    rows = torch.from_numpy(sample_rows(len(lesson.labels), MOST_FELT, seed))
    teacher = None if lesson.teacher is None else lesson.teacher[rows]
    torch.autograd.backward(lesson.objective(model(lesson.inputs[rows]), lesson.labels[rows], teacher))


def _recalibrate(model: torch.nn.Module, inputs: torch.Tensor, seed: int) -> torch.nn.Module:
    """Set the means and variances of batch norms anew from a sample of ``inputs`` (N, ...); weights stay."""
    norms = [item for item in model.modules() if isinstance(item, torch.nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - the only class all batch norms share
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # a plain mean over batches
    with torch.no_grad():
        for rows in torch.split(torch.from_numpy(sample_rows(len(inputs), MOST_SEEN, seed)), ROWS_AT_ONCE):
            model(inputs[rows])
    return model.eval()
