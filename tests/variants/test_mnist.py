"""MNIST's files: written as they are published, read as what they hold, and refused by name where they are not that."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from variants.data import load_parts
from variants.errors import RecipeError
from variants.recipe import Recipe
from variants.recipes import mnist
from variants.recipes.mnist import Mnist, read_idx
from variants.sources.recipes import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TRAIN, TEST = 40, 12


def idx(values: NDArray[np.uint8], kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The four files with few rows, the training ones compressed; the test rows stand in the training part too."""
    monkeypatch.setattr(mnist, "CALIBRATION", 5)
    monkeypatch.setattr(mnist, "VALIDATION", 7)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
    labels = (np.arange(TRAIN + TEST) % 10).astype(np.uint8)
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(pixels)),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels)),
        "t10k-images-idx3-ubyte": idx(pixels[TRAIN:]),
        "t10k-labels.idx1-ubyte": idx(labels[TRAIN:]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_published_files_make_a_recipe(folder: Path) -> None:
    (folder / "mine.py").write_text(f"from variants.recipes.mnist import Mnist\nRECIPE = Mnist({str(folder)!r})\n")
    recipe = load_recipe(str(folder / "mine.py"))
    assert isinstance(recipe, Recipe)
    parts = load_parts(recipe, 0).named()
    assert len(parts["test"]) == TEST
    assert sum(len(part) for name, part in parts.items() if name != "test") == TRAIN  # without those of the test part
    assert parts["test"].labels.tolist() == [number % 10 for number in range(TRAIN, TRAIN + TEST)]
    images = torch.from_numpy(parts["test"].inputs)
    assert (images.shape, float(images.max())) == ((TEST, 1, 28, 28), 255.0)
    for network in (recipe.make_model(), recipe.make_student()):
        assert network.eval()(images).shape == (TEST, 10)
    varied = recipe.augment(images, torch.Generator().manual_seed(0))
    assert varied.shape == images.shape
    assert 0.0 <= float(varied.min()) < float(varied.max()) <= 255.0
    assert len(load_parts(Mnist(folder, train_rows=9), 0).train) == 9


def test_test_rows_do_not_depend_on_the_seed(folder: Path) -> None:
    one, other = (load_parts(Mnist(folder), seed) for seed in (0, 1))
    assert np.array_equal(one.test.inputs, other.test.inputs)
    assert not np.array_equal(one.validation.inputs, other.validation.inputs)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t10k-images-idx3-ubyte", b"\x89PNG\r\n", "'.*t10k-images-idx3-ubyte' is no IDX file"),
        ("t10k-images-idx3-ubyte", b"\0\0", "cannot read '.*t10k-images-idx3-ubyte'"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((TEST, 28, 28), np.uint8))[:-1], "ends after 9407 of 9408 values"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((TEST, 28, 28), np.uint8)) + b"x", "has more than 9408 values"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((TEST, 32, 32), np.uint8)), r"pictures of \[32, 32\]; 28x28"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((3, 28, 28), np.uint8)), "3 rows and .* 12; they belong together"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((TEST, 28, 28), np.uint8), kind=13), "is no IDX file of unsigned"),
        ("t10k-labels.idx1-ubyte", idx(np.full(TEST, 10, np.uint8)), "label 10; there are 10 classes"),
        # Without the time in it: it would be in the test's name, of which the suite's workers must make the same.
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)), mtime=0)[:-9],
            "cannot read",
        ),
        ("train-images-idx3-ubyte.gz", struct.pack(">HBB3I", 0, 8, 3, 2**31, 28, 28), "cannot read"),
    ],
)
def test_what_is_no_such_file_is_refused_by_name(folder: Path, name: str, content: bytes, says: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        Mnist(folder).load(0)


def test_a_head_that_promises_too_much_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**31, 28, 28)))
    with pytest.raises(RecipeError, match=f"at most {2**30} values"):
        read_idx(tmp_path / "bomb.gz", 3)


def test_an_absent_file_is_named(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(RecipeError, match="has no file train-labels-idx1-ubyte"):
        Mnist(folder).load(0)
