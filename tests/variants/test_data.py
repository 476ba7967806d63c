"""Splits are disjoint, stable and checked."""

from __future__ import annotations

import numpy as np
import pytest

from variants.data import check_parts, hash_examples, row_hashes
from variants.errors import RecipeError
from variants.recipe import DataParts, Examples
from variants.recipes.digits import RECIPE, Digits


class Numbers(Digits):
    input_shape = (1,)  # type: ignore[assignment]  # inferred from another shape
    labels = ("small", "large")


def examples(*values: float, label: int = 0) -> Examples:
    return Examples(np.array(values, dtype=np.float32)[:, None], np.full(len(values), label, dtype=np.int64))


def test_digits_parts_are_disjoint_and_of_the_promised_sizes() -> None:
    parts = RECIPE.load(0)
    check_parts(parts, RECIPE)
    assert {name: len(part) for name, part in parts.named().items()} == {
        "train": 977, "calibration": 120, "validation": 140, "test": 560
    }  # fmt: skip
    assert sum(len(row_hashes(part.inputs)) for part in parts.named().values()) == 1797


def test_digits_parts_hold_every_class_in_proportion() -> None:
    for part in RECIPE.load(0).named().values():
        counts = np.bincount(part.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.02 * len(part) + 3


def test_digits_parts_depend_on_the_seed_alone() -> None:
    first, again, other = RECIPE.load(0), RECIPE.load(0), RECIPE.load(1)
    assert hash_examples(first.test) == hash_examples(again.test)
    assert hash_examples(first.test) != hash_examples(other.test)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (DataParts(examples(1), examples(2), examples(3), examples(1)), "train and test parts share 1 rows"),
        (DataParts(examples(1), examples(2), examples(2, label=1), examples(4)), "calibration and validation"),
        (DataParts(examples(), examples(2), examples(3), examples(4)), "the train part has inputs"),
        (DataParts(examples(1), examples(2), examples(3), examples(4, label=9)), "labels 9..9; 2 labels allow 0..1"),
    ],
)
def test_parts_that_break_the_protocol_are_refused(parts: DataParts, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        check_parts(parts, Numbers())
