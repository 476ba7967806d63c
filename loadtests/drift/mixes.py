"""Shifts of the mix: the rows stay as they are, and others of them come.

Each is a function of the rows' labels (rows,), of which rows a model answers rightly (rows,), of a strength 0..1 and of
a generator; it returns row numbers, as many as there are labels, drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Right = NDArray[np.bool_]
Mix = Callable[[Labels, Right, float, np.random.Generator], Labels]

_FAVOURED: Final = 50.0
_UNEVEN: Final = 2.0
_HARDER: Final = 4.0


def class_mix(labels: Labels, _: Right, strength: float, chance: np.random.Generator) -> Labels:
    """A tenth of the classes makes up most at strength 1."""
    classes = np.unique(labels)
    favoured = chance.choice(classes, max(1, len(classes) // 10), replace=False)
    return _draw(np.where(np.isin(labels, favoured), 1.0 + _FAVOURED * strength, 1.0), chance)


def few_classes(labels: Labels, _: Right, strength: float, chance: np.random.Generator) -> Labels:
    """Most classes come no more: a third stays at strength 0.3, a sixteenth at 0.6."""
    classes = np.unique(labels)
    kept = chance.choice(classes, max(2, round(len(classes) * (1.0 - strength) ** 3)), replace=False)
    return _draw(np.isin(labels, kept).astype(np.float64), chance)


def uneven_classes(labels: Labels, _: Right, strength: float, chance: np.random.Generator) -> Labels:
    """Some classes are common and most are rare, as Zipf's law has it with the exponent 2 at strength 1."""
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = (1.0 + chance.permutation(len(classes))) ** (-_UNEVEN * strength)
    return _draw((shares / counts)[place], chance)


def hard_classes(labels: Labels, right: Right, strength: float, chance: np.random.Generator) -> Labels:
    """The more often a class is mistaken, the more of it comes."""
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    mistaken = 1.0 - np.bincount(place, weights=right, minlength=len(classes)) / counts
    return _draw(np.exp(_HARDER * strength * mistaken)[place], chance)


def _draw(weights: NDArray[Any], chance: np.random.Generator) -> Labels:
    return np.asarray(chance.choice(len(weights), len(weights), p=weights / weights.sum()))
