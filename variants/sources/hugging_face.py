"""A Hugging Face folder of a text classifier as a recipe: converted to ONNX, and from there as any given file.

Texts are not read: clients send token numbers, so the rows to calibrate with are token numbers too, ``input_ids`` and
``attention_mask``, padded to the one length that clients will use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from variants.errors import RecipeError
from variants.parity import compare_outputs
from variants.runtime import run_logits
from variants.scoring import CLASSES
from variants.sources.arrays import read_arrays
from variants.sources.bert import read_architecture, read_classifier
from variants.sources.given import read_given
from variants.tracing import trace

if TYPE_CHECKING:
    from variants.sources.bert import Architecture
    from variants.sources.given import GivenModel
    from variants.sources.models import Given

TOKENS: Final = "input_ids"
MASK: Final = "attention_mask"
COMPARED: Final = 64


def read_folder(given: Given) -> GivenModel:
    """Return the recipe of a folder.

    Raises:
        RecipeError: The folder, or the rows, cannot be read or do not fit together.
    """
    shape = read_architecture(given.source)
    length = _length(given, shape)
    model = read_classifier(given.source)
    tokens = torch.zeros(2, length, dtype=torch.int64)
    file = trace(model, [tokens, torch.ones_like(tokens)], [TOKENS, MASK], "logits")
    recipe = read_given(file, given, shape.labels)
    rows = recipe.rows[:COMPARED]
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(rows[name].copy()) for name in (TOKENS, MASK))).numpy()
    return replace(recipe, parity=compare_outputs(expected, run_logits(file, rows), CLASSES))


def _length(given: Given, shape: Architecture) -> int:
    """Return the tokens of a row, once they are seen to be the model's."""
    wanted = f"arrays '{TOKENS}' and '{MASK}' int64[rows, length] (length at most {shape.positions})"
    if given.calibration is None:
        raise RecipeError(
            f"building '{given.source}' needs token numbers like those that clients will send: --calibration FILE.npz "
            f"with {wanted}; some hundreds of rows are well"
        )
    found = read_arrays(given.calibration).get(TOKENS)
    if found is None or found.ndim != 2 or not found.size or found.shape[1] > shape.positions:  # noqa: PLR2004 - a table
        has = f"no array '{TOKENS}'" if found is None else f"'{TOKENS}' of shape {list(found.shape)}"
        raise RecipeError(f"'{given.calibration}' has {has}; the model takes {wanted}")
    if not 0 <= found.min() <= found.max() < shape.words:
        raise RecipeError(
            f"'{given.calibration}' has tokens {found.min()}..{found.max()}; '{given.source}' knows "
            f"0..{shape.words - 1}: are they another tokeniser's?"
        )
    return int(found.shape[1])
