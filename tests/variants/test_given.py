"""A trained model without a recipe: built whole, judged by labels or by agreement, or refused before it is built."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from variants.cli import add_commands
from variants.data import load_parts
from variants.errors import RecipeError
from variants.manifest import read_manifest
from variants.scoring import Classes, Values
from variants.sources.given import GivenModel
from variants.sources.models import Given, load_source

DRAW = np.random.default_rng(0)
ROWS = DRAW.normal(size=(400, 8)).astype(np.float32)
FIRST, SECOND = DRAW.normal(size=(8, 16)).astype(np.float32), DRAW.normal(size=(16, 3)).astype(np.float32)
SCORES = np.maximum(ROWS @ FIRST, 0) @ SECOND


def network(*last: onnx.NodeProto, columns: int = 3, mask: bool = False) -> onnx.ModelProto:
    """Return two layers from ``x`` (rows, 8) to ``y`` (rows, columns); ``last`` makes ``y`` from ``h``."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="fc1"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["h"], name="fc2"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8])]
    if mask:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["rows", 3]))
        last = (helper.make_node("Cast", ["mask"], ["m"], to=1), helper.make_node("Mul", ["h", "m"], ["y"]))
    nodes += last or (helper.make_node("Identity", ["h"], ["y"]),)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", columns])
    weights = [onnx.numpy_helper.from_array(FIRST, "w1"), onnx.numpy_helper.from_array(SECOND[:, :columns], "w2")]
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def given(folder: Path, model: onnx.ModelProto | None = None, labels: Any = None, **options: Any) -> Given:  # noqa: ANN401 - numpy's
    """Write a model, rows to calibrate with, and labelled rows where there are labels."""
    (folder / "My Net.onnx").write_bytes((model or network()).SerializeToString())
    np.savez(folder / "rows.npz", x=ROWS[:200])
    if labels is not None:
        np.savez(folder / "labelled.npz", x=ROWS[150:], labels=labels[150:])
        options["evaluate"] = folder / "labelled.npz"
    return Given(source=folder / "My Net.onnx", calibration=folder / "rows.npz", **options)


def load(found: Given) -> GivenModel:
    recipe = load_source(found)
    assert isinstance(recipe, GivenModel)
    return recipe


def run(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="tiergate")
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(list(map(str, words)))
    code: int = arguments.run(arguments)
    return code


def test_a_file_and_rows_make_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = given(tmp_path, labels=SCORES.argmax(1))
    options = "--calibration", found.calibration, "--evaluate", found.evaluate, "--output", tmp_path / "repository"
    assert run("build", found.source, "--name", "mine", *options, "--json") == 0
    manifest = read_manifest(tmp_path / "repository" / "mine" / "1")
    assert json.loads(capsys.readouterr().out) == json.loads(manifest.model_dump_json())
    assert (manifest.metric, manifest.labels) == ("accuracy", ("0", "1", "2"))
    full, *forms = manifest.variants
    assert (full.accuracy.value, full.parity, full.parent) == (1.0, None, None)
    assert [form.name for form in forms] == ["quantized", "dynamic", "half"]
    assert all(form.accuracy.value > 0.95 and form.parity is not None for form in forms)
    assert all(form.size.file_bytes != full.size.file_bytes for form in forms)
    assert "INT8" in manifest.variant("dynamic").size.weight_bytes
    assert "FLOAT16" in manifest.variant("half").size.weight_bytes
    assert "train" not in manifest.splits


def test_a_model_of_several_inputs_is_built(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(network(mask=True).SerializeToString())
    np.savez(tmp_path / "rows.npz", x=ROWS[:80], mask=DRAW.integers(0, 2, (80, 3)))
    options = "--calibration", tmp_path / "rows.npz", "--output", tmp_path / "repository"
    assert run("build", tmp_path / "m.onnx", *options, "--json") == 0
    manifest = read_manifest(tmp_path / "repository" / "m" / "1")
    assert [(item.name, item.datatype, item.shape) for item in manifest.inputs] == [
        ("x", "FP32", (-1, 8)), ("mask", "INT64", (-1, 3))
    ]  # fmt: skip
    assert manifest.metric == "agreement"
    assert set(manifest.variants[0].reference.inputs) == {"x", "mask"}


def test_without_labels_what_full_answers_is_right(tmp_path: Path) -> None:
    recipe = load(given(tmp_path))
    parts = load_parts(recipe, 0)
    assert (recipe.name, recipe.metric, recipe.scoring) == ("my-net", "agreement", Classes())
    assert {name: len(part) for name, part in parts.named().items()} == {
        "train": 0, "calibration": 50, "validation": 50, "test": 100
    }  # fmt: skip
    assert recipe.scoring.right(SCORES[:5], SCORES[:5].argmax(1)).all()


def test_rows_that_are_labelled_too_only_measure(tmp_path: Path) -> None:
    parts = load_parts(load(given(tmp_path, labels=SCORES.argmax(1))), 0)
    assert len(parts.test) == 250
    assert len(parts.calibration) + len(parts.validation) == 150


def test_values_are_right_within_a_tenth_of_their_spread_or_what_is_given(tmp_path: Path) -> None:
    recipe = load(given(tmp_path, network(columns=1), labels=SCORES[:, 0]))
    spread = 0.1 * SCORES[150:, 0].std()
    assert isinstance(recipe.scoring, Values)
    assert recipe.scoring.tolerance == pytest.approx(spread, rel=1e-5)
    assert recipe.metric == f"within {spread:.3g}"
    assert load(given(tmp_path, labels=SCORES, tolerance=2.0)).scoring == Values(2.0)


def test_one_probability_is_right_on_its_side_of_a_half(tmp_path: Path) -> None:
    sigmoid = network(helper.make_node("Sigmoid", ["h"], ["y"]), columns=1)
    recipe = load(given(tmp_path, sigmoid, labels=(SCORES[:, 0] > 0).astype(np.int64)))
    assert recipe.scoring == Values(0.5)
    with pytest.raises(RecipeError, match="gives a value that is no probability; say with --tolerance"):
        load(given(tmp_path, network(columns=1), labels=(SCORES[:, 0] > 0).astype(np.int64)))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (SCORES.argmax(1) + 1, r"labelled\.npz' has labels 1\.\.3; 3 labels allow 0\.\.2"),
        (SCORES[:, :2], r"has labels \[250, 2\]; the model answers \['rows', 3\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any, said: str) -> None:  # noqa: ANN401 - cases
    with pytest.raises(RecipeError, match=said):
        load(given(tmp_path, labels=labels))


def test_a_model_whose_rows_answer_for_each_other_is_refused(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["h", "axis"], ["mean"], keepdims=1)
    mixed = network(mean, helper.make_node("Sub", ["h", "mean"], ["y"]))
    mixed.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axis"))
    with pytest.raises(RecipeError, match="answers a row otherwise when others stand beside it"):
        load(given(tmp_path, mixed))


def test_too_few_different_rows_are_refused(tmp_path: Path) -> None:
    found = given(tmp_path)
    np.savez(tmp_path / "rows.npz", x=np.repeat(ROWS[:10], 20, axis=0))
    with pytest.raises(RecipeError, match="there are 10 different rows to calibrate 'my-net' with; give 32 or more"):
        load_parts(load(found), 0)


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = given(tmp_path).source
    assert run("build", source, "--output", tmp_path / "repository") == 2
    assert capsys.readouterr().err == (
        f"tiergate: building '{source}' needs rows like those that clients will send: --calibration FILE.npz with an "
        "array 'x' float32[rows, 8]; some hundreds are well\n"
    )
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.keras", r"is a Keras model; export it with model\.export"),
        ("model.pkl", "is a pickle, and reading one can run code"),
        ("model.pt", r"export it with torch\.onnx\.export"),
        ("model.tflite", r"python -m tf2onnx\.convert --tflite"),
        ("digits", "--calibration is for a trained model, and 'digits' is not one"),
        ("absent/folder", "there is no file or folder 'absent/folder'; accepted: a bundled recipe"),
    ],
)
def test_other_forms_are_told_how_to_become_onnx(tmp_path: Path, name: str, said: str) -> None:
    source = tmp_path / name if "." in name else Path(name)
    with pytest.raises(RecipeError, match=said):
        load_source(Given(source=source, calibration=tmp_path / "rows.npz"))


def test_a_saved_model_is_told_how_to_become_onnx(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"python -m tf2onnx\.convert --saved-model"):
        load_source(Given(source=tmp_path))


def test_a_name_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the name '\.\./up' is not allowed"):
        load(given(tmp_path, name="../up"))


def test_a_form_that_a_library_cannot_make_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_file: bytes) -> bytes:
        raise LookupError("no such cast")

    monkeypatch.setattr("variants.reducing.halve", fail)
    found = given(tmp_path)
    options = "--calibration", found.calibration, "--output", tmp_path / "repository"
    assert run("build", found.source, *options) == 0
    assert "left out: step 'halve half' failed: LookupError: no such cast" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "repository" / "my-net" / "1")
    assert [variant.name for variant in manifest.variants] == ["full", "quantized", "dynamic"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fix", "sequence"), "argument --fix: 'sequence' is not AXIS=SIZE, as in sequence=128"),
        (("--fix", "sequence=0"), "is not AXIS=SIZE"),
        (("--tolerance", "-1"), "argument --tolerance: '-1' is no number above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("build", "model.onnx", *words)
    assert said in capsys.readouterr().err
