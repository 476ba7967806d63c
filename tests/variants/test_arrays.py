"""Rows from a file fit the model, or the message says which array does not and what the model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from variants.errors import RecipeError
from variants.manifest import TensorInfo
from variants.sources.arrays import read_arrays, take_inputs, take_labels

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = (TensorInfo(name="image", datatype="FP32", shape=(-1, 2, 3)),)
PAIR = (
    TensorInfo(name="ids", datatype="INT64", shape=(-1, 4)),
    TensorInfo(name="mask", datatype="INT64", shape=(-1, 4)),
)
ROWS = np.zeros((5, 2, 3), dtype=np.float32)
IDS = np.arange(20, dtype=np.int64).reshape(5, 4)


def take(folder: Path, taken: tuple[TensorInfo, ...] = IMAGE, /, **arrays: Any) -> Any:  # noqa: ANN401 - numpy's savez
    path = folder / "rows.npz"
    np.savez(path, **arrays)
    return take_inputs(read_arrays(path), taken, path)


@pytest.mark.parametrize("name", ["image", "inputs"])
def test_the_rows_of_one_input_are_an_array(tmp_path: Path, name: str) -> None:
    rows = take(tmp_path, **{name: ROWS.astype(np.float64)})
    assert (rows.dtype, rows.shape) == (np.float32, ROWS.shape)


def test_the_rows_of_several_inputs_are_counted_and_cut_as_one(tmp_path: Path) -> None:
    rows = take(tmp_path, PAIR, ids=IDS, mask=IDS + 1)
    assert len(rows) == 5
    assert (rows[1:3]["mask"] == IDS[1:3] + 1).all()


@pytest.mark.parametrize(
    ("inputs", "arrays", "said"),
    [
        (IMAGE, {"picture": ROWS}, r"has no array 'image', only 'picture'; .* an array 'image' float32\[rows, 2, 3\]"),
        (IMAGE, {"image": ROWS[:, :1]}, r"has shape \[5, 1, 3\]; the model takes \[rows, 2, 3\]"),
        (IMAGE, {"image": ROWS[0]}, r"that of a single row; stack rows as \[rows, 2, 3\]"),
        (IMAGE, {"image": ROWS.astype(np.uint8)}, "is uint8; the model takes float32: convert it, and scale it"),
        (IMAGE, {"image": np.full_like(ROWS, np.nan)}, "no finite number, at row 0"),
        (PAIR, {"ids": IDS}, "has no array 'mask', only 'ids'"),
        (PAIR, {"ids": IDS, "mask": IDS[:4]}, "differ in rows: 'ids' 5, 'mask' 4"),
        (PAIR, {"ids": IDS, "mask": IDS.astype(np.float32)}, "input 'mask' .* is float32; the model takes int64"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, inputs: Any, arrays: Any, said: str) -> None:  # noqa: ANN401 - cases
    with pytest.raises(RecipeError, match=said):
        take(tmp_path, inputs, **arrays)


def test_a_file_without_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    with pytest.raises(RecipeError, match=r"cannot read the rows in .*rows\.npz': No such file"):
        read_arrays(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match="has no arrays of numbers to read"):
        read_arrays(path)
    np.savez(path, image=np.array([{}, {}], dtype=object))
    with pytest.raises(RecipeError, match="it holds Python objects"):
        read_arrays(path)


def test_labels_are_whole_numbers_or_values_one_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    assert take_labels({"labels": np.array([1, 0], dtype=np.uint8)}, 2, path).dtype == np.int64
    assert take_labels({"labels": np.array([0.5, 1.0])}, 2, path).dtype == np.float32
    for arrays, said in (
        ({"y": ROWS}, "has no array 'labels' beside 'y'"),
        ({"labels": IDS[0]}, r"has 5 rows and labels \[4\]"),
        ({"labels": np.array(["a"] * 5)}, "are <U1; expected class numbers or values"),
    ):
        with pytest.raises(RecipeError, match=said):
            take_labels(arrays, 5, path)
