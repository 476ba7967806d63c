"""Channels of a file go together or not at all, and a cut file answers as the whole one with those channels silent."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from variants.onnx_channels import cut, find_channels
from variants.runtime import run_logits

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
PICTURES = "float[n, 2, 6, 6] x"


@dataclass(frozen=True)
class Topology:
    """A graph from ``x`` to ``y`` in ONNX's text form, and one of its layers: whose inputs are to lose units.

    ``reader`` is its weight and the axis that its inputs lie on; ``others`` are weights that read the same units.
    """

    takes: str
    text: str
    weights: dict[str, tuple[int, ...]]
    reader: tuple[str, int]
    others: tuple[tuple[str, int], ...] = ()

    def file(self) -> bytes:
        """Return the file with random weights."""
        draw = np.random.default_rng(0)
        model = parser.parse_model(f"{HEAD} g ({self.takes}) => (float[n, 3] y) {{ {self.text} }}")
        for name, shape in self.weights.items():
            values = np.abs(draw.normal(size=shape)) if name == "var" else draw.normal(size=shape)
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        content: bytes = model.SerializeToString()
        return content

    def rows(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return five rows that it takes."""
        sizes = [int(size) for size in self.takes[self.takes.index("[") + 1 : self.takes.index("]")].split(",")[1:]]
        return np.random.default_rng(1).normal(size=(5, *sizes)).astype(np.float32)


END = "p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, last, end)"
TOPOLOGIES = {
    "feed-forward": Topology(
        "float[n, 4] x",
        "a = MatMul(x, up) b = Add(a, bias) c = Gelu(b) y = MatMul(c, down)",
        {"up": (4, 8), "bias": (8,), "down": (8, 3)},
        ("down", 0),
    ),
    "residual": Topology(
        PICTURES,
        "s = Conv<pads=[1,1,1,1]>(x, stem) u = Relu(s) a = Conv<pads=[1,1,1,1]>(u, in, bias) b = Relu(a) "
        "c = Conv<pads=[1,1,1,1]>(b, out) t = Add(c, u) " + END,
        {"stem": (8, 2, 3, 3), "in": (4, 8, 3, 3), "bias": (4,), "out": (8, 4, 3, 3), "last": (8, 3), "end": (3,)},
        ("last", 0),
        (("in", 1),),
    ),
    "inside a residual": Topology(
        PICTURES,
        "u = Conv<pads=[1,1,1,1]>(x, stem) a = Conv<pads=[1,1,1,1]>(u, in, bias) b = Relu(a) "
        "c = Conv<pads=[1,1,1,1]>(b, out) t = Add(c, u) " + END,
        {"stem": (8, 2, 3, 3), "in": (4, 8, 3, 3), "bias": (4,), "out": (8, 4, 3, 3), "last": (8, 3), "end": (3,)},
        ("out", 1),
    ),
    "depthwise and batch norm": Topology(
        PICTURES,
        "s = Conv(x, stem) d = Conv<group=8>(s, deep) b = BatchNormalization(d, scale, shift, mean, var) r = Clip(b) "
        "t = Conv(r, point) " + END,
        {"stem": (8, 2, 1, 1), "deep": (8, 1, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "var": (8,)}
        | {"point": (6, 8, 1, 1), "last": (6, 3), "end": (3,)},
        ("point", 1),
    ),
    "flattened places": Topology(
        PICTURES,
        "s = Conv(x, stem) m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) f = Flatten(m) "
        "y = Gemm<transB=1>(f, last)",
        {"stem": (8, 2, 1, 1), "last": (3, 72)},
        ("last", 1),
    ),
    "heads": Topology(
        "float[n, 5, 6] x",
        "split = Constant<value = int64[4] {-1, 5, 4, 3}>() join = Constant<value = int64[3] {-1, 5, 12}>() "
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "
        "q4 = Reshape(q, split) k4 = Reshape(k, split) v4 = Reshape(v, split) "
        "qt = Transpose<perm=[0,2,1,3]>(q4) kt = Transpose<perm=[0,2,3,1]>(k4) vt = Transpose<perm=[0,2,1,3]>(v4) "
        "s = MatMul(qt, kt) p = Softmax<axis=-1>(s) o = MatMul(p, vt) ot = Transpose<perm=[0,2,1,3]>(o) "
        "oj = Reshape(ot, join) z = MatMul(oj, wo) axis = Constant<value = int64[1] {1}>() "
        "y = ReduceMean<keepdims=0>(z, axis)",
        {"wq": (6, 12), "wk": (6, 12), "wv": (6, 12), "wo": (12, 3)},
        ("wo", 0),
    ),
    "a weight that two layers share": Topology(
        "float[n, 8] x",
        "e = MatMul(x, first) a = MatMul(e, same) b = Relu(a) c = MatMul(b, same) d = Add(c, e) y = MatMul(d, last)",
        {"first": (8, 8), "same": (8, 8), "last": (8, 3)},
        ("last", 0),
        (("same", 0),),
    ),
}


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES.keys())
def test_a_cut_file_answers_as_the_whole_one_whose_layers_do_not_read_what_is_gone(topology: Topology) -> None:
    file, rows = topology.file(), topology.rows()
    channels = find_channels(file)
    place = channels.place(topology.reader)
    units = channels.sizes[place.group]
    assert place.group not in channels.reasons
    kept = np.array([unit for unit in range(units) if unit not in {1, 2}])
    smaller = cut(channels, {place.group: kept})
    onnx.checker.check_model(smaller, full_check=True)
    gone = place.positions(np.array([1, 2]))
    deaf = onnx.load_from_string(file)
    for tensor in deaf.graph.initializer:
        for name, axis in (topology.reader, *topology.others):
            if tensor.name == name:
                _silence(tensor, axis, gone)
    np.testing.assert_allclose(
        run_logits(smaller.SerializeToString(), rows), run_logits(deaf.SerializeToString(), rows), rtol=1e-4, atol=1e-4
    )
    assert sum(np.prod(tensor.dims) for tensor in smaller.graph.initializer) < sum(
        np.prod(tensor.dims) for tensor in channels.model.graph.initializer
    )


def _silence(tensor: onnx.TensorProto, axis: int, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    values = np.moveaxis(numpy_helper.to_array(tensor).copy(), axis, 0)
    values[places] = 0.0
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(values, 0, axis)), tensor.name))


@pytest.mark.parametrize(
    ("text", "weights", "held", "reason"),
    [
        ("s = Conv(x, stem) t = Conv<group=2>(s, deep) " + END, {"deep": (8, 4, 1, 1)}, "stem", r"\(Conv\)"),
        ("s = Conv(x, stem) t = Softmax<axis=1>(s) " + END, {}, "stem", r"\(Softmax\)"),
        ("s = Conv(x, stem) t = DepthToSpace<blocksize=1>(s) " + END, {}, "stem", r"\(DepthToSpace\)"),
        ("s = Conv(x, stem) n = Shape(s) g = Reshape(s, n) t = Identity(g) " + END, {}, "stem", r"\((Shape|Reshape)\)"),
        ("t = Conv(x, stem) " + END, {}, "last", "are the answer"),
    ],
)
def test_channels_that_something_else_depends_on_stay(
    text: str, weights: dict[str, tuple[int, ...]], held: str, reason: str
) -> None:
    shapes = {"stem": (8, 2, 1, 1), "last": (8, 3), "end": (3,)} | weights
    channels = find_channels(Topology(PICTURES, text, shapes, ("stem", 0)).file())
    axis = (held, 0 if held == "stem" else 1)
    assert not channels.is_free(axis)
    assert re.search(reason, channels.reasons[channels.place(axis).group])


def test_what_the_client_sends_stays() -> None:
    channels = find_channels(TOPOLOGIES["residual"].file())
    assert channels.reasons[channels.place(("stem", 1)).group] == "come from the client"
