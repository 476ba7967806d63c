"""A Hugging Face folder of a text classifier as a recipe: converted to ONNX, and from there as any given file.

Clients send token numbers, ``input_ids`` and ``attention_mask``, padded to one length. Rows to calibrate with and to
measure on are such arrays, or texts (``.tsv``, ``.txt``: a line for each, a tab between text and label), which become
tokens by the folder's own vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from variants.errors import RecipeError
from variants.parity import compare_outputs
from variants.runtime import run_logits
from variants.scoring import CLASSES
from variants.sources.arrays import LABELS, read_arrays
from variants.sources.bert import read_architecture, read_classifier
from variants.sources.given import read_given
from variants.sources.wordpiece import PADDING, read_texts, read_wordpiece
from variants.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from variants.sources.arrays import Arrays
    from variants.sources.bert import Architecture
    from variants.sources.given import GivenModel
    from variants.sources.models import Given

TOKENS: Final = "input_ids"
MASK: Final = "attention_mask"
COMPARED: Final = 64
TEXTS: Final = (".tsv", ".txt")
LENGTH: Final = "length"
LEAST: Final = 3


def read_folder(given: Given) -> GivenModel:
    """Return the recipe of a folder.

    Raises:
        RecipeError: The folder, or the rows, cannot be read or do not fit together.
    """
    shape = read_architecture(given.source)
    read = _reader(given, shape)
    length = _length(given, shape, read)
    model = read_classifier(given.source)
    tokens = torch.zeros(2, length, dtype=torch.int64)
    file = trace(model, [tokens, torch.ones_like(tokens)], [TOKENS, MASK], "logits")
    recipe = read_given(file, given, shape.labels, read)
    rows = recipe.rows[:COMPARED]
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(rows[name].copy()) for name in (TOKENS, MASK))).numpy()
    return replace(recipe, parity=compare_outputs(expected, run_logits(file, rows), CLASSES))


def _reader(given: Given, shape: Architecture) -> Callable[[Path], Arrays]:
    """Return what reads the arrays of a file, of texts too where some are given."""
    files = [path for path in (given.calibration, given.evaluate) if path is not None and path.suffix in TEXTS]
    if not files:
        return read_arrays
    tokeniser, fixed = read_wordpiece(given.source), given.fixed.get(LENGTH)
    if fixed is not None and not LEAST <= fixed <= shape.positions:
        raise RecipeError(f"--fix {LENGTH}={fixed}; '{given.source}' allows {LEAST} to {shape.positions} tokens")
    longest = max(len(tokeniser.tokens(text)) for path in files for text in read_texts(path)[0]) + 2
    length = fixed or min(longest, shape.positions)

    def read(path: Path) -> Arrays:
        if path.suffix not in TEXTS:
            return read_arrays(path)
        texts, labels = read_texts(path)
        tokens = tokeniser.encode(texts, length)
        mask = (tokens != tokeniser.vocabulary[PADDING]).astype(np.int64)
        return {TOKENS: tokens, MASK: mask} | ({LABELS: _numbers(labels, shape, path)} if all(labels) else {})

    return read


def _numbers(labels: list[str], shape: Architecture, path: Path) -> NDArray[np.int64]:
    """Return the classes of labels, which are names or numbers of the model's classes."""
    known = {str(number): number for number in range(len(shape.labels))}
    known |= {name.lower(): number for number, name in enumerate(shape.labels)}
    unknown = next((label for label in labels if label.lower() not in known), None)
    if unknown is not None:
        raise RecipeError(f"'{path}' has the label '{unknown}'; the model's classes are {', '.join(shape.labels)}")
    return np.array([known[label.lower()] for label in labels], dtype=np.int64)


def _length(given: Given, shape: Architecture, read: Callable[[Path], Arrays]) -> int:
    """Return the tokens of a row, once they are seen to be the model's."""
    wanted = f"arrays '{TOKENS}' and '{MASK}' int64[rows, length] (length at most {shape.positions})"
    if given.calibration is None:
        raise RecipeError(
            f"building '{given.source}' needs token numbers like those that clients will send: --calibration FILE.npz "
            f"with {wanted}, or a file of texts (.txt, .tsv); some hundreds of rows are well"
        )
    found = read(given.calibration).get(TOKENS)
    if found is None or found.ndim != 2 or not found.size or found.shape[1] > shape.positions:  # noqa: PLR2004 - a table
        has = f"no array '{TOKENS}'" if found is None else f"'{TOKENS}' of shape {list(found.shape)}"
        raise RecipeError(f"'{given.calibration}' has {has}; the model takes {wanted}")
    if not 0 <= found.min() <= found.max() < shape.words:
        raise RecipeError(
            f"'{given.calibration}' has tokens {found.min()}..{found.max()}; '{given.source}' knows "
            f"0..{shape.words - 1}: are they another tokeniser's?"
        )
    return int(found.shape[1])
