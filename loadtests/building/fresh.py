"""Accuracy on more rows than a build holds out, where pictures can be painted without end.

A fifth of a point needs more than ten thousand rows (paired, where two in a hundred differ). They are painted from a
seed that no build uses, and asked of the published files; what was right is kept in ``work`` by the file's digest, so
that an interrupted run goes on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.runtime import open_session, run_session
from variants.sources.glyphs import ALPHABET, paint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from loadtests.building.subjects import Subject

PAINTED: Final = "images"
"""The model whose data has no end."""
SEED: Final = 1_000_000
ROWS: Final = 60 * len(ALPHABET)


def answer_fresh(subject: Subject, work: Path, progress: Callable[[str], None], rows: int = ROWS) -> dict[str, Any]:
    """Return the count of fresh rows, and by variant how many it has right, lost against full and gained."""
    inputs, labels = _paint(work, rows)
    right = {}
    for variant in subject.timed:
        progress(f"{subject.manifest.model}: {variant.name} on {rows:,} fresh rows")
        kept = work / f"right-{rows}-{variant.sha256[:16]}.npy"
        if not kept.exists():
            session = open_session(subject.file(variant), len(os.sched_getaffinity(0)))
            np.save(kept, run_session(session, inputs).argmax(1) == labels)
        right[variant.name] = np.load(kept)
    return {"rows": rows, "variants": {name: compare(found, right["full"]) for name, found in right.items()}}


def compare(right: NDArray[np.bool_], full: NDArray[np.bool_]) -> dict[str, int]:
    """Return how many rows are right, and how many of full's are lost and gained, of the same rows (rows,)."""
    return {
        "right": int(right.sum()),
        "lost": int((full & ~right).sum()),
        "gained": int((right & ~full).sum()),
    }


def _paint(work: Path, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    kept = work / f"fresh-{rows}.npz"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        pictures, labels = paint(rows, SEED)
        np.savez(kept, pictures=pictures, labels=labels)
    with np.load(kept) as stored:
        return stored["pictures"][:, None].astype(np.float32), stored["labels"]
