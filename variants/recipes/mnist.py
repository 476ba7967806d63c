"""MNIST, the public original of ``digits``: 70,000 handwritten digits at 28x28, read from its published files.

It needs files that do not come with tiergate, so it is no bundled name but a class to fill in, in a file of your own::

    from variants.recipes.mnist import Mnist

    RECIPE = Mnist("/data/mnist")

The folder holds the four files under their published names, as they are or with ``.gz`` behind::

    train-images-idx3-ubyte   train-labels-idx1-ubyte   t10k-images-idx3-ubyte   t10k-labels-idx1-ubyte

**IDX** (LeCun, Cortes and Burges, "The MNIST database of handwritten digits") is a number of four bytes, two zeros, the
type (8: unsigned bytes) and how many dimensions follow; each dimension's length as a big-endian number of four bytes;
then the values, the last dimension running fastest. A file is read only as far as its head promises, so that a
compressed one cannot unfold without end.

The 10,000 rows of the published test part are the test rows. The published training part is cut by seed: calibration,
validation, and training, from which rows are left out that are held out too. Other sets in the same files do as well
(Fashion-MNIST, KMNIST, EMNIST's digits): ``labels`` names their classes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from variants.errors import RecipeError
from variants.recipe import DataParts, Examples, Pruning, Teaching, Thresholds, Training
from variants.recipes.digits import Digits, ResidualNet

if TYPE_CHECKING:
    from typing import BinaryIO

    import torch
    from numpy.typing import NDArray

    from variants.recipe import Classes

SIDE: Final = 28
GREY: Final = 16.0 / 255.0
"""From bytes to the scale of ``digits``, whose network and variations these are."""
CALIBRATION, VALIDATION = 500, 5_000
UNSIGNED_BYTES: Final = 8
MOST_VALUES: Final = 2**30
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


class ByteNet(ResidualNet):
    """The network of ``digits`` for grey values 0..255."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, 1, 28, 28) to logits (N, classes)."""
        return super().forward(image * GREY)


class Mnist(Digits):
    """A recipe of the protocol for the files in ``folder``; at most ``train_rows`` of them are trained on."""

    name = "mnist"
    dataset = "MNIST"
    input_shape = (1, SIDE, SIDE)
    plan = replace(
        Digits.plan,
        training=Training(steps=2500, learning_rate=0.02),
        teaching=Teaching(copies=1, temperature=3.0, weight=0.9),
        pruning=Pruning(ratio=0.5, iterations=3, training=Training(steps=400, learning_rate=0.01)),
        distillation=Training(steps=5000, learning_rate=0.05),
        thresholds=Thresholds(min_full=0.98, max_loss=0.03),
    )

    def __init__(self, folder: str | Path, labels: tuple[str, ...] = Digits.labels, train_rows: int = 54_000) -> None:
        self.folder, self.labels, self.train_rows = Path(folder), labels, train_rows

    def load(self, seed: int) -> DataParts:
        """Return the four parts; test rows are the published ones, whatever the seed."""
        seen, test = (self._read(part) for part in ("train", "t10k"))
        order = np.random.default_rng(seed).permutation(len(seen))
        held = CALIBRATION + VALIDATION
        if len(seen) <= held:
            raise RecipeError(f"'{self.folder}' has {len(seen)} training rows; more than {held} are wanted")
        calibration, validation, rest = np.split(order, [CALIBRATION, held])
        taken = set(_keys(test))
        parts = {
            name: _without(_take(seen, chosen), taken)
            for name, chosen in (("validation", validation), ("calibration", calibration), ("train", rest))
        }
        parts["train"] = _take(parts["train"], np.arange(min(self.train_rows, len(parts["train"]))))
        return DataParts(test=test, **parts)

    def make_model(self) -> ByteNet:
        """Return a residual network of 82 million multiply-accumulates."""
        return ByteNet((32, 64, 128), blocks=2, classes=len(self.labels))

    def make_student(self) -> ByteNet:
        """Return a student of a fortieth of that."""
        return ByteNet((8, 16), blocks=1, classes=len(self.labels))

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Vary each row as ``digits`` does; values stay in 0..255."""
        return super().augment(inputs * GREY, generator) / GREY

    def _read(self, part: str) -> Examples:
        images, labels = (_find(self.folder, f"{part}-{kind}") for kind in (IMAGES, LABELS))
        pixels, classes = read_idx(images, 3), read_idx(labels, 1).astype(np.int64)
        if pixels.shape[1:] != (SIDE, SIDE):
            raise RecipeError(f"'{images}' has pictures of {list(pixels.shape[1:])}; {SIDE}x{SIDE} are expected")
        if len(pixels) != len(classes):
            raise RecipeError(f"'{images}' has {len(pixels)} rows and '{labels}' {len(classes)}; they belong together")
        if len(classes) and classes.max() >= len(self.labels):
            raise RecipeError(f"'{labels}' has label {classes.max()}; there are {len(self.labels)} classes, from 0")
        return Examples(pixels.astype(np.float32)[:, None], classes)  # (rows, 1, 28, 28)


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the values of an IDX file of unsigned bytes, compressed or not.

    Raises:
        RecipeError: It cannot be read, or is no such file.
    """
    try:
        with _open(file) as opened:
            zero, kind, depth = struct.unpack(">HBB", opened.read(4))
            if zero or kind != UNSIGNED_BYTES or depth != dimensions:
                raise RecipeError(f"'{file}' is no IDX file of unsigned bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{depth}I", opened.read(4 * depth))
            wanted = math.prod(shape)
            if wanted > MOST_VALUES:
                raise RecipeError(f"'{file}' says that it has the shape {list(shape)}; at most {MOST_VALUES} values")
            content = opened.read(wanted)
            is_longer = bool(opened.read(1))  # at the end a packed file's checksum is held against what was read
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise RecipeError(f"cannot read '{file}': {error}") from error
    if len(content) != wanted or is_longer:
        had = f"has more than {wanted}" if is_longer else f"ends after {len(content)} of {wanted}"
        raise RecipeError(f"'{file}' {had} values, which its head says that it has")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    """Return a file under its published name, or as some archives have it, with a dot before ``idx``; also packed."""
    names = [f"{stem}{packed}" for stem in (name, name.replace("-idx", ".idx")) for packed in ("", ".gz")]
    found = next((folder / item for item in names if (folder / item).is_file()), None)
    if found is None:
        raise RecipeError(f"'{folder}' has no file {name}, or {name}.gz")
    return found


def _open(file: Path) -> BinaryIO | Any:  # noqa: ANN401 - gzip's file is another type that reads alike
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _take(rows: Examples, chosen: Classes) -> Examples:
    return Examples(rows.inputs[chosen], rows.labels[chosen])


def _keys(rows: Examples) -> list[bytes]:
    return [row.tobytes() for row in rows.inputs.astype(np.uint8)]


def _without(rows: Examples, taken: set[bytes]) -> Examples:
    """Return the rows that ``taken`` does not have, each once, and add them to it."""
    first = {key: place for place, key in reversed([*enumerate(_keys(rows))]) if key not in taken}
    taken.update(first)
    return _take(rows, np.sort(np.array([*first.values()], np.int64)))
