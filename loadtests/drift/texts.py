"""Faults to put into texts: how people write, and what machines on the way make of it.

Each is a function of texts, a strength 0..1 and a generator; what a text means, and so its label, stays. A model of
texts takes rows of token numbers, so that a fault needs the texts that the rows came from: for the recipe ``text`` they
are made again from its source, and found by their tokens. Letter case is not among the faults: tokens are made of
folded text, so that capitals change next to nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from variants.sources.names import read_names
from variants.sources.tokens import Trigrams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.manifest import ModelManifest

    Tokens = NDArray[np.int64]

Chance = np.random.Generator
TextShift = Callable[[Sequence[str], float, Chance], list[str]]

RECIPE: Final = "text"
_ALPHABETS: Final = ("LATIN", "GREEK", "CYRILLIC")
"""Scripts whose accents people leave out; elsewhere marks are vowels."""
_LOOK_ALIKES: Final = str.maketrans("aceopxyijsаеорсух", "асеорхуіјѕaeopcyx")  # noqa: RUF001 - that is the point
_SHORTEST: Final = 4


def _no_accents(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    """Plain letters for accented ones, as from a foreign keyboard."""
    return _some(texts, strength, chance, _plain)


def _typos(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    """Letters swapped with the next, left out or doubled."""
    return [_mistyped(text, 0.12 * strength, chance) for text in texts]


def _cut_off(texts: Sequence[str], strength: float, _: Chance) -> list[str]:
    """The first letters only, as a field that is too short leaves them."""
    longest = round(16 - 10 * strength)
    return [text[:longest] for text in texts]


def _run_together(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    return _some(texts, strength, chance, lambda text: text.replace(" ", ""))


def _numbered(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    """A number before the text, as in lists."""
    return _some(texts, strength, chance, lambda text: f"{chance.integers(1, 100)}. {text}")


def _look_alikes(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    """Letters of another script that look the same, as character recognition and spammers write them."""
    share = 0.3 * strength
    return ["".join(_swapped(letter, share, chance) for letter in text) for text in texts]


def _twice(texts: Sequence[str], strength: float, chance: Chance) -> list[str]:
    """One of the text's words again at its end."""
    return _some(texts, strength, chance, lambda text: f"{text} {text.split()[-1]}" if text.strip() else text)


TEXT_SHIFTS: Final[dict[str, TextShift]] = {
    "no accents": _no_accents,
    "typos": _typos,
    "cut off": _cut_off,
    "run together": _run_together,
    "numbered": _numbered,
    "look-alikes": _look_alikes,
    "a word twice": _twice,
}


class TextsMissing(ValueError):
    """Rows of tokens came from no text that is known."""


def tokens_of(manifest: ModelManifest) -> Trigrams:
    """Return how a model of the recipe ``text`` makes tokens of texts."""
    return Trigrams(**manifest.recipe_parameters["tokens"])


def texts_of(manifest: ModelManifest, rows: Tokens) -> list[str]:
    """Return the text that each row (rows, length) of tokens came from.

    Raises:
        TextsMissing: A row came from none.
    """
    names = [name for own in read_names(manifest.labels).values() for name in own]
    known = {row.tobytes(): name for row, name in zip(tokens_of(manifest).encode(names), names, strict=True)}
    found = [known.get(row.tobytes()) for row in rows]
    kept = [name for name in found if name is not None]
    if len(kept) < len(found):
        missing = len(found) - len(kept)
        raise TextsMissing(f"{missing} of {len(found)} rows of model '{manifest.model}' are no name of its languages")
    return kept


def _some(texts: Sequence[str], share: float, chance: Chance, change: Callable[[str], str]) -> list[str]:
    """Return the texts with ``share`` of them changed."""
    return [
        change(text) if is_hit else text for text, is_hit in zip(texts, chance.random(len(texts)) < share, strict=True)
    ]


def _plain(text: str) -> str:
    return "".join(_plain_letter(letter) for letter in unicodedata.normalize("NFC", text))


def _plain_letter(letter: str) -> str:
    has_accent = letter > "\x7f" and unicodedata.name(letter, "").startswith(_ALPHABETS)
    return unicodedata.normalize("NFD", letter)[0] if has_accent else letter


def _mistyped(text: str, share: float, chance: Chance) -> str:
    letters = list(text)
    for place in np.flatnonzero(chance.random(len(letters)) < share).tolist():
        kind = chance.integers(3)
        if kind == 0 and place + 1 < len(letters):
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
        elif kind == 1 and len(text) > _SHORTEST:
            letters[place] = ""
        else:
            letters[place] *= 2
    return "".join(letters)


def _swapped(letter: str, share: float, chance: Chance) -> str:
    return letter.translate(_LOOK_ALIKES) if chance.random() < share else letter
