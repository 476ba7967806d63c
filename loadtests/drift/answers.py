"""What every variant answers: to clean rows, to rows under each shift, and with its own weights damaged.

Answers are kept in one ``.npz`` for each model, so that the figures can be made again without running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.damage import flip_bits
from loadtests.drift.worlds import world_of
from variants.manifest import read_manifest
from variants.packed import unpack
from variants.runtime import run_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from variants.manifest import ModelManifest, VariantManifest

    Floats = NDArray[np.float32]
    Rows = NDArray[Any]
    Labels = NDArray[np.int64]

STRENGTHS: Final = (0.3, 0.6)
SEEDS: Final = (0, 1)
DROP: Final = 0.05
NEAR: Final = 0.015
"""A damage counts as a drop of five points if it lies this near."""
DROPS_OF_FULL: Final = ((DROP, NEAR), (0.2, 0.05), (0.5, 0.1))
"""Full is damaged in three degrees: drop, and how near."""
FULL: Final = "full"
_FORM: Final = 2
_TRIES: Final = 11
_FIRST_FLIPS: Final = 64
_FEWEST_DAMAGED: Final = 500


@dataclass(frozen=True, slots=True)
class Scene:
    """One condition: the true labels (rows,) and each variant's first output (rows, classes)."""

    name: str
    strength: float
    labels: Labels
    outputs: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Damage:
    """One variant with flipped bits: its output (rows, classes) to the rows that all damaged variants answered."""

    variant: str
    flips: int
    output: Floats


@dataclass(frozen=True, slots=True)
class Answers:
    """All conditions of one model; ``places`` are those of the clean rows that damaged variants answered."""

    manifest: ModelManifest
    clean: Scene
    shifted: tuple[Scene, ...]
    damaged: tuple[Damage, ...]
    places: Labels
    inputs: dict[str, Rows] = field(repr=False)

    def whole(self) -> Scene:
        """Return what all variants answer, undamaged, to the rows that damaged ones answered."""
        outputs = {name: output[self.places] for name, output in self.clean.outputs.items()}
        return Scene("clean", 0.0, self.clean.labels[self.places], outputs)


@dataclass(frozen=True, slots=True)
class Source:
    """A model's version folder, rows that no build has seen with their labels, and how many rows a condition takes."""

    folder: Path
    inputs: Rows
    labels: Labels
    rows: int


@dataclass(frozen=True, slots=True)
class Known:
    """Rows and their labels."""

    inputs: Rows
    labels: Labels


def gather(source: Source, kept: Path, note: Callable[[str], None]) -> Answers:
    """Return the answers, from ``kept`` where they are there already, of this build and these rows."""
    manifest = read_manifest(source.folder)
    key = f"{_FORM} {manifest.build_key} {len(source.labels)} {source.rows}"
    if _key_of(kept) != key:
        found: dict[str, Any] = dict(_run(source, manifest, note))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, key=np.array(key), **found)
    with np.load(kept) as stored:
        return _restore(manifest, {name: stored[name] for name in stored.files if name != "key"})


def _key_of(kept: Path) -> str:
    if not kept.exists():
        return ""
    with np.load(kept) as stored:
        return str(stored["key"]) if "key" in stored.files else ""


def _onnx(folder: Path, variant: VariantManifest) -> bytes:
    """Return the ONNX file that a variant's file is, or holds."""
    content = (folder / variant.file).read_bytes()
    return content if variant.unpacked is None else unpack(content, variant.unpacked.bytes)


def _run(source: Source, manifest: ModelManifest, note: Callable[[str], None]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every array under ``kind|condition|amount|what``."""
    files = {item.name: _onnx(source.folder, item) for item in manifest.published}
    chance = np.random.default_rng(0)
    clean = {name: run_logits(file, source.inputs) for name, file in files.items()}
    note(f"{manifest.model}: clean")
    yield "input|clean|0.0|", source.inputs
    yield from _scene("clean", 0.0, source.labels, clean)
    world = world_of(manifest, source.inputs)
    for shift, change in world.changes.items():
        for strength in STRENGTHS:
            places = chance.permutation(len(source.labels))[: source.rows]
            worse = change(places, strength, chance)
            yield f"input|{shift}|{strength}|", worse
            outputs = {name: run_logits(file, worse) for name, file in files.items()}
            yield from _scene(shift, strength, source.labels[places], outputs)
        note(f"{manifest.model}: {shift}")
    right = clean[FULL].argmax(1) == source.labels
    for shift, mix in world.mixes.items():
        for strength in STRENGTHS:
            places = mix(source.labels, right, strength, chance)[: source.rows]
            yield f"input|{shift}|{strength}|", source.inputs[places]
            outputs = {name: output[places] for name, output in clean.items()}
            yield from _scene(shift, strength, source.labels[places], outputs)
    places = chance.permutation(len(source.labels))[: max(source.rows, _FEWEST_DAMAGED)]
    yield "places|||", places
    known = Known(source.inputs[places], source.labels[places])
    for name, file in files.items():
        whole = float((clean[name][places].argmax(1) == known.labels).mean())
        for number, (seed, (drop, near)) in enumerate(
            product(SEEDS, DROPS_OF_FULL if name == FULL else DROPS_OF_FULL[:1])
        ):
            flips, output = _drop(file, seed, known, (whole - drop, near))
            note(f"{manifest.model}: {name} with {flips} bits flipped" if flips else f"{name}: no drop near {drop}")
            if flips:
                yield f"damage|{name}|{number}:{flips}|output", output


def _scene(name: str, strength: float, labels: Labels, outputs: dict[str, Floats]) -> Iterator[tuple[str, Rows]]:
    yield f"scene|{name}|{strength}|labels", labels
    yield from ((f"scene|{name}|{strength}|{variant}", output) for variant, output in outputs.items())


def _drop(file: bytes, seed: int, known: Known, wanted: tuple[float, float]) -> tuple[int, Floats]:
    """Return how many flips leave about the accuracy that is ``wanted``, and the answers; 0 if none do.

    ``wanted`` is an accuracy and how near to come; it is found by doubling and halving.
    """
    low, high, flips = 0, 0, _FIRST_FLIPS
    output: Floats = np.zeros((0, 0), dtype=np.float32)
    for _ in range(_TRIES):
        output = np.nan_to_num(run_logits(flip_bits(file, flips, seed), known.inputs), posinf=1e6, neginf=-1e6)
        found = float((output.argmax(1) == known.labels).mean())
        if abs(found - wanted[0]) <= wanted[1]:
            return flips, output
        low, high = (flips, high) if found > wanted[0] else (low, flips)
        flips = 4 * flips if high == 0 else (low + high) // 2
    return 0, output


def _restore(manifest: ModelManifest, arrays: dict[str, NDArray[Any]]) -> Answers:
    scenes: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    damaged: list[Damage] = []
    inputs: dict[str, Rows] = {}
    places = arrays.pop("places|||")
    for key, array in arrays.items():
        kind, name, amount, what = key.split("|")
        if kind == "input":
            inputs[f"{name}|{amount}"] = array
        elif kind == "damage":
            damaged.append(Damage(name, int(amount.split(":")[1]), array))
        else:
            scenes.setdefault((name, amount), {})[what] = array
    found = [
        Scene(name, float(amount), parts["labels"], {what: part for what, part in parts.items() if what != "labels"})
        for (name, amount), parts in scenes.items()
    ]
    clean = next(scene for scene in found if scene.name == "clean")
    return Answers(
        manifest, clean, tuple(scene for scene in found if scene is not clean), tuple(damaged), places, inputs
    )
