"""Text as numbers without a vocabulary: each token is a hash of three neighbouring characters.

::

    text      fold: Unicode NFC, runs of white space to one space, lower case; then "^" before and "$" after
    token     2 + CRC-32 of the UTF-8 bytes of three neighbouring characters, modulo (buckets - 2)
    row       1, the tokens from the left as far as they fit, and 0 in the places that are left

A model with such tokens needs no file beside it: three numbers in its manifest (``length``, ``buckets``, ``scheme``)
and the lines above are all that a client must know, and CRC-32 is in every language's library. Characters of all
scripts are alike to it. Two triples may share a number, which costs little while most buckets are rare (Weinberger et
al. 2009, "Feature Hashing"); words of one language that another writes alike cannot be told apart by any of it.
"""

from __future__ import annotations

import unicodedata
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.recipe import Inputs

PADDING: Final = 0
START: Final = 1
RESERVED: Final = 2
SIZE: Final = 3


@dataclass(frozen=True, slots=True)
class Trigrams:
    """How a text becomes a row: ``length`` tokens below ``buckets``."""

    length: int
    buckets: int
    scheme: str = "character trigrams, CRC-32"

    def encode(self, texts: Sequence[str]) -> Inputs:
        """Return a row (length,) of int64 token numbers for each text."""
        rows = np.full((len(texts), self.length), PADDING, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = self._tokens(text)
            row[: len(tokens)] = tokens
        return rows

    def _tokens(self, text: str) -> list[int]:
        whole = f"^{fold(text)}$"
        starts = range(min(len(whole) - SIZE + 1, self.length - 1))
        modulus = self.buckets - RESERVED
        return [START, *(RESERVED + zlib.crc32(whole[at : at + SIZE].encode()) % modulus for at in starts)]


def fold(text: str) -> str:
    """Return the form in which texts are compared and cut up."""
    return unicodedata.normalize("NFC", " ".join(text.split())).lower()
