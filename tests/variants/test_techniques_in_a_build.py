"""A recipe asks for more techniques than the usual ones: a build makes, judges and publishes them, and they load."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.engine.opening import open_onnx_variant
from service.engine.repository import Repository, describe
from variants.build import BuildResult, build_model
from variants.errors import RecipeError
from variants.recipe import (
    DataParts,
    Download,
    Draft,
    Examples,
    FilePlan,
    Profiling,
    Quantization,
    Ready,
    Thresholds,
    Training,
)
from variants.runtime import run_logits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INPUTS, HIDDEN, CLASSES = 32, 64, 4


def gemms() -> bytes:
    random = np.random.default_rng(0)
    weights = {
        "A": random.normal(size=(HIDDEN, INPUTS)),
        "a": random.normal(size=HIDDEN),
        "B": random.normal(size=(CLASSES, HIDDEN)),
        "b": random.normal(size=CLASSES),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "A", "a"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "B", "b"], ["y"], name="second", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "gemms",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    content: bytes = made.SerializeToString(deterministic=True)
    return content


class Everything:
    name, metric, dataset, labels = "everything", "accuracy", "normal rows", ("a", "b", "c", "d")
    plan = FilePlan(
        thresholds=Thresholds(min_full=0.5, max_loss=0.9, min_agreement=0.3),
        quantization=Quantization(methods=("minmax",), max_float_nodes=0, also=("vnni",)),
        precisions=("int4",),
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=3, cell_s=0.05, memory_repeats=1),
        download=Download(sparsity=0.5, values=16),
    )

    def load(self, seed: int) -> DataParts:
        rows = np.random.default_rng(seed).normal(size=(360, INPUTS)).astype(np.float32)
        labels = run_logits(gemms(), rows).argmax(1)
        places = {"train": (0, 40), "calibration": (40, 100), "validation": (100, 160), "test": (160, 360)}
        parts = {name: Examples(rows[start:end], labels[start:end]) for name, (start, end) in places.items()}
        return DataParts(**parts)

    def draft(self, parts: DataParts, seed: int) -> Iterator[Draft]:  # noqa: ARG002 - the protocol's form
        yield Draft("full", "full", None, "take", {}, lambda: Ready(gemms()))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_model(Everything(), tmp_path_factory.mktemp("repository"))


def test_every_technique_becomes_a_variant(everything: BuildResult) -> None:
    names = {variant.name: variant.tier for variant in everything.manifest.variants}
    assert names == {
        "full": "full",
        "quantized": "quantized",
        "quantized-vnni": "quantized",
        "int4": "quantized",
        "download": "pruned-quantized",
    }
    steps = {variant.name: [step.name for step in variant.steps] for variant in everything.manifest.variants}
    assert (steps["int4"], steps["download"]) == (["pack-weights"], ["pack"])
    presets = [everything.manifest.variant(name).steps[0].parameters["preset"] for name in list(names)[1:3]]
    assert presets == ["portable", "vnni"]


def test_int8_says_where_it_is_right(everything: BuildResult) -> None:
    hardware = {variant.name: variant.hardware for variant in everything.manifest.variants}
    assert hardware["quantized"].proven_isa == hardware["int4"].proven_isa == ("avx2", "avx512f")
    assert hardware["quantized-vnni"].proven_isa == ()
    found = hardware["quantized-vnni"].saturation
    assert found is not None
    assert found.rows == 200
    assert all(hardware[name].saturation is None for name in ("full", "quantized", "int4", "download"))


def test_the_download_is_stored_packed_and_never_chosen_unasked(everything: BuildResult) -> None:
    variant = everything.manifest.variant("download")
    stored = (everything.folder / "download.packed").read_bytes()
    assert variant.file == "download.packed"
    assert variant.unpacked is not None
    assert variant.size.file_bytes == len(stored) < 0.4 * variant.unpacked.bytes
    assert (variant.routing.state, variant.routing.dominated_by) == ("dominated", "full")
    assert "smaller to download, not faster" in variant.routing.reason
    assert not (everything.folder / "download.onnx").exists()


def test_the_gateway_unpacks_what_it_has_verified(everything: BuildResult) -> None:
    backend, inputs = _open(everything, "download"), Everything().load(0).test
    (answers,) = backend.run({"x": inputs.inputs})
    accuracy = float((answers.argmax(1) == inputs.labels).mean())
    assert accuracy == pytest.approx(everything.manifest.variant("download").accuracy.value)


def _open(built: BuildResult, name: str) -> Any:  # noqa: ANN401 - a backend
    stored = Repository(built.folder.parent.parent).find("everything")
    assert stored.manifest is not None
    return open_onnx_variant(stored, describe(stored.manifest), stored.manifest.variant(name))[0]


def test_a_tuning_where_nothing_is_fitted_is_refused(tmp_path: Path) -> None:
    class Untaught(Everything):
        plan = replace(Everything.plan, quantization=Quantization(tuning=Training(steps=10)))

    recipe = Untaught()
    with pytest.raises(RecipeError, match="'everything' has a plan with a tuning for int8, and no network"):
        build_model(recipe, tmp_path)
