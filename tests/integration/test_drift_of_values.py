"""Drift of a regressor over real sockets: values far from full's are found, labels are right within a tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.builders import make_manifest
from tests.drifting import PLAN
from tests.integration.test_drift import Served, is_quarantined, serving
from variants.drift_reference import AllowedLoss, ByValue, DriftReference
from variants.manifest import MANIFEST_FILE, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
SCALE, TOLERANCE = 10.0, 0.5


def values_onnx(error: float) -> bytes:
    """Return a file from ``x [-1, 4]`` to two values ``y [-1, 2]``, each off by ``error``."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["right"]),
        helper.make_node("Add", ["right", "error"], ["y"]),
    ]
    tensors = {"weights": WEIGHTS.astype(np.float32), "error": np.full(2, error, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "values",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    content: bytes = helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]
    ).SerializeToString()
    return content


def write_values(root: Path, errors: dict[str, float]) -> None:
    """Write a regressor whose variants err by so much."""
    contents = {name: values_onnx(error) for name, error in errors.items()}
    folder = root / PLAN.name / PLAN.version
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    made = make_manifest(PLAN, contents)
    variants = tuple(
        item.model_copy(
            update={
                "drift": DriftReference(
                    agreement="regression",
                    rows=100,
                    accuracy=0.9,
                    scale=SCALE,
                    allowed=None if item.name == "full" else AllowedLoss(measured=0.01, rate=0.02),
                )
            }
        )
        for item in made.variants
    )
    changed = {
        "task": "regression",
        "scoring": ByValue(tolerance=TOLERANCE),
        "variants": variants,
        "outputs": (TensorInfo(name="y", datatype="FP32", shape=(-1, 2)),),
    }
    (folder / MANIFEST_FILE).write_text(made.model_copy(update=changed).model_dump_json(), encoding="utf-8")


async def values_of(served: Served, request_id: str) -> list[float]:
    """Ask something; return the two values that are answered."""
    found: list[float] = (await served.ask(request_id))["outputs"][0]["data"]
    return found


async def test_a_variant_whose_values_are_far_off_is_quarantined_and_one_that_is_near_is_not(tmp_path: Path) -> None:
    write_values(tmp_path / "repository", {"full": 0.0, "pruned": 0.05, "quantized": 9.0})
    async with serving(tmp_path / "repository") as served:
        found = await served.send_until(is_quarantined)
        assert "prove a severe drop" in found["history"][-1]["evidence"]
        assert 0.2 < found["agreement"] < 0.6, "1 less the mean relative error, of the recipe's scale at least"
        calm = await served.send_until(lambda item: item["shadow_samples"] >= 20, "pruned")
        assert (calm["state"], calm["agreement"]) == ("healthy", pytest.approx(0.996, abs=0.003))
        assert await served.answerer() == "pruned"


async def test_a_variant_that_answers_what_is_no_number_is_quarantined(tmp_path: Path) -> None:
    write_values(tmp_path / "repository", {"full": 0.0, "pruned": 0.0, "quantized": float("nan")})
    async with serving(tmp_path / "repository") as served:
        found = await served.send_until(is_quarantined)
        assert found["agreement"] == 0.0


async def test_labels_of_values_are_right_within_the_tolerance(tmp_path: Path) -> None:
    write_values(tmp_path / "repository", dict.fromkeys(("full", "pruned", "quantized"), 0.0))
    async with serving(tmp_path / "repository", predictions=tmp_path / "kept.db") as served:
        values = {name: await values_of(served, name) for name in ("near", "far", "flat", "endless", "words")}
        labels: list[dict[str, Any]] = [
            {"id": "near", "label": [[value + 0.4 for value in values["near"]]]},
            {"id": "far", "label": [[values["far"][0], values["far"][1] + 0.6]]},
            {"id": "flat", "label": values["flat"]},  # two rows of one value each
            {"id": "words", "label": [["1.0", "10.0"]]},
        ]
        refused = await served.labels(labels)
        assert refused.status_code == 400, "texts in a row are neither values nor boxes"
        reply = (await served.labels(labels[:3])).json()
        assert (reply["joined"], reply["unfit_ids"]) == (2, ["flat"])
        found = [item["labels"] for item in (await served.report())["variants"] if item["labels"] is not None]
        assert [(item["rows"], item["accuracy"]) for item in found] == [(2, 0.5)]
