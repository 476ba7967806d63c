"""One-shot structured pruning of an ONNX file that was trained elsewhere: no training data, no labels, no network code.

``onnx_channels`` finds which channels can only go together, here called a group of units; ``onnx_repair`` fits the
layers that read fewer of them. Between the two stands which units go. What unit ``u`` gives to a layer ``l`` that reads
it is measured on calibration rows, as the share of the variance of all its inputs, weighted by the layer's weights::

    share(u, l) = Var[x_u] * ||W_l[u]||^2 / sum over v of Var[x_v] * ||W_l[v]||^2

(the variance, for what is constant moves into the bias), and a unit's importance is the sum over the layers that read
it: a channel of a residual stream, which many layers read, must be small in all of them. Units go in blocks of
``round_to``, which vector units work in, the block first that costs least importance for the multiply-accumulates that
it saves, until the wanted share of them is left; no group loses more than ``most_removed``.

How much can go is not known beforehand, so ``macs_ratios`` are tried, the smallest first, and the first whose answers
agree with the full file's on ``agreement`` of the validation rows is kept; if none does, the last, for the gates to
judge.

This is no match for pruning with a fit in between (``variants.pruning``), and small or well-fed networks have little to
give. It is for those who have a file and nothing else. Sources: He, Zhang and Sun 2017 ("Channel Pruning for
Accelerating Very Deep Neural Networks") for one-shot pruning with least squares; Fang et al. 2023 for the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from variants.errors import LeftOut
from variants.onnx_channels import cut, find_channels
from variants.onnx_repair import Layer, repair, run_named
from variants.onnx_rules import attributes
from variants.runtime import run_logits
from variants.sizing import count_macs, node_macs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from variants.onnx_channels import Channels, Place
    from variants.onnx_rules import Units
    from variants.recipe import Inputs
    from variants.scoring import Scoring

    Importance = Mapping[int, NDArray[np.float64]]

MOST_ROWS: Final = 256
FEWEST_ROWS: Final = 64
MOST_MACS: Final = 2 * 10**13
"""Each layer that is repaired runs the calibration rows again, so that large models are run on fewer."""
FEWEST_UNITS: Final = 32
"""Layers of fewer channels take no time to speak of."""
WORTH: Final = 0.95
"""A file with more than this share of its multiply-accumulates left is not worth having."""
MOST_REASONS: Final = 4


@dataclass(frozen=True, slots=True)
class OneShot:
    """Shares of the multiply-accumulates to try for, the smallest first, until the answers agree well enough."""

    macs_ratios: tuple[float, ...] = (0.5, 0.65, 0.8)
    agreement: float = 0.97
    round_to: int = 8
    most_removed: float = 0.75


def prune_file(
    file: bytes, rows: tuple[Inputs, Inputs], plan: OneShot, scoring: Scoring
) -> tuple[bytes, dict[str, Any]]:
    """Return the smaller file and what was found: widths, the share of multiply-accumulates left, the agreement.

    ``rows`` are calibration and validation inputs (rows, ...).

    Raises:
        LeftOut: Nothing worth removing is understood; names the layers and the nodes that hold them.
    """
    channels = find_channels(file)
    layers = _find_layers(channels)
    validation, expected, full_macs = rows[1], run_logits(file, rows[1]), count_macs(channels.model)
    affordable = MOST_MACS // max(1, full_macs * len(layers))
    calibration = rows[0][: min(MOST_ROWS, max(FEWEST_ROWS, affordable))]
    units = _weigh(channels, layers, calibration)
    if not units:
        raise LeftOut(f"nothing of it can be pruned: {_explain(channels, layers)}")
    chosen: dict[str, Any] = {}
    smaller = b""
    widths: dict[str, str] | None = None
    for ratio in plan.macs_ratios:
        kept = _choose(channels, layers, units, ratio, plan)
        if widths == (widths := _widths(channels, layers, kept)):
            continue  # as far as it goes, which a milder goal does not change
        model = _make(channels, layers, kept, calibration)
        left = count_macs(model) / full_macs
        if left > WORTH:
            raise LeftOut(
                f"at most {1 - left:.1%} of its multiply-accumulates can be pruned: {_explain(channels, layers)}"
            )
        smaller = model.SerializeToString(deterministic=True)
        same = float(scoring.same(run_logits(smaller, validation), expected).mean())
        chosen = {"macs_ratio": round(left, 4), "agreement_found": round(same, 4), "widths": widths}
        if same >= plan.agreement:
            break
    return smaller, chosen


@dataclass(frozen=True, slots=True)
class _Product:
    """A node that multiplies with weights, how many multiply-accumulates it takes, and its channels' places."""

    node: onnx.NodeProto
    macs: int
    inputs: Place
    outputs: Place
    input_axis: int

    @property
    def axis(self) -> int:
        """Where channels stand in what the node reads."""
        return 1 if self.node.op_type == "Conv" else -1


def _find_layers(channels: Channels) -> list[_Product]:
    weights = {tensor.name: len(tensor.dims) for tensor in channels.model.graph.initializer}
    found = []
    for node in channels.model.graph.node:
        settings, rank = attributes(node), weights.get(node.input[1], 0) if len(node.input) > 1 else 0
        is_layer = node.op_type == "Conv" or (node.op_type in {"Gemm", "MatMul"} and rank == 2)  # noqa: PLR2004 - a matrix
        if rank and is_layer and settings.get("group", 1) == 1:
            outputs = 0 if node.op_type == "Conv" or settings.get("transB") else 1
            places = [channels.place((node.input[1], axis)) for axis in (1 - outputs, outputs)]
            found.append(_Product(node, node_macs(node, channels.shapes), places[0], places[1], 1 - outputs))
    return found


def _weigh(channels: Channels, layers: Sequence[_Product], rows: Inputs) -> Importance:
    """Return the importance of every unit of each group that can be cut."""
    made = {layer.outputs.group for layer in layers}
    readers = [layer for layer in layers if layer.inputs.group in made and _can_go(channels, layer.inputs)]
    if not readers:
        return {}
    names = sorted({layer.node.input[0] for layer in readers})
    axes = {layer.node.input[0]: layer.axis for layer in readers}
    sums: dict[str, Any] = {name: [0, 0.0, 0.0] for name in names}
    for batch in run_named(channels.model, names, rows):
        for name, values in zip(names, batch, strict=True):
            flat = np.moveaxis(values, axes[name], -1).reshape(-1, values.shape[axes[name]]).astype(np.float64)
            seen = sums[name]
            sums[name] = [seen[0] + len(flat), seen[1] + flat.sum(axis=0), seen[2] + np.square(flat).sum(axis=0)]
    weights = {tensor.name: tensor for tensor in channels.model.graph.initializer}
    units: dict[int, Any] = {}
    for layer in readers:
        count, total, squares = sums[layer.node.input[0]]
        variance = np.maximum(squares / count - np.square(total / count), 0.0)
        array = numpy_helper.to_array(weights[layer.node.input[1]]).astype(np.float64)
        norms = np.square(np.moveaxis(array, layer.input_axis, 0)).reshape(len(variance), -1).sum(axis=1)
        shares = (variance * norms).reshape(-1, layer.inputs.inner).sum(axis=1)
        units[layer.inputs.group] = units.get(layer.inputs.group, 0.0) + shares / max(shares.sum(), 1e-30)
    return units


def _can_go(channels: Channels, place: Place) -> bool:
    return place.group not in channels.reasons and channels.sizes[place.group] * place.inner >= FEWEST_UNITS


def _choose(
    channels: Channels,
    layers: Sequence[_Product],
    units: Importance,
    ratio: float,
    plan: OneShot,
) -> dict[int, Units]:
    """Return the units of each group to keep, in order, so that ``ratio`` of the multiply-accumulates is left."""
    order = {group: np.argsort(shares, kind="stable") for group, shares in units.items()}
    gone = dict.fromkeys(units, 0)
    sizes = channels.sizes
    steps = {group: 1 if _width(layers, group) > 1 else plan.round_to for group in units}

    def macs() -> float:
        left = {group: 1.0 - gone[group] / sizes[group] for group in units}
        return sum(
            layer.macs * left.get(layer.inputs.group, 1.0) * left.get(layer.outputs.group, 1.0) for layer in layers
        )

    goal = ratio * sum(layer.macs for layer in layers)
    while (now := macs()) > goal:
        prices = []
        for group, shares in units.items():
            step = sizes[group] % steps[group] or steps[group] if gone[group] == 0 else steps[group]
            if gone[group] + step > plan.most_removed * sizes[group]:
                continue
            lost = float(shares[order[group][gone[group] : gone[group] + step]].sum())
            gone[group] += step
            prices.append((lost / max(now - macs(), 1e-9), group, step))
            gone[group] -= step
        if not prices:
            break
        _, group, step = min(prices)
        gone[group] += step
    return {group: np.sort(order[group][count:]) for group, count in gone.items() if count}


def _width(layers: Sequence[_Product], group: int) -> int:
    """Return how many features the units of a group have at least: more than one in the heads of attention."""
    return min(place.inner for layer in layers for place in (layer.inputs, layer.outputs) if place.group == group)


def _make(channels: Channels, layers: Sequence[_Product], kept: Mapping[int, Units], rows: Inputs) -> onnx.ModelProto:
    """Cut, and repair the layers that read less."""
    model = cut(channels, kept)
    nodes = {node.name: node for node in model.graph.node}
    reading = [
        Layer(
            nodes[layer.node.name],
            layer.outputs.positions(kept[layer.outputs.group]) if layer.outputs.group in kept else None,
        )
        for layer in layers
        if layer.inputs.group in kept
    ]
    repair(channels.model, model, reading, rows)
    onnx.checker.check_model(model)
    return model


def _widths(channels: Channels, layers: Sequence[_Product], kept: Mapping[int, Units]) -> dict[str, str]:
    """Return how many channels of each layer that is narrower now were kept."""
    return {
        layer.node.name: f"{len(kept[group]) * layer.outputs.inner} of {channels.sizes[group] * layer.outputs.inner}"
        for layer in layers
        if (group := layer.outputs.group) in kept
    }


def _explain(channels: Channels, layers: Sequence[_Product]) -> str:
    """Return what holds the channels of the first layers, in words."""
    reasons = []
    for layer in layers:
        place = layer.outputs
        width = channels.sizes[place.group] * place.inner
        held = channels.reasons.get(place.group, f"are fewer than {FEWEST_UNITS}" if width < FEWEST_UNITS else "")
        if held:
            reasons.append(f"the {width} channels of '{layer.node.name}' ({layer.node.op_type}) {held}")
    more = f", and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return "; ".join(reasons[:MOST_REASONS]) + more or "it has no layers of weights"
