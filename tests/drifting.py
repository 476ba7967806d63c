"""A classifier on disk for tests of drift: four numbers come in, the place of the largest one is the class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.builders import ModelPlan, VariantPlan, make_manifest
from variants.manifest import MANIFEST_FILE, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LABELS: Final = ("north", "east", "south", "west")
PLAN: Final = ModelPlan(
    name="winds",
    variants=(
        VariantPlan("full", "full", 0.95, 0.004),
        VariantPlan("pruned", "pruned", 0.96, 0.0004),
        VariantPlan("quantized", "quantized", 0.97, 0.0001),
    ),
)
"""The smaller is the more accurate one here, so that who answers does not depend on how fast a machine is."""

_STEPS: Final = {"full": 20, "pruned": 4, "quantized": 0}
_WIDTH: Final = 128

RIGHT: Final = np.eye(4, dtype=np.float32) * 5.0
WRONG: Final = np.roll(RIGHT, 1, axis=1)
"""Another class for every row: weights that are not those that were measured."""


def classes_onnx(weights: NDArray[np.float32], steps: int = 0) -> bytes:
    """Return an ONNX file from ``x [-1, 4]`` to the logits ``y [-1, 4]``, after so many multiplications by zeros."""
    zeros = np.zeros((_WIDTH, _WIDTH), dtype=np.float32)
    tensors = {"weight": weights, "widen": zeros[:4], "zeros": zeros, "narrow": zeros[:, :4]}
    nodes = [helper.make_node("MatMul", ["x", "widen"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{step}", "zeros"], [f"h{step + 1}"]) for step in range(steps)]
    nodes += [
        helper.make_node("MatMul", [f"h{steps}", "narrow"], ["nothing"]),
        helper.make_node("MatMul", ["x", "weight"], ["logits"]),
        helper.make_node("Add", ["logits", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "winds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    content: bytes = model.SerializeToString()
    return content


def write_winds(root: Path, *, wrong: tuple[str, ...] = (), plan: ModelPlan = PLAN) -> Path:
    """Write the model; the manifest has the digests of the files, those with wrong weights too. Return its folder.

    Variants that are ``wrong`` are so each in its own way.
    """
    folder = root / plan.name / plan.version
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict.fromkeys((item.name for item in plan.variants), RIGHT)
    weights |= {name: np.roll(WRONG, step, axis=1) for step, name in enumerate(wrong)}
    contents = {name: classes_onnx(value, _STEPS[name]) for name, value in weights.items()}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    manifest = make_manifest(plan, contents).model_copy(
        update={"labels": LABELS, "outputs": (TensorInfo(name="y", datatype="FP32", shape=(-1, 4)),)}
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


def infer_body(number: int, request_id: str = "", budget_ms: float = 60_000.0) -> bytes:
    """Return the JSON of one request whose right class is ``number % 4``."""
    data = [0.0] * 4
    data[number % 4] = 1.0
    body = {
        "id": request_id or f"request-{number}",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": data}],
        "parameters": {"latency_budget_ms": budget_ms},
    }
    return json.dumps(body).encode()
