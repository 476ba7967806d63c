"""Pictures in a folder per class, as ImageNet and many public sets are given out.

::

    ROOT/train/n01440764/n01440764_10026.JPEG
    ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG

A picture is made square as published models expect: its shorter side is scaled to 8/7 of the wanted one, and the middle
is cut out. Pictures are held in memory as float32, 600 KB each at 224x224, so a reader says how many of each class it
wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from variants.errors import RecipeError
from variants.recipe import Examples

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Floats

SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
SURROUND: Final = 8 / 7


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes in ``folder``, sorted; a class's place in this order is its label.

    Raises:
        RecipeError: There is no such folder, or no class in it.
    """
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())) if folder.is_dir() else ()
    if not names:
        raise RecipeError(f"'{folder}' has no folder per class with pictures in it")
    return names


def read_pictures(folder: Path, side: int, per_class: int, random: np.random.Generator) -> Examples:
    """Return ``per_class`` pictures of every class in ``folder``, chosen by ``random``, class by class.

    Inputs are (rows, 3, side, side), red, green and blue 0..255.

    Raises:
        RecipeError: A class has too few pictures, or a picture cannot be read.
    """
    inputs, labels = [], []
    for label, name in enumerate(class_names(folder)):
        files = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in SUFFIXES)
        if len(files) < per_class:
            raise RecipeError(f"class '{name}' in '{folder}' has {len(files)} pictures; {per_class} are wanted")
        inputs += [read_picture(files[number], side) for number in random.permutation(len(files))[:per_class]]
        labels += [label] * per_class
    return Examples(np.stack(inputs), np.array(labels, dtype=np.int64))


def read_picture(file: Path, side: int) -> Floats:
    """Return the middle of a picture, (3, side, side), values 0..255.

    Raises:
        RecipeError: The file is no picture that can be read.
    """
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise RecipeError(f"cannot read picture '{file}': {error}") from error
    scale = side * SURROUND / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    middle = resized.crop((left, top, left + side, top + side))
    return np.ascontiguousarray(np.asarray(middle, dtype=np.float32).transpose(2, 0, 1))
