"""Which test of the inputs sees which shift: windows of rows against the manifest's reference.

Beside the two tests that the gateway uses stand two that would need the reference rows themselves: the kernel
two-sample test (MMD, Gretton et al. 2012, a Gaussian kernel of median width on the standardised summaries, p by
permutation) and the energy distance on eight random projections. Both are given as many reference rows as the manifest
summarises, and ``MOST_HELD`` of them at most: they cost the square of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.references import input_reference_of, present, references_of
from service.policy.drift.classification import Classification
from service.policy.drift.distributions import compare, compare_summaries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from loadtests.drift.answers import Answers
    from service.domain.drift import InputReference, VariantReference

    Reals = NDArray[np.float64]

WINDOW: Final = 150
WINDOWS: Final = 12
LEVEL: Final = 0.01
PERMUTATIONS: Final = 120
MOST_HELD: Final = 450
PROJECTIONS: Final = 8


def run_comparison(models: Mapping[str, Answers]) -> dict[str, Any]:
    """Return for each model, condition and test the share of windows that it calls different at ``LEVEL``."""
    return {name: _shares(answers) for name, answers in models.items()}


def _shares(answers: Answers) -> dict[str, dict[str, float]]:
    reference = present(input_reference_of(answers.manifest), "reference of its input")
    chance = np.random.default_rng(5)
    clean = answers.clean.summaries
    held = clean[chance.permutation(len(clean))[: min(reference.rows, MOST_HELD)]]
    full = references_of(answers.manifest)["full"]
    found = {"clean": _powers((reference, full), held, clean, (chance, answers.clean.outputs["full"]))}
    for scene in answers.shifted:
        rest = chance, scene.outputs["full"]
        found[f"{scene.name} {scene.strength}"] = _powers((reference, full), held, scene.summaries, rest)
    return found


def _powers(
    known: tuple[InputReference, VariantReference],
    held: Reals,
    rows: Reals,
    rest: tuple[np.random.Generator, NDArray[np.float32]],
) -> dict[str, float]:
    chance, outputs = rest
    odds = Classification().log_odds([outputs])
    hits = dict.fromkeys(("T2", "KS of distances", "MMD", "energy", "confidence PSI", "confidence KS"), 0)
    for _ in range(WINDOWS):
        chosen = chance.choice(len(rows), min(WINDOW, len(rows)), replace=False)
        window = rows[chosen]
        inputs = compare_summaries(known[0], window)
        hits["T2"] += inputs.t2_p < LEVEL
        hits["KS of distances"] += inputs.ks_p < LEVEL
        mmd, energy = _permuted(held, window, chance)
        hits["MMD"] += mmd < LEVEL
        hits["energy"] += energy < LEVEL
        if known[1].log_odds is not None:
            confidence = compare(known[1].log_odds, odds[chosen])
            hits["confidence PSI"] += confidence.psi_p < LEVEL
            hits["confidence KS"] += confidence.ks_p < LEVEL
    return {name: count / WINDOWS for name, count in hits.items()}


def _permuted(held: Reals, window: Reals, chance: np.random.Generator) -> tuple[float, float]:
    """Return the p of MMD and of the energy distance, by permutation."""
    both = np.concatenate([held, window])
    scaled = (both - held.mean(0)) / np.maximum(held.std(0), 1e-9)
    lengths = np.square(scaled).sum(1)
    squares = np.maximum(lengths[:, None] + lengths[None] - 2.0 * (scaled @ scaled.T), 0.0)
    np.fill_diagonal(squares, 0.0)
    kernel = np.exp(-squares / np.median(squares[squares > 0.0]))
    projected = scaled @ chance.normal(size=(scaled.shape[1], PROJECTIONS))
    distance = sum(np.abs(line[:, None] - line[None]) for line in projected.T) / PROJECTIONS
    signs = np.full((PERMUTATIONS + 1, len(both)), -1.0 / len(window))
    for row in signs:
        row[chance.permutation(len(both))[: len(held)]] = 1.0 / len(held)
    signs[0] = -1.0 / len(window)
    signs[0, : len(held)] = 1.0 / len(held)
    found = [((signs @ table) * signs).sum(1) for table in (kernel, -distance)]
    return float((found[0][1:] >= found[0][0]).mean()), float((found[1][1:] >= found[1][0]).mean())
