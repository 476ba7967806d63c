"""A detector that was trained elsewhere: a file in the form of Ultralytics' exports, built, judged, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.build import build_model
from variants.errors import RecipeError
from variants.quantization import find_decoding
from variants.recipe import Profiling, Quantization, Thresholds
from variants.runtime import run_logits
from variants.scoring import Boxes
from variants.sources.detectors import read_class_names
from variants.sources.given import GivenModel
from variants.sources.models import Given, load_source
from variants.tracing import trace

if TYPE_CHECKING:
    from pathlib import Path

SIDE, BINS, CLASSES = 32, 16, 3
PROFILING = Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1)
ROWS = np.random.default_rng(0).uniform(0.0, 1.0, (150, 3, SIDE, SIDE)).astype(np.float32)


class Like8(nn.Module):
    """YOLOv8's head on a short backbone: distances as distributions over 16 bins, and a convolution to expect them."""

    middles: torch.Tensor
    strides: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.sides = nn.ModuleList(nn.Conv2d(width, 4 * BINS, 1) for width in (16, 32))
        self.scores = nn.ModuleList(nn.Conv2d(width, CLASSES, 1) for width in (16, 32))
        self.expect = nn.Conv2d(BINS, 1, 1, bias=False)
        self.expect.weight.data[:] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1) / 4.0
        for layer in self.scores:
            nn.init.normal_(layer.weight, std=1.5)  # type: ignore[arg-type]  # a convolution's
            nn.init.constant_(layer.bias, -2.0)  # type: ignore[arg-type]  # made with a bias
        middles = [self._middles(stride) for stride in (4, 8)]
        self.register_buffer("middles", torch.cat(middles, 1))
        self.register_buffer("strides", torch.cat([torch.full((1, (SIDE // s) ** 2), float(s)) for s in (4, 8)], 1))

    @staticmethod
    def _middles(stride: int) -> torch.Tensor:
        places = torch.arange(SIDE // stride) + 0.5
        down, right = torch.meshgrid(places, places, indexing="ij")
        return torch.stack([right.flatten(), down.flatten()])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine = F.silu(self.first(images))
        maps = fine, F.silu(self.second(fine))
        parts = [
            torch.cat([sides(x), scores(x)], 1).flatten(2)
            for sides, scores, x in zip(self.sides, self.scores, maps, strict=True)
        ]
        sides, scores = torch.split(torch.cat(parts, 2), [4 * BINS, CLASSES], 1)
        spread = sides.reshape(-1, 4, BINS, sides.shape[2]).transpose(1, 2).softmax(1)  # (N, bins, 4, places)
        low, high = self.expect(spread)[:, 0].chunk(2, 1)
        first, last = self.middles - low, self.middles + high
        boxes = torch.cat([(first + last) / 2.0, last - first], 1) * self.strides
        return torch.cat([boxes, scores.sigmoid()], 1)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    torch.manual_seed(0)
    model = onnx.load_from_string(trace(Like8(), [torch.from_numpy(ROWS[:2])], ["images"], "output0"))
    model.metadata_props.add(key="names", value="{0: 'person', 1: 'bicycle', 2: 'car'}")
    return model


def given(folder: Path, model: onnx.ModelProto, labels: Any = None, **options: Any) -> Given:  # noqa: ANN401 - numpy's
    (folder / "yolo.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "rows.npz", images=ROWS[:90])
    if labels is not None:
        np.savez(folder / "labelled.npz", images=ROWS[90:], labels=labels)
        options["evaluate"] = folder / "labelled.npz"
    return Given(source=folder / "yolo.onnx", calibration=folder / "rows.npz", boxes=True, **options)


@pytest.mark.timeout(1800)  # a whole build
def test_a_file_in_ultralytics_form_makes_a_repository(exported: onnx.ModelProto, tmp_path: Path) -> None:
    labels = Boxes().answer(run_logits(exported.SerializeToString(), ROWS[90:]))
    labels[:6] = -1.0  # six pictures whose boxes are all false alarms
    recipe = load_source(given(tmp_path, exported, labels))
    assert isinstance(recipe, GivenModel)
    plan = replace(
        recipe.plan,
        pruning=None,
        quantization=Quantization(methods=("minmax",), max_float_nodes=0),
        profiling=PROFILING,
        thresholds=Thresholds(min_full=0.0, max_loss=1.0, min_agreement=0.0),  # of weights that nobody fitted
    )
    result = build_model(replace(recipe, plan=plan), tmp_path / "repository")
    manifest = result.manifest
    assert (manifest.task, manifest.metric) == ("detection", "right pictures")
    assert manifest.labels == ("person", "bicycle", "car"), "as the file's metadata has them"
    assert manifest.scoring == Boxes().form
    assert [variant.name for variant in manifest.variants] == ["full", "quantized", "dynamic", "half"]
    full, quantized, *_ = manifest.variants
    assert full.accuracy.value == pytest.approx(54 / 60)
    assert 0.5 < full.accuracy.beside["mAP@0.5"] < 1.0
    assert quantized.accuracy.value > 0.4
    assert quantized.drift is not None
    assert quantized.drift.allowed is not None
    nodes = onnx.load(result.folder / quantized.file).graph.node
    joins = [node for node in nodes if node.op_type == "Concat" and node.output[0] == manifest.outputs[0].name]
    makers = {node.op_type for node in nodes for join in joins if node.output[0] in join.input}
    assert makers == {"Mul", "Sigmoid"}, "boxes and scores meet in float"


def test_without_labels_agreement_with_full_counts(exported: onnx.ModelProto, tmp_path: Path) -> None:
    recipe = load_source(given(tmp_path, exported))
    assert isinstance(recipe, GivenModel)
    assert (recipe.metric, recipe.scoring) == ("agreement", Boxes())
    test = recipe.load(0).test
    assert recipe.scoring.right(run_logits(recipe.file, test.inputs), test.labels).all()


def test_what_decodes_boxes_stays_in_float(exported: onnx.ModelProto) -> None:
    left = set(find_decoding(exported.graph))
    layers = [node for node in exported.graph.node if node.op_type == "Conv"]
    assert len(layers) == 7
    (expectation,) = (node for node in layers if node.name in left)
    assert "expect" in expectation.input[1], "the expectation over bins is no layer"
    assert {node.op_type for node in exported.graph.node if node.name in left} >= {"Softmax", "Sigmoid", "Concat"}


def test_answers_in_another_form_are_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    turned = onnx.ModelProto()
    turned.CopyFrom(exported)
    (output,) = turned.graph.output
    turned.graph.node.append(onnx.helper.make_node("Transpose", [output.name], ["turned"], perm=[0, 2, 1]))
    del turned.graph.output[:]
    turned.graph.output.append(onnx.helper.make_tensor_value_info("turned", 1, ["batch", 80, 4 + CLASSES]))
    with pytest.raises(RecipeError, match=r"answers \[rows, 80, 7\]; --boxes is for answers"):
        load_source(given(tmp_path, turned))


def test_scores_before_the_sigmoid_are_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    raw = onnx.ModelProto()
    raw.CopyFrom(exported)
    (sigmoid,) = (node for node in raw.graph.node if node.op_type == "Sigmoid" and node.output[0] in _last(raw))
    sigmoid.op_type = "Identity"
    with pytest.raises(RecipeError, match="after the sigmoid"):
        load_source(given(tmp_path, raw))


def test_labels_that_name_no_class_are_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    labels = np.tile(np.array([[[3, 9, 9, 4, 4]]]), (60, 1, 1))
    with pytest.raises(RecipeError, match=r"at row 0; classes are whole numbers 0\.\.2"):
        load_source(given(tmp_path, exported, labels))


def test_labels_in_shares_of_the_picture_are_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    labels = np.tile(np.array([[[1, 0.5, 0.5, 0.25, 0.25], [-1, -1, -1, -1, -1]]]), (60, 1, 1))
    with pytest.raises(RecipeError, match=r"0\.5 at most.*give pixels of the input"):
        load_source(given(tmp_path, exported, labels))


def test_a_tolerance_of_boxes_is_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--tolerance 0\.5 is for answers that are values.*leave one of the two out"):
        load_source(given(tmp_path, exported, tolerance=0.5))


def test_answers_that_are_no_numbers_are_refused(exported: onnx.ModelProto, tmp_path: Path) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(exported)
    biases = [layer for layer in broken.graph.initializer if list(layer.dims) == [CLASSES]]
    biases[0].CopyFrom(onnx.numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), biases[0].name))
    with pytest.raises(RecipeError, match="no finite numbers"):
        load_source(given(tmp_path, broken))


@pytest.mark.parametrize("text", ["", "{0: 'a'}", "['a', 'b', 'c']", "{0: 'a', 1: 'b', 2: 'a'}", "__import__('os')"])
def test_names_that_do_not_fit_leave_numbers(exported: onnx.ModelProto, text: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    model.metadata_props[0].value = text
    assert read_class_names(model.SerializeToString(), CLASSES) == ("0", "1", "2")


def _last(model: onnx.ModelProto) -> list[str]:
    """Return what the last node takes."""
    return list(model.graph.node[-1].input)
