"""What every variant answers: to clean rows, to rows under each shift, and with its own weights damaged."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.damage import Damaged, NoWeights
from loadtests.drift.kept import digest_of
from loadtests.drift.worlds import world_of
from service.policy.drift.summary import summarise
from variants.manifest import read_manifest
from variants.packed import unpack
from variants.runtime import run_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from loadtests.drift.kept import Kept
    from loadtests.drift.mixes import Mix
    from loadtests.drift.worlds import Change
    from variants.manifest import ModelManifest, VariantManifest

    Floats = NDArray[np.float32]
    Rows = NDArray[Any]
    Labels = NDArray[np.int64]
    Note = Callable[[str], None]
    Each = Callable[[Callable[[str], Floats], Iterable[str]], Iterable[Floats]]

STRENGTHS: Final = (0.3, 0.6)
SEEDS: Final = (0, 1)
DROP: Final = 0.05
NEAR: Final = 0.015
"""A damage counts as a drop of five points if it lies this near."""
DROPS_OF_FULL: Final = ((DROP, NEAR), (0.2, 0.05), (0.5, 0.1))
"""Full is damaged in three degrees: drop, and how near."""
CLEAN: Final = "clean"
FULL: Final = "full"
_FORM: Final = "4"
"""Changes where the same words would name another answer."""
_DAMAGED_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Scene:
    """One condition: summaries (rows, numbers) of the first input, labels (rows,), and each variant's first output.

    Outputs are (rows, classes).
    """

    name: str
    strength: float
    summaries: NDArray[np.float64] = field(repr=False)
    labels: Labels
    outputs: dict[str, Floats]

    def part(self, places: Labels, name: str, strength: float) -> Scene:
        """Return some of the rows as another condition."""
        outputs = {variant: output[places] for variant, output in self.outputs.items()}
        return Scene(name, strength, self.summaries[places], self.labels[places], outputs)


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

    def whole(self) -> Scene:
        """Return what all variants answer, undamaged, to the rows that damaged ones answered."""
        return self.clean.part(self.places, CLEAN, 0.0)


@dataclass(frozen=True, slots=True)
class Source:
    """A model's version folder, rows that no build has seen with their labels, and how many rows a condition takes."""

    folder: Path
    inputs: Rows
    labels: Labels
    rows: int


def gather(source: Source, kept: Kept, note: Note) -> Answers:
    """Return the answers, those that are kept as they are; a thread for each processor runs the rest.

    Raises:
        WorldUnknown: Nothing is known that could happen to the model's rows.
    """
    manifest = read_manifest(source.folder)
    world = world_of(manifest, source.inputs)
    asked = _Asked(source, manifest, kept, note)
    few = np.sort(_chance("places").permutation(len(source.labels))[:_DAMAGED_ROWS])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        clean = asked.answered(CLEAN, 0.0, (source.inputs, source.labels), pool.map)
        damages = pool.map(partial(asked.damaged, few, clean), product(clean.outputs, SEEDS))
        scenes = [*pool.map(partial(asked.changed, world.changes), product(world.changes, STRENGTHS))]
        scenes += [asked.mixed(world.mixes, clean, condition) for condition in product(world.mixes, STRENGTHS)]
        damaged = tuple(damage for found in damages for damage in found)
    kept.forget_the_rest()
    return Answers(manifest, clean, tuple(scenes), damaged, few)


@dataclass(slots=True)
class _Asked:
    """The variants of one model, and what they answered before."""

    source: Source
    manifest: ModelManifest
    kept: Kept
    note: Note
    files: Mapping[str, bytes] = field(init=False)
    digests: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Read the files."""
        published = self.manifest.published
        self.files = {item.name: _onnx(self.source.folder, item) for item in published}
        self.digests = {item.name: item.sha256 for item in published}

    def answered(self, name: str, strength: float, rows: tuple[Rows, Labels], each: Each = map) -> Scene:
        """Return what all variants answer to inputs with labels."""
        inputs, digest = rows[0], digest_of(rows[0])

        def run(variant: str) -> Floats:
            words = (_FORM, self.digests[variant], digest)
            return self.kept.array(words, lambda: run_logits(self.files[variant], inputs))

        outputs = dict(zip(self.files, each(run, self.files), strict=True))
        self.note(f"{self.manifest.model}: {name} {strength}")
        return Scene(name, strength, summarise(inputs), rows[1], outputs)

    def changed(self, changes: Mapping[str, Change], condition: tuple[str, float]) -> Scene:
        """Return what all variants answer to changed rows."""
        name, strength = condition
        chance = _chance(name, str(strength))
        places = chance.permutation(len(self.source.labels))[: self.source.rows]
        return self.answered(name, strength, (changes[name](places, strength, chance), self.source.labels[places]))

    def mixed(self, mixes: Mapping[str, Mix], clean: Scene, condition: tuple[str, float]) -> Scene:
        """Return what all variants answer to another mix of rows."""
        name, strength = condition
        right = clean.outputs[FULL].argmax(1) == clean.labels
        places = mixes[name](clean.labels, right, strength, _chance(name, str(strength)))
        return clean.part(places[: self.source.rows], name, strength)

    def damaged(self, places: Labels, clean: Scene, what: tuple[str, int]) -> list[Damage]:
        """Return one variant, damaged by one seed until its accuracy has fallen, once for each drop that can be."""
        name, seed = what
        inputs, labels = self.source.inputs[places], self.source.labels[places]
        claimed = float((clean.outputs[name][places].argmax(1) == labels).mean())
        words = (_FORM, self.digests[name], digest_of(inputs), digest_of(labels), str(seed))
        file, found = Damaged(self.files[name], seed, inputs, labels), []
        for drop, near in DROPS_OF_FULL if name == FULL else DROPS_OF_FULL[:1]:
            search = partial(_search, file, claimed - drop, near)
            flips = int(self.kept.array((*words, str(drop), str(near)), search)[0])
            words_of = f"with {flips} bits flipped" if flips else "by no damage that was found"
            self.note(f"{self.manifest.model}: {name} loses about {100 * drop:g} points {words_of}")
            if flips:
                output = self.kept.array((*words, str(flips)), partial(file.answers, flips))
                found.append(Damage(name, flips, output))
        return found


def _search(file: Damaged, accuracy: float, near: float) -> Labels:
    """Return how many flips leave about this accuracy, (1,); 0 where none do, or there are no weights to damage."""
    try:
        return np.array([file.flips_to(accuracy, near)])
    except NoWeights:
        return np.zeros(1, dtype=np.int64)


def _chance(*words: str) -> np.random.Generator:
    """Return the same chance for the same words, whatever else is drawn."""
    return np.random.default_rng([0, *(zlib.crc32(word.encode()) for word in words)])


def _onnx(folder: Path, variant: VariantManifest) -> bytes:
    """Return the ONNX file that a variant's file is, or holds."""
    content = (folder / variant.file).read_bytes()
    return content if variant.unpacked is None else unpack(content, variant.unpacked.bytes)
