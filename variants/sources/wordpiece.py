"""The tokens of the BERT family: words, and pieces of words where the vocabulary lacks one.

As published (Devlin et al. 2019; the pieces after Wu et al. 2016): control characters are dropped, Chinese characters
and punctuation stand alone, and an uncased vocabulary loses case and accents. Each word is cut from the left into the
longest pieces that ``vocab.txt`` knows, those after the first written ``##piece``; a word that cannot be cut is
``[UNK]``. A row is ``[CLS]``, the pieces as far as they fit, ``[SEP]``, and ``[PAD]`` in the places left.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from variants.recipe import Inputs

VOCABULARY: Final = "vocab.txt"
PADDING: Final = "[PAD]"
SPECIAL: Final = (PADDING, "[UNK]", "[CLS]", "[SEP]")
LONGEST_WORD: Final = 100
CHINESE: Final = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
SYMBOLS: Final = ((33, 47), (58, 64), (91, 96), (123, 126))
"""ASCII that counts as punctuation though Unicode calls some of it symbols."""


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary by token, and whether it has lower case alone."""

    vocabulary: Mapping[str, int]
    is_lower: bool

    def encode(self, texts: Sequence[str], length: int) -> Inputs:
        """Return a row (length,) of int64 token numbers for each text."""
        padding, _, start, end = (self.vocabulary[name] for name in SPECIAL)
        rows = np.full((len(texts), length), padding, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = [start, *self.tokens(text)[: length - 2], end]
            row[: len(tokens)] = tokens
        return rows

    def tokens(self, text: str) -> list[int]:
        """Return the numbers of a text's pieces."""
        return [number for word in self._words(text) for number in self._pieces(word)]

    def _words(self, text: str) -> Iterator[str]:
        for word in "".join(map(_spaced, text)).split():
            yield from _separate(_bare(word) if self.is_lower else word)

    def _pieces(self, word: str) -> list[int]:
        unknown, found, at = self.vocabulary[SPECIAL[1]], list[int](), 0
        if len(word) > LONGEST_WORD:
            return [unknown]
        while at < len(word):
            prefix = "##" if at else ""
            ends = (end for end in range(len(word), at, -1) if prefix + word[at:end] in self.vocabulary)
            end = next(ends, None)
            if end is None:
                return [unknown]
            found.append(self.vocabulary[prefix + word[at:end]])
            at = end
        return found


def read_wordpiece(folder: Path) -> WordPiece:
    """Return the tokeniser in a Hugging Face folder.

    Raises:
        RecipeError: It has no vocabulary of this kind.
    """
    path = folder / VOCABULARY
    try:
        words = path.read_text(encoding="utf-8").split("\n")
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read the vocabulary '{path}', by which texts become tokens: {error}") from error
    vocabulary = {word: number for number, word in enumerate(words) if word}
    missing = [name for name in SPECIAL if name not in vocabulary]
    if missing:
        raise RecipeError(f"'{path}' lacks {', '.join(missing)}; it is no vocabulary of BERT's kind")
    return WordPiece(vocabulary, bool(settings.get("do_lower_case", True)))


def read_texts(path: Path) -> tuple[list[str], list[str]]:
    """Return the texts of a UTF-8 file and their labels: a line for each, a tab between text and label.

    Lines without a tab are texts without a label, which is then empty.

    Raises:
        RecipeError: It cannot be read, or holds no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the texts in '{path}': {error}") from error
    if not lines:
        raise RecipeError(f"'{path}' holds no text; expected a line for each: the text, a tab, its label")
    cut = [line.rpartition("\t") if "\t" in line else (line, "", "") for line in lines]
    return [text.strip() for text, _, _ in cut], [label.strip() for _, _, label in cut]


def _spaced(letter: str) -> str:
    """Return a character as words are cut by it: nothing for control characters, Chinese ones between spaces."""
    code, kind = ord(letter), unicodedata.category(letter)
    if letter in "\t\n\r" or kind == "Zs":
        return " "
    if code in {0, 0xFFFD} or kind.startswith("C"):
        return ""
    return f" {letter} " if _within(code, CHINESE) else letter


def _bare(word: str) -> str:
    parts = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in parts if unicodedata.category(letter) != "Mn")


def _separate(word: str) -> Iterator[str]:
    """Yield a word's parts between punctuation, and each mark of it."""
    start = 0
    for at, letter in enumerate(word):
        if _within(ord(letter), SYMBOLS) or unicodedata.category(letter).startswith("P"):
            yield from (part for part in (word[start:at], letter) if part)
            start = at + 1
    if word[start:]:
        yield word[start:]


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= code <= high for low, high in ranges)
