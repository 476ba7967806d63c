"""Labelled inputs: what is sent, and what a right answer is.

From an ``.npz`` file with ``inputs`` (rows, ...) and ``labels`` (rows,), or the test part of the recipe that built the
model: rows that no variant was trained on, proven to be those by the manifest's hash. Without labels random values are
sent, and the report says nothing about correctness.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.clients.bodies import DTYPES
from loadtests.h2load import LoadError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from loadtests.plan import Target
    from variants.manifest import ModelManifest

_RANDOM_ROWS: Final = 256
_NUMBERS: Final = "biuf"
"""Kinds of numpy's types that become any of the protocol's."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Rows to send, their labels (``None`` where they are not known), and where they come from."""

    rows: NDArray[Any]  # (rows, *row_shape)
    labels: NDArray[np.int64] | None  # (rows,)
    source: str


def read_inputs(path: Path) -> Inputs:
    """Read an ``.npz`` file.

    Raises:
        LoadError: It cannot be read, or the arrays do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, labels = file["inputs"], file["labels"].astype(np.int64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise LoadError(f"inputs {path} cannot be read: {error}") from None
    if not len(rows) or labels.shape != (len(rows),):
        raise LoadError(f"inputs {path}: labels have shape {list(labels.shape)}; {len(rows)} rows need [{len(rows)}]")
    return Inputs(rows, labels, path.name)


def inputs_of_recipe(manifest: ModelManifest) -> Inputs:
    """Return the test part of the recipe that built a model.

    Raises:
        LoadError: The recipe is not here, or now gives other rows than those that the build tested on.
    """
    # Here, because recipes need the build's libraries, which a client of a gateway elsewhere has no use for.
    from variants.data import hash_examples  # noqa: PLC0415
    from variants.errors import BuildError  # noqa: PLC0415
    from variants.sources.recipes import load_recipe  # noqa: PLC0415

    try:
        test = load_recipe(manifest.recipe).load(manifest.seed).test
    except BuildError as error:
        raise LoadError(f"the rows that model '{manifest.model}' was tested on are not to be had: {error}") from None
    if hash_examples(test) != manifest.splits["test"].sha256:
        raise LoadError(
            f"recipe '{manifest.recipe}' with seed {manifest.seed} gives other test rows than those in the manifest of "
            f"model '{manifest.model}'; build it again, or give --inputs FILE.npz"
        )
    return Inputs(test.inputs, test.labels, f"test rows of recipe {manifest.recipe}, seed {manifest.seed}")


def random_inputs(target: Target, seed: int) -> Inputs:
    """Return rows of random values for a model whose labels nobody knows."""
    rng = np.random.default_rng([seed, 4])
    shape = (_RANDOM_ROWS, *(dim if dim > 0 else 1 for dim in target.row_shape))
    rows = rng.random(shape, np.float32) if target.datatype.startswith(("FP", "BF")) else rng.integers(0, 2, shape)
    return Inputs(rows, None, "random values")


def check_inputs(inputs: Inputs, target: Target) -> Inputs:
    """Return the inputs if the model takes them.

    Raises:
        LoadError: It does not.
    """
    if target.datatype not in DTYPES:
        raise LoadError(f"model '{target.model}' takes {target.datatype}; a load test can send {', '.join(DTYPES)}")
    if inputs.rows.dtype.kind not in _NUMBERS:
        raise LoadError(f"the inputs are of type {inputs.rows.dtype}; model '{target.model}' takes {target.datatype}")
    shape = inputs.rows.shape[1:]
    fits = len(shape) == len(target.row_shape) and all(
        want in (-1, have) for have, want in zip(shape, target.row_shape, strict=True)
    )
    if not fits:
        raise LoadError(
            f"the inputs' rows have shape {list(shape)}; model '{target.model}' takes {list(target.row_shape)}"
        )
    return inputs
