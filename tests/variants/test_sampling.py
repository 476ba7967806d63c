"""Rows that are sorted by class are judged by a sample of all of them, not by the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from variants.determinism import deterministic
from variants.fitting import Lesson
from variants.losses import LabelLoss
from variants.parity import PARITY_ROWS, compare_files
from variants.perturbing import MOST_ROWS, perturb, perturbed_places
from variants.pruning import MOST_FELT, MOST_SEEN, prune
from variants.quantization import quantize
from variants.recipe import Pruning, Quantization
from variants.runtime import run_logits
from variants.sampling import sample_rows
from variants.saturation import judge_saturation
from variants.scoring import CLASSES

INPUTS = 64


def product(weights: np.ndarray[Any, Any]) -> bytes:
    """Return ``y = x A`` for weights (inputs, classes)."""
    node = helper.make_node("MatMul", ["x", "A"], ["y"], name="product")
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in zip("xy", weights.shape, strict=True)
    ]
    graph = helper.make_graph(
        [node], "product", ends[:1], ends[1:], [numpy_helper.from_array(weights.astype(np.float32), "A")]
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    content: bytes = made.SerializeToString()
    return content


def test_a_sample_is_repeatable_in_order_and_of_all_rows_where_they_are_few() -> None:
    assert sample_rows(5, 5).tolist() == [0, 1, 2, 3, 4]
    chosen = sample_rows(10_000, 200, seed=3)
    assert np.array_equal(chosen, sample_rows(10_000, 200, seed=3))
    assert not np.array_equal(chosen, sample_rows(10_000, 200, seed=4))
    assert len(np.unique(chosen)) == 200
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(chosen // 1000, minlength=10).min() > 0, "every tenth of the rows is in it"


def test_the_taylor_criterion_feels_rows_of_every_class() -> None:
    """Units 0-3 alone answer the first half of the rows, 8-11 the other; no row needs 4-7 and 12-15."""
    half = 2 * MOST_FELT
    with deterministic(0):
        model: Any = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[:] = 0.0
        model[0].weight[:8, 0] = model[0].weight[8:, 1] = 1.0
        model[0].bias[:] = 0.0
        model[2].weight.abs_().add_(0.1)
        model[2].weight[:, [*range(4, 8), *range(12, 16)]] *= 1e-3
    kind = torch.arange(2 * half) // half  # the first rows are of one kind
    inputs = torch.nn.functional.one_hot(kind, 2).float()
    plan = Pruning(0.5, 1, None, round_to=4, importance="group-taylor")
    pruned: Any = prune(model, Lesson(inputs, kind, LabelLoss(0.0)), plan, 0, lambda: None)
    assert pruned[0].weight.sum(0).tolist() == [4.0, 4.0], "four units of each kind are left"


def test_batch_norms_are_set_by_rows_of_every_class() -> None:
    rows = torch.arange(4 * MOST_SEEN) // (2 * MOST_SEEN)  # zeros, then ones
    inputs = rows.float()[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    model: Any = nn.Sequential(nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    with torch.no_grad():
        model[0].weight[:], model[0].bias[:] = 1.0, 0.0
    pruned: Any = prune(model, Lesson(inputs, rows, LabelLoss(0.0)), Pruning(0.5, 1, None, 4), 0, lambda: None)
    assert abs(float(pruned[1].running_mean.mean()) - 0.5) < 0.1


def test_saturation_is_looked_for_in_rows_of_every_class() -> None:
    """The first rows are too small to saturate; of the others every pair of products is cut off."""
    quarters = np.repeat(np.eye(4), INPUTS // 4, axis=0)  # (inputs, classes)
    file = product(0.9 + 0.1 * quarters)
    noise = np.random.default_rng(3).random(size=(1200, INPUTS))
    inputs = 3.0 + 0.5 * quarters.T[np.arange(1200) % 4] + 0.1 * noise
    inputs[:600] *= 0.1
    inputs = inputs.astype(np.float32)
    labels = run_logits(file, inputs).argmax(1)
    plan = Quantization(methods=("minmax",), max_float_nodes=0, preset="vnni")
    int8, _ = quantize(file, inputs[1000:], inputs[1000:], plan, lambda: None)
    judged = judge_saturation(int8, inputs, labels, CLASSES)
    assert (judged.verdict, judged.rows) == ("fail", 512)


def test_files_are_compared_on_rows_of_every_class() -> None:
    """The files differ in the second input alone, which only the later rows have."""
    inputs = np.repeat(np.eye(2, dtype=np.float32), 2 * PARITY_ROWS, axis=0)
    found = compare_files(product(np.eye(2)), product(np.array([[1.0, 0.0], [1.0, 0.0]])), inputs, CLASSES)
    assert found.rows == PARITY_ROWS
    assert 0.4 < found.argmax_agreement < 0.6


def test_perturbed_rows_are_of_every_class() -> None:
    rows = np.repeat(np.linspace(0.0, 1.0, 10, dtype=np.float32), MOST_ROWS)[:, None].repeat(8, axis=1)
    places = perturbed_places(len(rows))
    halved = perturb(rows, 0)[4]
    assert np.allclose(halved, 0.5 * rows[places])
    assert len(np.unique(rows[places, 0])) == 10
