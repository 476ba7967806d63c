"""Hashes of data, and the proof that its parts share no row.

A variant's accuracy means something only if no test row was seen before, so the build does not trust a recipe: it
hashes every row's input bytes and refuses parts that meet. Labels are left out of the row hash, since the same image
under two labels is still a leak.
"""

from __future__ import annotations

import hashlib
import io
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from variants.errors import RecipeError, naming_step
from variants.publication import write_whole
from variants.recipe import DataParts, Examples, is_taught
from variants.scoring import scoring_of

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import AnyRecipe, Inputs
    from variants.scoring import Scoring

TRAINABLE: Final = (np.float32, np.int64)


def hash_examples(examples: Examples) -> str:
    """Return the SHA-256 of a part: shapes, input bytes and labels, in order."""
    digest = hashlib.sha256()
    for array in (examples.inputs, examples.labels):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def row_hashes(inputs: Inputs) -> set[bytes]:
    """Return one digest for each distinct row of ``inputs`` (rows, ...)."""
    return {hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in inputs}


def load_parts(recipe: AnyRecipe, seed: int) -> DataParts:
    """Return the data of a recipe, held to the protocol.

    Raises:
        BuildError: The recipe's ``load`` fails, or its data breaks the protocol.
    """
    with naming_step("load data"):
        parts = recipe.load(seed)
        check_parts(parts, recipe)
    return parts


def write_rows(examples: Examples, file: Path) -> None:
    """Write a part as an ``.npz`` of two arrays, ``inputs`` as the model takes them and ``labels``."""
    buffer = io.BytesIO()
    np.savez(buffer, inputs=examples.inputs, labels=examples.labels)
    write_whole(file, buffer.getvalue())


def store_parts(parts: DataParts, folder: Path) -> None:
    """Write all parts below ``folder``, an array to a file, for ``map_parts``."""
    for name, part in parts.named().items():
        for kind, array in (("inputs", part.inputs), ("labels", part.labels)):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            write_whole(folder / f"{name}-{kind}.npy", buffer.getvalue())


def map_parts(folder: Path) -> DataParts:
    """Return the parts that ``store_parts`` wrote; processes that read them share one copy in memory."""

    def read(name: str, kind: str) -> Inputs:
        array: Inputs = np.load(folder / f"{name}-{kind}.npy", mmap_mode="c")
        return np.asarray(array)

    names = ("train", "calibration", "validation", "test")
    return DataParts(**{name: Examples(read(name, "inputs"), read(name, "labels")) for name in names})


def check_parts(parts: DataParts, recipe: AnyRecipe) -> None:
    """Hold a recipe's data to the protocol.

    Raises:
        RecipeError: A part is empty, of the wrong shape or type, has labels out of range, or shares rows with another.
    """
    named = parts.named()
    for name, part in named.items():
        if is_taught(recipe):
            _check_inputs(name, part, recipe.input_shape)
        if len(part) or name != "train":
            _check_labels(name, part, scoring_of(recipe), recipe.labels)
    hashes = {name: row_hashes(part.inputs) for name, part in named.items()}
    for left, right in combinations(hashes, 2):
        shared = len(hashes[left] & hashes[right])
        if shared:
            raise RecipeError(f"the {left} and {right} parts share {shared} rows; parts must be disjoint")


def _check_inputs(name: str, part: Examples, input_shape: tuple[int, ...]) -> None:
    if len(part) == 0 or part.inputs.shape != (len(part), *input_shape) or part.inputs.dtype not in TRAINABLE:
        raise RecipeError(
            f"the {name} part has inputs {part.inputs.dtype}{list(part.inputs.shape)} for {len(part)} labels; "
            f"expected float32 (or int64 tokens) {[len(part), *input_shape]} with at least one row"
        )


def _check_labels(name: str, part: Examples, scoring: Scoring, labels: tuple[str, ...]) -> None:
    if len(part) == 0 or len(part.inputs) != len(part):
        raise RecipeError(f"the {name} part has {len(part.inputs)} rows and {len(part)} labels; expected one for each")
    problem = scoring.problem(part.labels, labels)
    if problem:
        raise RecipeError(f"the {name} part has {problem}")
