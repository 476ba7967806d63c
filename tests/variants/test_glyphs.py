"""Painted glyphs: repeatable, balanced, distinct, in range; and the recipe made of them."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from variants.recipes.images import PART_ROWS, RECIPE
from variants.sources import glyphs
from variants.sources.glyphs import ALPHABET, FACES, SIDE, Difficulty, master, paint
from variants.sources.recipes import load_recipe

PLAIN = Difficulty(
    extent=(48.0, 48.0), turn=0.0, shear=0.0, stretch=0.0, shift=0.0, contrast=(200.0, 200.0), gradient=0.0,
    strokes=0, neighbours=0, blur=(0.0, 0.0), noise=(0.0, 0.0),
)  # fmt: skip


def test_a_picture_depends_on_seed_and_row_alone() -> None:
    few, many = paint(5, seed=7)[0], paint(9, seed=7)[0]
    assert (few == many[:5]).all()
    assert not any((ours == theirs).all() for ours, theirs in zip(few, paint(5, seed=8)[0], strict=True))


def test_labels_are_balanced_and_rows_of_a_class_differ() -> None:
    pictures, labels = paint(len(ALPHABET) + 3, seed=0)
    assert sorted(set(labels)) == list(range(len(ALPHABET)))
    assert np.bincount(labels).max() == 2
    assert not (pictures[0] == pictures[len(ALPHABET)]).all()


def test_pictures_have_the_promised_form_and_contrast() -> None:
    pictures, _ = paint(64, seed=1)
    assert pictures.shape == (64, SIDE, SIDE)
    assert pictures.dtype == np.uint8
    assert pictures.std(axis=(1, 2)).min() > 4, "none is blank"


def test_plain_pictures_show_ink_on_even_paper_in_the_middle() -> None:
    pictures, _ = paint(30, seed=2, difficulty=PLAIN)
    paper = pictures[:, 0, 0].astype(np.int64)
    for edge in (pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]):
        assert (edge == paper[:, None]).all()
    ink = np.abs(pictures.astype(np.int64) - paper[:, None, None]).max(axis=(1, 2))
    assert ink.min() >= 190, "the greys are 200 apart"


def test_noise_makes_a_picture_rougher() -> None:
    quiet, _ = paint(10, seed=3, difficulty=PLAIN)
    noisy, _ = paint(10, seed=3, difficulty=replace(PLAIN, noise=(20.0, 20.0)))
    assert np.abs(np.diff(noisy[:, 0].astype(np.int64))).mean() > 5
    assert np.abs(np.diff(quiet[:, 0].astype(np.int64))).mean() == 0


def test_every_class_is_a_character_of_its_own_in_every_face() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) > 200
    assert unicodedata.normalize("NFC", ALPHABET) == ALPHABET
    for face in range(len(FACES)):
        missing = bytes(glyphs._font(face).getmask("\U000fffff"))  # the box that stands for what a face lacks
        assert [character for label, character in enumerate(ALPHABET) if master(label, face).tobytes() == missing] == []


@pytest.mark.parametrize("face", range(len(FACES)))
def test_no_two_classes_look_alike_once_size_is_random(face: int) -> None:
    shapes = np.stack([_shape(label, face) for label in range(len(ALPHABET))])  # (classes, 576), unit length
    likeness = shapes @ shapes.T
    alike = [ALPHABET[i] + ALPHABET[j] for i, j in combinations(range(len(ALPHABET)), 2) if likeness[i, j] > 0.975]
    assert alike == []


def test_images_fits_the_protocol_and_its_parts_are_large_enough_for_a_verdict() -> None:
    recipe = load_recipe("images")
    assert PART_ROWS["test"] >= 4000
    assert len(recipe.labels) == len(ALPHABET)


def test_images_models_answer_for_every_class_and_the_student_is_smaller() -> None:
    pictures, _ = paint(2, seed=0)
    rows = torch.from_numpy(pictures[:, None].astype(np.float32))
    sizes = []
    for model in (RECIPE.make_model(), RECIPE.make_student()):
        assert model.eval()(rows).shape == (2, len(ALPHABET))
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert sizes[0] > 8 * sizes[1]


def test_images_answers_do_not_depend_on_brightness_or_contrast() -> None:
    rows = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 100
    model = RECIPE.make_student().eval()
    with torch.inference_mode():
        assert torch.allclose(model(rows), model(rows * 2 + 30), atol=1e-3)


def test_images_augment_keeps_form_and_range_and_is_drawn_from_the_generator() -> None:
    pictures, _ = paint(8, seed=5)
    rows = torch.from_numpy(pictures[:, None].astype(np.float32))
    first, again, other = (RECIPE.augment(rows, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == rows.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= float(first.min()) <= float(first.max()) <= 255


def _shape(label: int, face: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return a character scaled to 24 pixels, its proportions kept, as a vector of unit length."""
    mask = master(label, face)
    scale = 24 / max(mask.size)
    small = mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))))
    canvas = np.zeros((24, 24), dtype=np.float32)
    top, left = (24 - small.height) // 2, (24 - small.width) // 2
    canvas[top : top + small.height, left : left + small.width] = np.asarray(small, dtype=np.float32)
    vector = canvas.reshape(-1)
    return vector / np.linalg.norm(vector)
