"""Rows for a model that has no recipe: arrays in an ``.npz`` or ``.npy`` file, held to what the model takes.

An ``.npz`` has one array for each input, called like the input, each with the rows along its first axis; a model with
one input may call it ``inputs``, as ``tiergate rows`` writes it. Labelled rows have an array ``labels`` besides. Floats
are converted to the input's width, nothing else is: what reaches the model must be what a client would send.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from variants.manifest import TensorInfo
    from variants.recipe import Inputs

    Arrays = Mapping[str, NDArray[Any]]

LABELS: Final = "labels"
INPUTS: Final = "inputs"
DTYPES: Final = {
    "BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "float32",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def wanted_arrays(inputs: Sequence[TensorInfo]) -> str:
    """Return what a file for these inputs has to hold, in words."""
    arrays = [f"'{item.name}' {DTYPES[item.datatype]}{_shape(item)}" for item in inputs]
    return ("an array " if len(arrays) == 1 else "arrays ") + ", ".join(arrays)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array of a file by name; an ``.npy`` file's is called ``inputs``.

    Raises:
        RecipeError: It cannot be read, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return {INPUTS: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except OSError as error:
        raise RecipeError(f"cannot read the rows in '{path}': {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error).splitlines()[0]
        raise RecipeError(
            f"'{path}' has no arrays of numbers to read ({reason}); write it with numpy.savez(file, name=array)"
        ) from error


def take_inputs(arrays: Arrays, inputs: Sequence[TensorInfo], path: Path) -> Inputs:
    """Return the rows for a model: a plain array for one input, a structured one for several.

    Raises:
        RecipeError: An array is absent, or has another type, shape or number of rows; or a number is not finite.
    """
    columns = {item.name: _check(_find(arrays, item, inputs, path), item, path) for item in inputs}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        rows = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise RecipeError(f"the arrays in '{path}' differ in rows: {rows}; row i of each belongs together")
    if len(columns) == 1:
        return next(iter(columns.values()))
    rows_of = next(iter(counts.values()))
    joined = np.zeros(rows_of, dtype=[(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    for name, column in columns.items():
        joined[name] = column
    return joined


def take_labels(arrays: Arrays, rows: int, path: Path) -> NDArray[Any]:
    """Return the labels (rows, ...), whole numbers as int64 and others as float32.

    Raises:
        RecipeError: There are none, as many as rows are wanted, or they are no numbers.
    """
    if LABELS not in arrays:
        raise RecipeError(
            f"'{path}' has no array '{LABELS}' beside {_names(arrays)}; what is right for each row goes there"
        )
    labels = arrays[LABELS]
    if labels.ndim == 0 or len(labels) != rows:
        raise RecipeError(f"'{path}' has {rows} rows and labels {list(labels.shape)}; expected one label for each row")
    if np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_:
        return labels.astype(np.int64)
    if np.issubdtype(labels.dtype, np.floating):
        return labels.astype(np.float32)
    raise RecipeError(f"the labels in '{path}' are {labels.dtype}; expected class numbers or values")


def _find(arrays: Arrays, item: TensorInfo, inputs: Sequence[TensorInfo], path: Path) -> NDArray[Any]:
    if item.name in arrays:
        return arrays[item.name]
    if len(inputs) == 1 and INPUTS in arrays:
        return arrays[INPUTS]
    raise RecipeError(
        f"'{path}' has no array '{item.name}', only {_names(arrays)}; the model takes {wanted_arrays(inputs)}"
    )


def _check(array: NDArray[Any], item: TensorInfo, path: Path) -> NDArray[Any]:
    wanted = np.dtype(DTYPES[item.datatype])
    here = f"the array for input '{item.name}' in '{path}'"
    if array.shape == item.shape[1:]:
        raise RecipeError(f"{here} has shape {list(array.shape)}, that of a single row; stack rows as {_shape(item)}")
    if array.shape[1:] != item.shape[1:] or array.ndim == 0:
        raise RecipeError(f"{here} has shape {list(array.shape)}; the model takes {_shape(item)}")
    both_real = np.issubdtype(array.dtype, np.floating) and np.issubdtype(wanted, np.floating)
    if array.dtype != wanted and not both_real:
        raise RecipeError(
            f"{here} is {array.dtype}; the model takes {wanted}: convert it, and scale it, as your clients will"
        )
    if both_real:
        broken = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        if len(broken):
            raise RecipeError(f"{here} has a value that is no finite number, at row {broken[0]}; leave such rows out")
    return np.ascontiguousarray(array, dtype=wanted)


def _shape(item: TensorInfo) -> str:
    return "[" + ", ".join(["rows", *map(str, item.shape[1:])]) + "]"


def _names(arrays: Arrays) -> str:
    return ", ".join(f"'{name}'" for name in arrays) or "nothing"
