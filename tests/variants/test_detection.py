"""The recipe ``detection`` at a tiny size: pictures, the network, what it is fitted to, and a whole build."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from variants.box_losses import BoxLoss, assign, generalised_overlap, overlap
from variants.boxes import read_labels
from variants.build import build_model
from variants.errors import RecipeError
from variants.fitting import Lesson
from variants.losses import objectives_of
from variants.pruning import prune
from variants.recipe import DataParts, Examples, Profiling, Pruning, Quantization, Teaching, Thresholds, Training
from variants.recipes.detection import Detection
from variants.sources.detector import Detector, Width, centres
from variants.sources.shapes import CLASSES, SIDE, draw_shapes
from variants.table import draw_table

if TYPE_CHECKING:
    from variants.manifest import ModelManifest

TINY = Width(8, (8, 16, 16), 16, blocks=1)
SHORT = Training(steps=8, batch_size=8, learning_rate=0.01, optimizer="adamw")


class ShortDetection(Detection):
    plan = replace(
        Detection.plan,
        training=SHORT,
        teaching=Teaching(copies=1, weight=0.8),
        pruning=None,
        distillation=SHORT,
        thresholds=Thresholds(min_full=0.0, max_loss=1.0, min_agreement=0.0),
        quantization=Quantization(methods=("minmax",), max_float_nodes=0),
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1),
    )

    def load(self, seed: int) -> DataParts:
        found = [draw_shapes(rows, 10 * seed + number) for number, rows in enumerate((64, 20, 60, 60))]
        return DataParts(*(Examples(pictures[:, None].astype(np.float32), labels) for pictures, labels in found))

    def make_model(self) -> torch.nn.Module:
        return Detector(TINY, len(CLASSES), SIDE)

    def make_student(self) -> torch.nn.Module:
        return Detector(TINY, len(CLASSES), SIDE)


def boxes(*places: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(places).T[None]  # (1, 4, places)


def some_outputs(rows: int) -> torch.Tensor:
    torch.manual_seed(0)
    pictures = torch.from_numpy(draw_shapes(rows, 3)[0][:, None].astype(np.float32))
    with torch.no_grad():
        found: torch.Tensor = Detector(TINY, len(CLASSES), SIDE).eval()(pictures)
    return found


def test_pictures_are_the_same_for_a_seed_and_boxes_lie_in_them() -> None:
    pictures, labels = draw_shapes(60, seed=1)
    again, same = draw_shapes(20, seed=1)
    assert (pictures[:20] == again).all()
    assert (labels[:20] == same).all()
    assert (draw_shapes(20, seed=2)[0] != again).any()
    found = read_labels(labels)
    corners = found.corners[found.are_real]
    assert corners.min() > 0.0
    assert corners.max() < SIDE
    assert set(found.classes[found.are_real].tolist()) == set(range(len(CLASSES)))
    assert found.are_real.any(axis=1).all(), "no picture is empty"


def test_a_box_goes_around_its_shape() -> None:
    pictures, labels = draw_shapes(40, seed=4)
    inner, outer = [], []
    for picture, (first, *others) in zip(pictures.astype(np.float64), labels, strict=True):
        if all(other[0] < 0 for other in others):
            left, right = (int(first[1] + side * first[3] / 2) for side in (-1, 1))
            top, bottom = (int(first[2] + side * first[4] / 2) for side in (-1, 1))
            inside = np.zeros_like(picture, dtype=bool)
            inside[top : bottom + 1, left : right + 1] = True
            inner.append(picture[inside].std())
            outer.append(picture[~inside].std())
    assert len(inner) >= 5
    assert np.mean(inner) > 2.0 * np.mean(outer), "nearly all contrast is in the box"


def test_an_answer_has_a_place_for_each_stride_and_pixels_for_boxes() -> None:
    found = some_outputs(4)
    assert found.shape == (4, 4 + len(CLASSES), 80)
    assert (found[:, 2:4] > 0.0).all()
    assert ((found[:, 4:] > 0.0) & (found[:, 4:] < 1.0)).all()
    assert centres(SIDE)[:, 63].tolist() == [60.0, 60.0, 8.0]
    assert centres(SIDE)[:, 64].tolist() == [8.0, 8.0, 16.0]


def test_generalised_overlap_by_hand() -> None:
    first, second = boxes((5, 5, 10, 10), (5, 5, 10, 10)), boxes((7, 5, 10, 10), (25, 5, 10, 10))
    assert overlap(first, second)[0].tolist() == pytest.approx([80 / 120, 0.0])
    assert generalised_overlap(first, second)[0].tolist() == pytest.approx([80 / 120, -100 / 300])


def test_the_places_of_best_alignment_answer_for_an_object() -> None:
    middles = centres(SIDE)[:2]
    labels = torch.tensor([[[2.0, 20.0, 20.0, 16.0, 16.0], [-1.0, -1.0, -1.0, -1.0, -1.0]]])
    outputs = torch.full((1, 4 + len(CLASSES), 80), 0.01)
    outputs[0, :2], outputs[0, 2:4] = middles, 12.0
    targets, wanted = assign(outputs, labels, middles)
    answering = targets[0].amax(0).nonzero().flatten()
    assert len(answering) > 0
    assert ((middles[:, answering] - 20.0).abs() < 8.0).all(), "only places in the object"
    assert targets[0, [0, 1, *range(3, len(CLASSES))]].sum() == 0.0, "no other class"
    assert targets.max() == pytest.approx(float(overlap(outputs[:, :4], wanted).max())), "as good as it fits"
    assert wanted[0, :, answering].T.tolist() == [[20.0, 20.0, 16.0, 16.0]] * len(answering)


def test_a_place_between_two_objects_takes_the_one_that_it_fits() -> None:
    middles = centres(SIDE)[:2]
    labels = torch.tensor([[[0.0, 20.0, 20.0, 30.0, 30.0], [1.0, 20.0, 20.0, 10.0, 10.0]]])
    outputs = torch.full((1, 4 + len(CLASSES), 80), 0.5)
    outputs[0, :2], outputs[0, 2:4] = middles, 10.0
    targets, _ = assign(outputs, labels, middles)
    assert ((targets[0] > 0.0).sum(0) <= 1).all()
    nearest = int((middles - 20.0).square().sum(0).argmin())
    assert targets[0, 1, nearest] > 0.0


def test_loss_falls_towards_the_labels_and_is_none_at_the_teacher() -> None:
    labels = torch.from_numpy(draw_shapes(8, 3)[1])
    outputs = some_outputs(8).requires_grad_()
    loss = BoxLoss(centres(SIDE)[:2])
    torch.autograd.backward(loss(outputs, labels, None))
    assert outputs.grad is not None
    with torch.no_grad():
        better = outputs - 0.002 * outputs.grad.sign()
        better[:, 4:].clamp_(1e-4, 1.0 - 1e-4)
    assert loss(better, labels, None) < loss(outputs, labels, None)
    same = BoxLoss(centres(SIDE)[:2], weight=1.0)(outputs, labels, outputs.detach())
    assert float(same.detach()) == pytest.approx(0.0, abs=1e-4)


def test_pictures_without_an_object_teach_silence() -> None:
    outputs = some_outputs(2).requires_grad_()
    loss = BoxLoss(centres(SIDE)[:2])(outputs, torch.full((2, 3, 5), -1.0), None)
    torch.autograd.backward(loss)
    assert outputs.grad is not None
    assert (outputs.grad[:, 4:] >= 0.0).all(), "every score should fall"
    assert outputs.grad[:, :4].abs().sum() == 0.0


def test_pruning_leaves_the_layers_of_the_answer() -> None:
    pictures, labels = draw_shapes(16, 3)
    model = Detector(Width(16, (16, 32, 32), 32, blocks=1), len(CLASSES), SIDE).eval()
    inputs = torch.from_numpy(pictures[:, None].astype(np.float32))
    lesson = Lesson(inputs, torch.from_numpy(labels), BoxLoss(centres(SIDE)[:2]))
    smaller = prune(model, lesson, Pruning(0.5, 1, None), 0, lambda: None)
    with torch.no_grad():
        assert smaller(inputs[:2]).shape == (2, 4 + len(CLASSES), 80)
    count, fewer = (sum(weight.numel() for weight in item.parameters()) for item in (model, smaller))
    assert fewer < 0.4 * count
    widths = {name: dict(smaller.named_parameters())[f"{name}.weight"].shape[0] for name in model.answering}
    assert widths == {"fine.sides": 4, "fine.scores": 8, "coarse.sides": 4, "coarse.scores": 8}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return build_model(ShortDetection(), tmp_path_factory.mktemp("detection")).manifest


@pytest.mark.timeout(1800)  # the build is made here
def test_a_detector_is_built_whole(built: ModelManifest) -> None:
    assert [variant.name for variant in built.variants] == ["full", "quantized", "distilled", "distilled-quantized"]
    assert (built.task, built.outputs[0].shape, built.cascades) == ("detection", (-1, 12, 80), ())
    assert built.scoring == Detection.scoring.form
    for variant in built.variants:
        assert set(variant.accuracy.beside) == {"mAP@0.5", "mAP@0.5:0.95"}
        assert variant.reference.confidence is None
        assert variant.drift is not None
        assert variant.drift.agreement == "detection"
        assert (variant.drift.allowed is None) == (variant.name == "full")
    headings = [str(column.header) for column in getattr(draw_table(built, 400)[0], "columns", ())]
    assert "mAP@0.5" in headings


def test_a_detector_without_objectives_is_told_which_it_needs() -> None:
    class Without:
        name, scoring = "mine", Detection.scoring

    with pytest.raises(RecipeError, match=r"'mine' answers boxes and has no objectives.*BoxObjectives"):
        objectives_of(Without())  # type: ignore[arg-type]  # nothing else of a recipe is asked for
