"""What can happen to the rows that a model gets: pictures or texts that change, and mixes of them that do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtests.drift import texts
from loadtests.drift.mixes import Mix, class_mix, few_classes, hard_classes, uneven_classes
from loadtests.drift.shifts import SHIFTS

if TYPE_CHECKING:
    from loadtests.drift.shifts import Shift
    from loadtests.drift.texts import TextShift
    from variants.manifest import ModelManifest

Rows = NDArray[Any]
Places = NDArray[np.int64]
Change = Callable[[Places, float, np.random.Generator], Rows]

_PICTURES: Final[dict[str, Mix]] = {"class mix": class_mix}
_TEXTS: Final[dict[str, Mix]] = {
    "language mix": class_mix,
    "few languages": few_classes,
    "common languages": uneven_classes,
    "hard languages": hard_classes,
}


_PICTURE_AXES: Final = 4
"""Rows, channels, height, width."""


class WorldUnknown(ValueError):
    """Nothing is known that could happen to a model's rows."""


@dataclass(frozen=True, slots=True)
class World:
    """A change makes the inputs of the rows at some places anew; a mix chooses places."""

    changes: Mapping[str, Change]
    mixes: Mapping[str, Mix]


def world_of(manifest: ModelManifest, inputs: Rows) -> World:
    """Return what can happen to a model whose rows (rows, ...) these are.

    Raises:
        TextsMissing: The model is one of texts, and a row of tokens came from none.
        WorldUnknown: The model tells no classes, or its rows are neither pictures nor texts.
    """
    if manifest.task != "classification" or (manifest.recipe != texts.RECIPE and inputs.ndim != _PICTURE_AXES):
        raise WorldUnknown(
            f"model '{manifest.model}' ({manifest.task}) takes rows of shape {list(inputs.shape[1:])}; this bench "
            f"knows what can happen to classifiers of pictures [channels, height, width], and to those of"
            f" the recipe '{texts.RECIPE}'"
        )
    if manifest.recipe != texts.RECIPE:
        return World({name: _of_pictures(shift, inputs) for name, shift in SHIFTS.items()}, _PICTURES)
    known, tokens = texts.texts_of(manifest, inputs), texts.tokens_of(manifest)

    def of_texts(shift: TextShift) -> Change:
        return lambda places, strength, chance: tokens.encode(
            shift([known[place] for place in places], strength, chance)
        )

    return World({name: of_texts(shift) for name, shift in texts.TEXT_SHIFTS.items()}, _TEXTS)


def _of_pictures(shift: Shift, inputs: Rows) -> Change:
    return lambda places, strength, chance: shift(inputs[places], strength, chance)
