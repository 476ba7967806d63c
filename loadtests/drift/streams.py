"""Streams of pairs, drawn with replacement from the answers of real models: clean, and with a fault from a known place.

Two kinds of fault of five points. *Damaged weights*: the pairs of a variant whose flipped bits cost it about five
points. *Wrong at random*: of clean pairs one in twenty gets a loss of 1 at unchanged confidence, the fault that no
confidence shows, as of a preprocessing that mixes rows up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.drift.answers import DROP, FULL
from service.policy.drift.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from loadtests.drift.answers import Answers
    from service.policy.drift.pairs import Pair

    Pairs = tuple[Pair, ...]

RANDOM: Final = "wrong at random"


@dataclass(frozen=True, slots=True)
class Fault:
    """A variant's pairs before and after a fault of about five points."""

    name: str
    variant: str
    clean: Pairs
    faulty: Pairs


def faults_of(answers: Answers, chance: np.random.Generator) -> list[Fault]:
    """Return every fault of a model."""
    outputs, full = answers.clean.outputs, answers.whole().outputs[FULL]
    found = []
    for variant in (name for name in outputs if name != FULL):
        clean = Classification().compare([outputs[FULL]], [outputs[variant]])
        found.append(Fault(RANDOM, variant, clean, _wrong(clean, chance)))
        for damage in (item for item in answers.damaged if item.variant == variant):
            faulty = Classification().compare([full], [damage.output])
            found.append(Fault(f"{damage.flips} bits flipped", variant, clean, faulty))
    return found


def draw(pairs: Pairs, chance: np.random.Generator) -> Iterator[Pair]:
    """Yield pairs without end."""
    while True:
        for place in chance.integers(0, len(pairs), 1000).tolist():
            yield pairs[place]


def _wrong(clean: Pairs, chance: np.random.Generator) -> Pairs:
    """Return the pairs many times over, so that a twentieth is a fine share of them."""
    many = clean * max(1, 5000 // len(clean))
    hit = chance.random(len(many)) < DROP
    return tuple(
        pair._replace(loss=1.0, distance=1.0) if is_hit else pair for pair, is_hit in zip(many, hit, strict=True)
    )
