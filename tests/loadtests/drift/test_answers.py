"""What the bench keeps of a model on disk: packed files, answers that are found again, damage that cannot be."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtests.drift import answers, damage
from loadtests.drift.answers import Source, gather
from loadtests.drift.kept import Kept
from loadtests.drift.spreading import beside_each_other, in_turn
from loadtests.drift.worlds import WorldUnknown
from tests.builders import ModelPlan, VariantPlan, make_manifest
from variants.manifest import MANIFEST_FILE, TensorInfo, Unpacked
from variants.packed import pack

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.drift.answers import Answers

SIDE, CLASSES, ROWS = 6, 4, 60
PLAN = ModelPlan(
    name="patches",
    variants=(
        VariantPlan("full", "full", 0.9, 0.002),
        VariantPlan("packed", "pruned", 0.9, 0.001),
        VariantPlan("bare", "distilled", 0.9, 0.001),
    ),
)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STRENGTHS", (0.6,))
    monkeypatch.setattr(answers, "SEEDS", (0,))
    monkeypatch.setattr(damage, "_TRIES", 2)


def patches_onnx(weights: np.ndarray[tuple[Any, ...], np.dtype[np.floating[Any]]]) -> bytes:
    """Return a file from ``x [-1, 1, 6, 6]`` to ``y [-1, 4]``; of float64 weights, which nothing here can damage."""
    shape = numpy_helper.from_array(np.array([-1, SIDE * SIDE]), "shape")
    weight = numpy_helper.from_array(weights, "weight")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"])]
    if weights.dtype == np.float64:
        nodes.append(helper.make_node("Cast", ["weight"], ["used"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("MatMul", ["flat", "used" if len(nodes) > 1 else "weight"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", CLASSES])],
        [shape, weight],
    )
    content: bytes = helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]
    ).SerializeToString()
    return content


def write_patches(folder: Path, seed: int = 0) -> Source:
    """Write a model of three variants, one of them packed; its rows are right by full. ``seed`` is that of 'bare'."""
    weights = np.random.default_rng(3).normal(size=(SIDE * SIDE, CLASSES))
    other = np.random.default_rng([4, seed]).normal(size=weights.shape)
    plain = {
        "full": patches_onnx(weights.astype(np.float32)),
        "packed": patches_onnx((weights + 0.01).astype(np.float32)),
        "bare": patches_onnx(weights + 0.1 * other),
    }
    stored = plain | {"packed": pack(plain["packed"], [])}
    folder.mkdir(exist_ok=True)
    for name, content in stored.items():
        (folder / _file_of(name)).write_bytes(content)
    manifest = make_manifest(PLAN, stored)
    held = Unpacked(bytes=len(plain["packed"]), sha256=hashlib.sha256(plain["packed"]).hexdigest())
    packed = {"file": _file_of("packed"), "unpacked": held}
    variants = tuple(item.model_copy(update=packed) if item.name == "packed" else item for item in manifest.variants)
    changed = {
        "variants": variants,
        "inputs": (TensorInfo(name="x", datatype="FP32", shape=(-1, 1, SIDE, SIDE)),),
        "outputs": (TensorInfo(name="y", datatype="FP32", shape=(-1, CLASSES)),),
    }
    (folder / MANIFEST_FILE).write_text(manifest.model_copy(update=changed).model_dump_json(), encoding="utf-8")
    rows = np.random.default_rng(5).uniform(size=(ROWS, 1, SIDE, SIDE)).astype(np.float32)
    labels = (rows.reshape(ROWS, -1) @ weights).argmax(1)
    return Source(folder, rows, labels, rows=40)


def _file_of(name: str) -> str:
    return f"{name}.packed" if name == "packed" else f"{name}.onnx"


def found_in(source: Source, folder: Path) -> tuple[Answers, list[str]]:
    notes: list[str] = []
    return gather(source, Kept(folder), notes.append), notes


def test_packed_files_answer_and_what_cannot_be_damaged_is_named(tmp_path: Path) -> None:
    found, notes = found_in(write_patches(tmp_path / "1"), tmp_path / "kept")
    assert np.array_equal(found.clean.outputs["full"].argmax(1), found.clean.labels)
    assert (found.clean.outputs["packed"].argmax(1) == found.clean.labels).mean() > 0.8
    assert {scene.name for scene in found.shifted} >= {"blur", "rotation", "class mix"}
    assert all(len(scene.labels) == len(scene.summaries) == 40 for scene in found.shifted)
    assert "patches: bare loses about 5 points by no damage that was found" in notes
    assert "bare" not in {item.variant for item in found.damaged}


def test_only_answers_of_files_that_changed_are_computed_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first, _ = found_in(write_patches(tmp_path / "1"), kept)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    again, _ = found_in(write_patches(tmp_path / "1"), kept)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert np.array_equal(first.shifted[3].outputs["full"], again.shifted[3].outputs["full"])

    changed, _ = found_in(write_patches(tmp_path / "1", seed=1), kept)
    after = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(after) == len(before), "answers of the older file have ended"
    assert 0 < len(before.keys() - after.keys()) < len(before) / 2
    assert all(after[name] == before[name] for name in before.keys() & after.keys())
    assert not np.array_equal(first.clean.outputs["bare"], changed.clean.outputs["bare"])


def test_a_model_of_other_rows_is_refused_with_what_the_bench_knows(tmp_path: Path) -> None:
    source = write_patches(tmp_path / "1")
    flat = Source(source.folder, source.inputs.reshape(ROWS, -1), source.labels, 40)
    with pytest.raises(WorldUnknown, match=r"takes rows of shape \[36\]; this bench knows"):
        gather(flat, Kept(tmp_path / "kept"), lambda _: None)


def test_work_beside_each_other_comes_back_in_the_order_of_its_jobs() -> None:
    jobs = list(range(-4, 4))
    with beside_each_other() as spread:
        assert spread(abs, jobs) == in_turn(abs, jobs)
