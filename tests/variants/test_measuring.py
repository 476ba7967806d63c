"""What a build says of its files, on two hand-made ones: a slow exact model, and a fast one that errs near the line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from variants.evidence import Cost, Parity
from variants.machine import describe_machine
from variants.manifest import Split
from variants.measuring import Described, Subject, describe_variants
from variants.progress import SilentProgress
from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Teaching, Thresholds, Training
from variants.runtime import run_logits
from variants.workshop import Made

if TYPE_CHECKING:
    from pathlib import Path

WIDE = 1024
TRAINING = Training(steps=8)
PARITY = Parity(rows=1, max_error=0.0, mean_error=0.0, argmax_agreement=1.0)
COST = Cost(train_s=0.0, build_s=0.0)
EXACT, NOISY = [[-1.0, 1.0], [0.0, 0.0]], [[-1.0, 1.0], [-1.0, 1.0]]


@dataclass
class Line:
    """Which side of zero is the first number on? The second number is noise, up to a fifth."""

    name: str = "line"
    metric: str = "accuracy"
    dataset: str = "numbers"
    labels: tuple[str, ...] = ("below", "above")
    input_name: str = "x"
    plan: Plan = field(
        default_factory=lambda: Plan(
            training=TRAINING,
            teaching=Teaching(),
            pruning=Pruning(0.5, 1, TRAINING),
            distillation=TRAINING,
            thresholds=Thresholds(min_full=0.9, max_loss=0.5),
            profiling=Profiling((1, 2), (1,), rounds=2, runs=20, memory_repeats=1),
        )
    )


def examples(rows: int, seed: int) -> Examples:
    draw = np.random.default_rng(seed)
    inputs = np.stack([draw.uniform(-1, 1, rows), draw.uniform(-0.2, 0.2, rows)], axis=1).astype(np.float32)
    return Examples(inputs, (inputs[:, 0] > 0).astype(np.int64))


def linear_onnx(weights: list[list[float]], *, is_slow: bool) -> bytes:
    """Return ``logits = x @ weights``; a slow one also multiplies a million zeros, and adds nothing."""
    tensors = [helper.make_tensor("weights", TensorProto.FLOAT, [2, 2], np.ravel(weights).tolist())]
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["linear"])]
    last = "linear"
    if is_slow:
        for name, shape in {"w1": (2, WIDE), "w2": (WIDE, WIDE), "w3": (WIDE, 2)}.items():
            tensors.append(helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape).ravel().tolist()))
        nodes += [helper.make_node("MatMul", [a, b], [c]) for a, b, c in (("x", "w1", "h"), ("h", "w2", "i"))]
        nodes += [helper.make_node("MatMul", ["i", "w3"], ["j"]), helper.make_node("Add", ["linear", "j"], ["sum"])]
        last = "sum"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in ("x", "logits")]
    graph = helper.make_graph(nodes, "line", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="module")
def subject() -> Subject:
    parts = DataParts(examples(8, 1), examples(8, 2), examples(200, 3), examples(500, 4))
    splits = {name: Split(rows=len(part), sha256="ab" * 32) for name, part in parts.named().items()}
    full = Made("full", "full", linear_onnx(EXACT, is_slow=True), None, (), PARITY, COST)
    small = Made("distilled", "distilled", linear_onnx(NOISY, is_slow=False), full, (), PARITY, COST)
    recipe: Any = Line()
    return Subject(recipe, parts, splits, describe_machine(), (full, small))


def describe(subject: Subject, folder: Path) -> Described:
    files: dict[str, Path] = {made.tier: folder / f"{made.tier}.onnx" for made in subject.made}
    for made in subject.made:
        files[made.tier].write_bytes(made.file)
    return describe_variants(subject, files, SilentProgress())


def test_cascade_of_two_files_is_what_the_files_answer(subject: Subject, tmp_path: Path) -> None:
    described = describe(subject, tmp_path)
    full, small = described.variants
    assert [variant.routing.state for variant in described.variants] == ["routable", "routable"]
    assert small.accuracy.value < full.accuracy.value == 1.0
    cascade = described.cascades[-1]
    assert (cascade.variant, cascade.escalate_to) == ("distilled", "full")
    logits, test = run_logits(subject.made[1].file, subject.parts.test.inputs), subject.parts.test
    doubtful = np.abs(logits[:, 1] - logits[:, 0]) < cascade.margin
    assert cascade.escalated_ratio == pytest.approx(doubtful.mean())
    assert cascade.accuracy == pytest.approx(((logits.argmax(1) == test.labels) | doubtful).mean())
    assert small.accuracy.value < cascade.accuracy


def test_rejected_variant_is_in_no_cascade(subject: Subject, tmp_path: Path) -> None:
    recipe: Any = Line()
    recipe.plan = replace(recipe.plan, thresholds=replace(recipe.plan.thresholds, max_loss=0.0))
    described = describe(replace(subject, recipe=recipe), tmp_path)
    assert described.variants[1].routing.state == "rejected"
    assert described.cascades == ()
