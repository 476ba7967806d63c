"""What every variant answers: to clean rows, to rows under each shift, and with its own weights damaged.

Answers are kept in one ``.npz`` for each model, so that the figures can be made again without running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.damage import flip_bits
from loadtests.drift.shifts import SHIFTS, class_mix
from variants.manifest import read_manifest
from variants.packed import unpack
from variants.runtime import run_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from variants.manifest import ModelManifest, VariantManifest

    Floats = NDArray[np.float32]
    Labels = NDArray[np.int64]

STRENGTHS: Final = (0.3, 0.6)
CLASS_MIX: Final = "class mix"
SEEDS: Final = (0, 1)
DROP: Final = 0.05
NEAR: Final = 0.015
"""A damage counts as a drop of five points if it lies this near."""
_TRIES: Final = 11
_FIRST_FLIPS: Final = 64


@dataclass(frozen=True, slots=True)
class Scene:
    """One condition: the true labels (rows,) and each variant's first output (rows, classes)."""

    name: str
    strength: float
    labels: Labels
    outputs: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Damage:
    """One variant with flipped bits beside clean full, on the same rows."""

    variant: str
    flips: int
    labels: Labels
    full: Floats
    output: Floats


@dataclass(frozen=True, slots=True)
class Answers:
    """All conditions of one model."""

    manifest: ModelManifest
    clean: Scene
    shifted: tuple[Scene, ...]
    damaged: tuple[Damage, ...]
    inputs: dict[str, Floats] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A model's version folder, rows that no build has seen with their labels, and how many rows a condition takes."""

    folder: Path
    inputs: Floats
    labels: Labels
    rows: int


def gather(source: Source, kept: Path, note: Callable[[str], None]) -> Answers:
    """Return the answers, from ``kept`` where they are there already."""
    manifest = read_manifest(source.folder)
    if not kept.exists():
        found: dict[str, Any] = dict(_run(source, manifest, note))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
    with np.load(kept) as stored:
        return _restore(manifest, {name: stored[name] for name in stored.files})


def _onnx(folder: Path, variant: VariantManifest) -> bytes:
    """Return the ONNX file that a variant's file is, or holds."""
    content = (folder / variant.file).read_bytes()
    return content if variant.unpacked is None else unpack(content, variant.unpacked.bytes)


def _run(source: Source, manifest: ModelManifest, note: Callable[[str], None]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every array under ``kind|condition|strength|what``."""
    files = {item.name: _onnx(source.folder, item) for item in manifest.published}
    chance = np.random.default_rng(0)
    clean = {name: run_logits(file, source.inputs) for name, file in files.items()}
    note(f"{manifest.model}: clean")
    yield "scene|clean|0.0|labels", source.labels
    yield from ((f"scene|clean|0.0|{name}", output) for name, output in clean.items())
    for shift, change in SHIFTS.items():
        for strength in STRENGTHS:
            rows = chance.permutation(len(source.labels))[: source.rows]
            worse = change(source.inputs[rows], strength, chance)
            yield f"scene|{shift}|{strength}|labels", source.labels[rows]
            yield f"input|{shift}|{strength}|", worse
            yield from ((f"scene|{shift}|{strength}|{name}", run_logits(file, worse)) for name, file in files.items())
        note(f"{manifest.model}: {shift}")
    yield "input|clean|0.0|", source.inputs
    for strength in STRENGTHS:
        rows = class_mix(source.labels, strength, chance)[: source.rows]
        yield f"scene|{CLASS_MIX}|{strength}|labels", source.labels[rows]
        yield f"input|{CLASS_MIX}|{strength}|", source.inputs[rows]
        yield from ((f"scene|{CLASS_MIX}|{strength}|{name}", output[rows]) for name, output in clean.items())
    rows = chance.permutation(len(source.labels))[: max(source.rows, 500)]
    for name, file in files.items():
        for seed in SEEDS if name != "full" else ():
            right = float((clean[name][rows].argmax(1) == source.labels[rows]).mean())
            flips, output = _drop(file, seed, source.inputs[rows], source.labels[rows], right)
            note(f"{manifest.model}: {name} with {flips} bits flipped" if flips else f"{name}: no drop near {DROP}")
            if flips:
                yield f"damage|{name}|{flips}|labels", source.labels[rows]
                yield f"damage|{name}|{flips}|full", clean["full"][rows]
                yield f"damage|{name}|{flips}|output", output


def _drop(file: bytes, seed: int, inputs: Floats, labels: Labels, right: float) -> tuple[int, Floats]:
    """Return how many flips cost about ``DROP``, found by doubling and halving, and the answers; 0 if none do."""
    low, high, flips = 0, 0, _FIRST_FLIPS
    output: Floats = np.zeros((0, 0), dtype=np.float32)
    for _ in range(_TRIES):
        output = np.nan_to_num(run_logits(flip_bits(file, flips, seed), inputs), posinf=1e6, neginf=-1e6)
        lost = right - float((output.argmax(1) == labels).mean())
        if abs(lost - DROP) <= NEAR:
            return flips, output
        low, high = (flips, high) if lost < DROP else (low, flips)
        flips = 4 * flips if high == 0 else (low + high) // 2
    return 0, output


def _restore(manifest: ModelManifest, arrays: dict[str, NDArray[Any]]) -> Answers:
    scenes: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    damages: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    inputs: dict[str, Floats] = {}
    for key, array in arrays.items():
        kind, name, amount, what = key.split("|")
        if kind == "input":
            inputs[f"{name}|{amount}"] = array
        else:
            (scenes if kind == "scene" else damages).setdefault((name, amount), {})[what] = array
    found = [
        Scene(name, float(amount), parts["labels"], {what: part for what, part in parts.items() if what != "labels"})
        for (name, amount), parts in scenes.items()
    ]
    clean = next(scene for scene in found if scene.name == "clean")
    damaged = tuple(
        Damage(name, int(amount), parts["labels"], parts["full"], parts["output"])
        for (name, amount), parts in damages.items()
    )
    return Answers(manifest, clean, tuple(scene for scene in found if scene is not clean), damaged, inputs)
