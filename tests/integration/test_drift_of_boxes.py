"""Drift of a detector over real sockets: a variant that sees other boxes than full is found by matching them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.domain.drift import ByBoxes, ByValue
from service.engine.drift.references import read_reference
from service.policy.drift.detection import Detection
from service.policy.drift.regression import Regression
from tests.builders import make_manifest
from tests.drifting import PLAN
from tests.integration.test_drift import Served, is_quarantined, serving
from variants.drift_reference import AllowedLoss, DriftReference, ScoringForm
from variants.drift_reference import ByBoxes as BoxesForm
from variants.drift_reference import ByValue as ValueForm
from variants.manifest import MANIFEST_FILE, ModelManifest, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

SCORING = BoxesForm(least_score=0.4, overlap=0.5, suppression=0.3)
SIZE, SCORES = (8.0, 8.0), (0.9, 0.1)


def boxes_onnx(shift: float) -> bytes:
    """Return a file from ``x [-1, 4]`` to two boxes ``y [-1, 6, 2]``, the second moved to the right by ``shift``."""
    places = np.array([[10.0, 10.0], [30.0 + shift, 30.0]])  # (box, x and y)
    answer = np.concatenate([places, np.tile([*SIZE, *SCORES], (2, 1))], axis=1).T.reshape(1, 12)
    tensors = {
        "move": np.array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 0]]) @ np.eye(4, 12),
        "answer": answer,
        "shape": np.array([-1, 6, 2]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "move"], ["moved"]),
        helper.make_node("Add", ["moved", "answer"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "boxes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 6, 2])],
        [
            numpy_helper.from_array(value.astype(np.int64 if name == "shape" else np.float32), name)
            for name, value in tensors.items()
        ],
    )
    content: bytes = helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]
    ).SerializeToString()
    return content


def manifest_of(contents: dict[str, bytes], task: str, scoring: ScoringForm | None) -> ModelManifest:
    made = make_manifest(PLAN, contents)
    allowed = AllowedLoss(measured=0.0, rate=0.02)
    variants = tuple(
        item.model_copy(
            update={
                "drift": DriftReference(
                    agreement="detection", rows=100, accuracy=0.9, allowed=None if item.name == "full" else allowed
                )
            }
        )
        for item in made.variants
    )
    changed = {"task": task, "scoring": scoring, "labels": ("disc", "ring"), "variants": variants}
    return made.model_copy(update={**changed, "outputs": (TensorInfo(name="y", datatype="FP32", shape=(-1, 6, 2)),)})


def write_boxes(root: Path, moved: dict[str, float]) -> None:
    """Write a detector whose variants move the second box by so much."""
    contents = {name: boxes_onnx(shift) for name, shift in moved.items()}
    folder = root / PLAN.name / PLAN.version
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    manifest = manifest_of(contents, "detection", SCORING)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")


async def boxes_of(served: Served, request_id: str) -> list[list[Any]]:
    """Ask something; return the boxes that are answered as a label has them."""
    answer = np.reshape((await served.ask(request_id))["outputs"][0]["data"], (6, 2))
    return [["disc", *box[:4].tolist()] for box in answer.T]


async def test_a_variant_that_sees_a_box_elsewhere_is_quarantined_and_one_that_nearly_agrees_is_not(
    tmp_path: Path,
) -> None:
    write_boxes(tmp_path / "repository", {"full": 0.0, "pruned": 0.1, "quantized": 9.0})
    async with serving(tmp_path / "repository") as served:
        found = await served.send_until(is_quarantined)
        assert found["agreement"] == 0.5, "F1 of one box of two"
        calm = await served.send_until(lambda item: item["agreement"] is not None, "pruned")
        assert (calm["state"], calm["agreement"]) == ("healthy", 1.0)
        assert await served.answerer() == "pruned"


async def test_labels_of_boxes_are_right_where_all_match_and_no_box_is_without_a_size(tmp_path: Path) -> None:
    write_boxes(tmp_path / "repository", dict.fromkeys(("full", "pruned", "quantized"), 0.0))
    async with serving(tmp_path / "repository", predictions=tmp_path / "kept.db") as served:
        seen = {name: await boxes_of(served, name) for name in ("all", "one", "other", "flat")}
        flat = [[*seen["flat"][0][:4], 0.0], seen["flat"][1]]
        labels: list[dict[str, Any]] = [
            {"id": "all", "label": [seen["all"][::-1]]},
            {"id": "one", "label": [seen["one"][:1]]},
            {"id": "other", "label": [[["ring", *box[1:]] for box in seen["other"]]]},
            {"id": "flat", "label": [flat]},
        ]
        reply = (await served.labels(labels)).json()
        assert (reply["joined"], reply["unfit_ids"]) == (3, ["flat"])
        found = [item["labels"] for item in (await served.report())["variants"] if item["labels"] is not None]
        assert [(item["rows"], item["accuracy"]) for item in found] == [(3, pytest.approx(1 / 3))]


def test_the_manifest_says_how_answers_are_compared() -> None:
    contents = dict.fromkeys(("full", "pruned", "quantized"), b"")
    boxes = read_reference(manifest_of(contents, "detection", SCORING))
    assert boxes.agreement == Detection(least_score=0.4, suppression=0.3)
    assert boxes.scoring == ByBoxes(least_score=0.4, overlap=0.5, suppression=0.3)
    values = read_reference(manifest_of(contents, "regression", ValueForm(tolerance=1.5)))
    assert (values.agreement, values.scoring) == (Regression(), ByValue(1.5))
    assert read_reference(manifest_of(contents, "regression", None)).scoring is None, "an older build's"
