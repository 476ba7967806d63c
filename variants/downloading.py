"""The download tier: weights of a file are pruned where that was not done, made to share values, and packed.

Sharing is one-dimensional k-means for each tensor (Han, Mao, Dally 2016): the values other than zero are cut into ``k``
clusters by Lloyd's iteration, started evenly between the smallest and the largest, which keeps the rare large weights
that matter most. Batch norm is folded into the weights by then, so that clusters are of what will run.

A form for the way to a device or a new replica, not for speed: what is served is as large and as slow as its parent.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from variants.manifest import Routing, Unpacked
from variants.packed import Cut, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from variants.evidence import Gate
    from variants.plans import Download
    from variants.recipe import Floats
    from variants.workshop import Made

FEWEST_WEIGHTS: Final = 1024
ROUNDS: Final = 20


def pack_for_download(file: bytes, plan: Download, *, is_pruned: bool) -> tuple[bytes, bytes]:
    """Return the file that will run and its packed form; weights are pruned first unless that was done in training."""
    model = onnx.load_from_string(file)
    shared = {tensor.name: _share(tensor, plan, is_pruned=is_pruned) for tensor in _large(model.graph)}
    for tensor in _large(model.graph):
        symbols, codebook = shared[tensor.name]
        values = np.append(codebook, np.float32(0.0))[symbols]  # the symbol of zeros, -1, is the last place
        tensor.raw_data = values.astype("<f4").tobytes()
    smaller: bytes = model.SerializeToString(deterministic=True)
    return smaller, pack(smaller, list(_cuts(smaller, model.graph, shared)))


def describe_unpacked(made: Made) -> Unpacked | None:
    """Return what a packed variant's file holds."""
    if made.packed is None:
        return None
    return Unpacked(bytes=len(made.file), sha256=hashlib.sha256(made.file).hexdigest())


def keep_back(made: Made, gates: tuple[Gate, ...]) -> Routing:
    """Return the routing of a packed variant: published to be fetched or asked for by name, never chosen unasked."""
    missed = [f"misses gate {gate.name}: {gate.detail}" for gate in gates if not gate.passed]
    if missed:
        return Routing(state="rejected", reason="; ".join(missed), gates=gates)
    assert made.parent is not None  # noqa: S101 - a packed variant is made from another
    reason = f"smaller to download, not faster than {made.parent.name}, from which it was made"
    return Routing(state="dominated", reason=reason, dominated_by=made.parent.name, gates=gates)


def _large(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    return [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.raw_data and np.prod(tensor.dims) >= FEWEST_WEIGHTS
    ]


def _share(
    tensor: onnx.TensorProto, plan: Download, *, is_pruned: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each weight's place in the codebook (count,), -1 for zeros, and the codebook."""
    weights = numpy_helper.to_array(tensor).copy()
    if not is_pruned:
        weights *= _kept(weights, plan)
    flat = weights.ravel()
    codebook = _cluster(flat[flat != 0.0], plan.values)
    symbols = np.full(len(flat), -1, np.int64)
    symbols[flat != 0.0] = _nearest(flat[flat != 0.0], codebook)
    return symbols, codebook


def _kept(weights: Floats, plan: Download) -> NDArray[np.bool_]:
    """Return which weights stay: the largest, or n of every m along the input dimension."""
    size = np.abs(weights)
    if plan.pattern is None:
        kept: NDArray[np.bool_] = size > np.quantile(size, plan.sparsity)
        return kept
    few, block = plan.pattern
    rows = size.reshape(len(size), -1)
    whole = rows[:, : rows.shape[1] // block * block].reshape(len(rows), -1, block)
    places = np.argsort(np.argsort(-whole, axis=2, kind="stable"), axis=2)
    result = np.ones(rows.shape, np.bool_)
    result[:, : whole.shape[1] * block] = (places < few).reshape(len(rows), -1)
    return result.reshape(weights.shape)


def _cluster(values: Floats, most: int) -> NDArray[np.float32]:
    """Return at most ``most`` ascending values that stand for ``values``."""
    if not len(values):
        return np.zeros(0, np.float32)
    centres = np.linspace(values.min(), values.max(), most)
    for _ in range(ROUNDS):
        nearest = _nearest(values, centres)
        counts = np.bincount(nearest, minlength=most)
        sums = np.bincount(nearest, weights=values, minlength=most)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return np.unique(centres.astype(np.float32))


def _nearest(values: Floats, centres: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the place of the nearest of ascending ``centres`` for each value."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)


def _cuts(
    file: bytes, graph: onnx.GraphProto, shared: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
) -> Iterator[Cut]:
    """Yield where the shared tensors stand in the file: initializers are written in their order."""
    at = 0
    for tensor in graph.initializer:
        if tensor.name in shared:
            at = file.index(tensor.raw_data, at)
            yield Cut(at, *shared[tensor.name])
            at += len(tensor.raw_data)
