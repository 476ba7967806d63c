"""Faults in texts, and texts found again by their tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadtests.drift.texts import TEXT_SHIFTS, TextsMissing, texts_of, tokens_of
from loadtests.drift.worlds import world_of
from variants.sources.names import read_names

MANIFEST: Any = SimpleNamespace(
    model="words",
    task="classification",
    recipe="text",
    labels=("de", "el"),
    recipe_parameters={"tokens": {"length": 12, "buckets": 997}},
)
TEXTS = ("österreichische schillinge", "república dominicana", "κεντρική αφρική", "hindi देवनागरी", "kap verde") * 40
WRITTEN = {
    "no accents": "osterreichische schillinge",
    "run together": "österreichischeschillinge",
    "a word twice": "österreichische schillinge schillinge",
    "cut off": "österr",
}


@pytest.mark.parametrize("name", TEXT_SHIFTS)
def test_a_stronger_fault_changes_more_texts_and_the_same_seed_the_same_ones(name: str) -> None:
    first, again, stronger = (
        TEXT_SHIFTS[name](TEXTS, strength, np.random.default_rng(0)) for strength in (0.3, 0.3, 1.0)
    )
    changed = [sum(a != b for a, b in zip(TEXTS, found, strict=True)) for found in (first, stronger)]
    assert first == again
    assert 0 < changed[0] <= changed[1]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_fault_leaves_of_a_text(name: str) -> None:
    assert TEXT_SHIFTS[name](TEXTS, 1.0, np.random.default_rng(0))[0] == WRITTEN[name]


def test_marks_that_are_vowels_stay() -> None:
    assert TEXT_SHIFTS["no accents"](TEXTS, 1.0, np.random.default_rng(0))[3] == "hindi देवनागरी"


def test_texts_are_found_by_their_tokens_and_changed_ones_become_tokens_again() -> None:
    names = [name for own in read_names(MANIFEST.labels).values() for name in own][::37]
    tokens = tokens_of(MANIFEST)
    rows = tokens.encode(names)
    assert np.array_equal(tokens.encode(texts_of(MANIFEST, rows)), rows)
    world = world_of(MANIFEST, rows)
    places = np.arange(0, len(rows), 2)
    worse = world.changes["cut off"](places, 1.0, np.random.default_rng(0))
    assert np.array_equal(worse, tokens.encode([name[:6] for name in texts_of(MANIFEST, rows[places])]))
    assert "language mix" in world.mixes


def test_rows_that_are_no_names_are_refused() -> None:
    with pytest.raises(TextsMissing, match="1 of 1 rows of model 'words'"):
        texts_of(MANIFEST, np.full((1, 12), 5, dtype=np.int64))
