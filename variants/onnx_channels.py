"""Which channels of an ONNX graph can only go together: found by following axes through the nodes.

Every axis of every tensor is a dimension. A node's rule says which axes of what it reads and gives are one dimension
(the output channels of a convolution, the first axis of its weights, its bias; all axes of an addition, where residual
branches meet), and union-find joins them. What no rule speaks of is frozen with the node's name as the reason: the
inner channels of a grouped convolution, what a softmax or a mean runs over, every axis at an operator that is not
known, those of the graph's own inputs and outputs. A dimension with nothing frozen in it is a group: to remove unit
``u`` of it is to remove ``u`` from every weight that has the dimension, and nothing else in the graph changes its
meaning. That is the dependency graph of Fang et al. 2023 ("DepGraph: Towards Any Structural Pruning"), read from the
file itself. A weight that two layers share needs no care: its axes are one dimension with those of both.

Reshapes make an axis of several. Where channels and places are flattened into features, or the features of attention
are split into heads, an axis holds each unit of a group as a block::

    size of the axis = units * inner

so that a removed channel takes its ``inner`` features along, and a removed head its width, from queries, keys, values
and the layer that reads them. A constant target of a reshape is rewritten; a computed one is not understood, and
freezes what passes. So does a layer norm over the residual stream of a transformer: its width stays, while heads and
feed-forward width can go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from variants.interface import graph_inputs
from variants.onnx_rules import RULES, Units, attributes, constant, domain_of
from variants.sizing import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from variants.onnx_rules import Axis, Link

ROWS: Final = 7919
"""The batch while axes are followed: a prime that no other axis has, so that a reshape's parts can be told apart."""


@dataclass(frozen=True, slots=True)
class Place:
    """How an axis holds the units of a group: each is a block of ``inner``."""

    group: int
    inner: int = 1

    def positions(self, kept: Units) -> Units:
        """Return where on the axis the ``kept`` units lie."""
        return np.asarray(np.add.outer(kept * self.inner, np.arange(self.inner)).ravel())


@dataclass
class Channels:
    """The groups of a graph; ``model`` is ready to be cut: constants are weights, and every node has a name.

    ``sizes`` are units by group, ``members`` the axes of each, and ``reasons`` say why a group cannot be cut.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    places: dict[Axis, Place] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    members: dict[int, list[Axis]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def place(self, axis: Axis) -> Place:
        """Return the group of an axis, and how it lies there; a group of its own if nothing is known of it."""
        if axis not in self.places:
            group = len(self.places)
            self.places[axis] = Place(group)
            self.members[group] = [axis]
            self.sizes[group] = self.shapes[axis[0]][axis[1]]
        return self.places[axis]

    def freeze(self, axis: Axis, reason: str) -> None:
        """Keep the axis and all that goes with it as it is."""
        self.reasons.setdefault(self.place(axis).group, reason)

    def is_free(self, axis: Axis) -> bool:
        """Tell whether nothing is known that keeps the axis."""
        return self.place(axis).group not in self.reasons

    def join(self, link: Link, reason: str) -> None:
        """Put the units of both axes into one group; freeze both where they do not fit."""
        first, second = self.place(link.first), self.place(link.second)
        inner = first.inner * link.inner
        if self.sizes[first.group] * inner == self.sizes[second.group] * second.inner:
            wider = max(inner, second.inner)
            if wider % inner == 0 and wider % second.inner == 0:
                self._widen(first.group, wider // inner)
                self._widen(second.group, wider // second.inner if first.group != second.group else 1)
                if first.group != second.group:
                    self._unite(first.group, second.group)
                if self.places[link.first].inner * link.inner == self.places[link.second].inner:
                    return
        self.freeze(link.first, reason)
        self.freeze(link.second, reason)

    def _widen(self, group: int, times: int) -> None:
        """Make every unit ``times`` as wide, and the units that many times fewer."""
        if times > 1:
            self.sizes[group] //= times
            for axis in self.members[group]:
                self.places[axis] = Place(group, self.places[axis].inner * times)

    def _unite(self, kept: int, gone: int) -> None:
        for axis in self.members[gone]:
            self.places[axis] = Place(kept, self.places[axis].inner)
        self.members[kept] += self.members.pop(gone)
        del self.sizes[gone]
        if gone in self.reasons:
            self.reasons.setdefault(kept, self.reasons.pop(gone))


def find_channels(file: bytes) -> Channels:
    """Return the channels of an ONNX file that go together, and why the others cannot go."""
    model = _prepare(file)
    channels = Channels(model, infer_shapes(model, ROWS))
    for value in graph_inputs(model.graph):
        _freeze_all(channels, value.name, "come from the client")
    for node in model.graph.node:
        _follow(channels, node)
    for value in model.graph.output:
        _freeze_all(channels, value.name, "are the answer")
    return channels


def _prepare(file: bytes) -> onnx.ModelProto:
    """Return the model with constants among the weights, and a name for every node."""
    model = onnx.load_from_string(file)
    nodes = []
    for count, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{count}"
        value = {item.name: item for item in node.attribute}.get("value")
        if node.op_type == "Constant" and value is not None and domain_of(node) == "":
            model.graph.initializer.append(onnx.TensorProto())
            model.graph.initializer[-1].CopyFrom(value.t)
            model.graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(kept)
    return model


def _follow(channels: Channels, node: onnx.NodeProto) -> None:
    """Join what the node's rule says is one dimension; freeze the rest of what it reads and gives."""
    reason = f"reach node '{node.name}' ({node.op_type})"
    names = [name for name in (*_reads(node), *node.output) if name]
    rule = RULES.get((domain_of(node), node.op_type))
    links = list(rule(node, channels)) if rule is not None and all(name in channels.shapes for name in names) else []
    axes = {(name, axis) for name in names for axis in range(len(channels.shapes.get(name, ())))}
    if node.op_type == "Shape":
        axes = {(node.input[0], axis) for axis in _asked(channels, node)}
    for axis in sorted(axes - {axis for link in links for axis in (link.first, link.second)}):
        channels.freeze(axis, reason)
    for link in links:
        channels.join(link, reason)


def _asked(channels: Channels, node: onnx.NodeProto) -> list[int]:
    """Return the axes whose size a ``Shape`` hands on: all, unless only some are taken from it."""
    axes = range(len(channels.shapes.get(node.input[0], ())))
    settings = attributes(node)
    readers = [other for other in channels.model.graph.node if node.output[0] in other.input]
    taken = [constant(channels, other.input[1]) if other.op_type == "Gather" else None for other in readers]
    if "start" in settings or "end" in settings:
        return list(axes[settings.get("start", 0) : settings.get("end")])
    if any(found is None for found in taken):
        return list(axes)
    return [axes[place] for found in taken for place in found or ()]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what the node reads, in the graphs inside it too."""
    yield from node.input
    for item in node.attribute:
        for graph in (*item.graphs, *([item.g] if item.HasField("g") else [])):
            for inner in graph.node:
                yield from _reads(inner)


def _freeze_all(channels: Channels, name: str, reason: str) -> None:
    for axis in range(len(channels.shapes.get(name, ()))):
        channels.freeze((name, axis), reason)


def cut(channels: Channels, kept: Mapping[int, Units]) -> onnx.ModelProto:
    """Return a copy of the graph that has only the ``kept`` units of each group named."""
    model = onnx.ModelProto()
    model.CopyFrom(channels.model)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        smaller = array
        for axis in range(array.ndim):
            place = channels.places.get((tensor.name, axis))
            if place is not None and place.group in kept:
                smaller = smaller.take(place.positions(kept[place.group]), axis)
        if smaller is not array:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(smaller), tensor.name))
    sizes = {
        axis: len(kept[place.group]) * place.inner for axis, place in channels.places.items() if place.group in kept
    }
    for node in model.graph.node:
        if node.op_type == "Conv":
            _regroup(node, sizes.get((node.input[1], 0)))
        elif node.op_type == "Reshape":
            _aim(model.graph, node, {axis: size for (name, axis), size in sizes.items() if name == node.output[0]})
    model.graph.ClearField("value_info")
    return model


def _regroup(node: onnx.NodeProto, outputs: int | None) -> None:
    """Give a depthwise convolution as many groups as it has channels left; others have one."""
    for item in node.attribute:
        if item.name == "group" and item.i > 1 and outputs is not None:
            item.i = outputs


def _aim(graph: onnx.GraphProto, node: onnx.NodeProto, sizes: Mapping[int, int]) -> None:
    """Rewrite a reshape's constant target for the new ``sizes`` of its axes; -1 and 0 say what they said."""
    if not sizes:
        return
    found = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
    target = numpy_helper.to_array(found).copy()
    for axis, size in sizes.items():
        target[axis] = size if target[axis] > 0 else target[axis]
    name = f"{node.name}_target"  # its own: the same numbers may be the target of other nodes
    graph.initializer.append(numpy_helper.from_array(target, name))
    node.input[1] = name
