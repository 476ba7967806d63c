"""What is to know of a detector that was trained elsewhere, as Ultralytics' are: its answer's form, its classes' names.

Their ONNX files answer (rows, 4 + classes, places) from version 8 on, in pixels of the input, and keep the names of the
classes in their metadata, as Python writes a dict. They are made for a batch and a picture of any size by::

    yolo export model=yolo11n.pt format=onnx dynamic=True

Files of version 5 (places before scores, and one more score for "object"), and files that suppress inside, answer in
another form and are refused, and so are those whose answers go on after the classes (segments, poses, turned boxes).

Labels are in pixels too. YOLO's label files have shares of the picture's sides instead, which no box would ever match,
so that shares are refused where the model answers in pixels.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from variants.boxes import COORDINATES
from variants.errors import RecipeError
from variants.recipe import Examples
from variants.scoring import Boxes

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Floats

AXES: Final = 3
HIGHEST: Final = 1.001
"""A score of 16 bits may round a little above 1."""
LARGEST_SHARE: Final = 2.0
"""Of a box that a model answers in shares: one that reaches out of the picture."""
NAMES: Final = "names"


def check_boxes(answers: Floats, source: Path) -> Boxes:
    """Return what counts as right for ``answers`` (rows, ...), some of the model's.

    Raises:
        RecipeError: They are not in YOLO's layout.
    """
    shape = f"[{', '.join(['rows', *map(str, answers.shape[1:])])}]"
    wanted = "--boxes is for answers [rows, 4 + classes, places]: centre x, y, width, height, then a score per class"
    if answers.ndim != AXES or answers.shape[1] <= COORDINATES or answers.shape[1] > answers.shape[2]:
        raise RecipeError(
            f"'{source}' answers {shape}; {wanted}. A file that suppresses boxes itself is exported "
            "without (nms=False), one of YOLOv5's form by a newer Ultralytics"
        )
    scores = answers[:, COORDINATES:]
    if not np.isfinite(answers).all():
        raise RecipeError(f"'{source}' answers {shape} with values that are no finite numbers; {wanted}")
    if scores.min() < 0.0 or scores.max() > HIGHEST:
        raise RecipeError(
            f"'{source}' answers {shape} with scores {scores.min():.3g} to {scores.max():.3g}; {wanted}, and scores "
            "are 0 to 1: export them after the sigmoid, of a model that detects and nothing more"
        )
    return Boxes()


def with_boxes(labelled: Examples | None, answers: Floats, source: Path | None) -> Examples | None:
    """Return labelled rows with their boxes as float32, whichever numbers they were written in.

    Raises:
        RecipeError: The boxes are shares of the picture's sides, and ``answers`` (rows, 4 + classes, places) are not.
    """
    if labelled is None:
        return None
    labels = labelled.labels.astype(np.float32)
    if labels.ndim == AXES and labels[..., 1:].max(initial=-1.0) > 0.0:
        most, seen = float(labels[..., 1:].max()), float(answers[:, :COORDINATES].max())
        if most <= 1.0 and seen > LARGEST_SHARE:
            raise RecipeError(
                f"'{source}' has boxes whose coordinates are {most:.3g} at most, and the model answers up to "
                f"{seen:.4g}: they seem to be shares of the picture's sides, as in YOLO's label files; give pixels "
                "of the input: x and width times its width, y and height times its height"
            )
    return Examples(labelled.inputs, labels)


def read_class_names(file: bytes, classes: int) -> tuple[str, ...]:
    """Return the names in a file's metadata, or the classes' numbers where it has none for exactly these."""
    usual = tuple(map(str, range(classes)))
    text = next((entry.value for entry in onnx.load_from_string(file).metadata_props if entry.key == NAMES), "")
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return usual
    if not isinstance(names, dict) or sorted(map(str, names)) != sorted(usual) or len(set(names.values())) != classes:
        return usual
    return tuple(str(names[number]) for number in sorted(names, key=int))
