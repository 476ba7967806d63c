"""A published ResNet on a folder of photographs, such as ImageNet: the public original of ``images``.

It needs files that do not come with tiergate, so it is no bundled name but a class to fill in, in a file of your own::

    from variants.recipes.photographs import Photographs

    RECIPE = Photographs("/data/imagenet", weights="resnet50.pth")

``tiergate build that_file.py`` then fine-tunes the published weights for a few steps and builds every variant. Weights
are a file that ``torch.save(model.state_dict(), file)`` wrote from torchvision's or timm's ``resnet50``, or
``"torchvision"`` or ``"timm"``, which let that package (to be installed beside tiergate) download its own.

The folder holds ``train/CLASS/picture`` and ``val/CLASS/picture``. Of each class only some pictures are read, since
they are held in memory: ``train`` gives training and calibration, ``val`` gives validation and test.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from variants.errors import MissingPart, RecipeError
from variants.recipe import DataParts, Examples, Plan, Pruning, Quantization, Teaching, Thresholds, Training
from variants.sources.folders import class_names, read_pictures
from variants.sources.resnet import RESNET18, RESNET50, FixedScale, ResNet, Shape, load_state, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping

MEAN: Final = (0.485, 0.456, 0.406)
SPREAD: Final = (0.229, 0.224, 0.225)
STUDENT: Final = Shape((1, 1, 1, 1), (32, 64, 128, 256))
ARCHITECTURES: Final = {"resnet18": RESNET18, "resnet50": RESNET50}
PACKAGES: Final = ("torchvision", "timm")


@dataclass(frozen=True, slots=True)
class Portions:
    """How many pictures of each class go into each part."""

    train: int = 20
    calibration: int = 1
    validation: int = 2
    test: int = 10


class Photographs:
    """A recipe of the protocol for pictures under ``root``; ``architecture`` is ``resnet18`` or ``resnet50``."""

    name = "photographs"
    metric = "accuracy"
    input_name = "image"
    output_name = "logits"

    def __init__(
        self,
        root: str | Path,
        weights: str,
        architecture: str = "resnet50",
        side: int = 224,
        portions: Portions | None = None,
    ) -> None:
        self.root, self.dataset = Path(root), f"pictures in {Path(root).name}"
        self.labels = class_names(self.root / "train")
        self.input_shape = (3, side, side)
        if architecture not in ARCHITECTURES:
            raise RecipeError(f"architecture '{architecture}' is not known; allowed are {', '.join(ARCHITECTURES)}")
        self._side, self._shape, self._portions = side, ARCHITECTURES[architecture], portions or Portions()
        self._state = _find_state(weights, architecture)
        self.plan = replace(PLAN, starts_from=_digest(self._state))

    def load(self, seed: int) -> DataParts:
        """Read the chosen pictures; training and calibration, and validation and test, are cut from one choice each."""
        random, wanted = np.random.default_rng(seed), self._portions
        seen = read_pictures(self.root / "train", self._side, wanted.train + wanted.calibration, random)
        held = read_pictures(self.root / "val", self._side, wanted.validation + wanted.test, random)
        train, calibration = _cut(seen, len(self.labels), wanted.train)
        validation, test = _cut(held, len(self.labels), wanted.validation)
        return DataParts(train, calibration, validation, test)

    def make_model(self) -> torch.nn.Module:
        """Return the network with the published weights, its last layer fresh where the classes are others."""
        model = self._net(self._shape)
        load_state(model, self._state)
        return model

    def make_student(self) -> torch.nn.Module:
        """Return a net of one block per stage and half a ResNet-18's width."""
        return self._net(STUDENT)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Mirror every second picture and change its brightness by up to a fifth."""
        rows = (len(inputs), 1, 1, 1)
        mirrored = torch.where(torch.rand(rows, generator=generator) < 0.5, inputs.flip(3), inputs)  # noqa: PLR2004 - a coin
        return (mirrored * (0.8 + 0.4 * torch.rand(rows, generator=generator))).clamp(0.0, 255.0)

    def _net(self, shape: Shape) -> ResNet:
        return ResNet(shape, channels=3, classes=len(self.labels), normalise=FixedScale(MEAN, SPREAD))


PLAN: Final = Plan(
    training=Training(steps=200, batch_size=32, learning_rate=0.002, weight_decay=1e-4),
    teaching=Teaching(copies=1, temperature=2.0),
    pruning=Pruning(ratio=0.3, iterations=3, training=Training(steps=600, batch_size=32, learning_rate=0.01)),
    distillation=Training(steps=6000, batch_size=32, learning_rate=0.05),
    thresholds=Thresholds(min_full=0.5, max_loss=0.25, min_agreement=0.9),
    quantization=Quantization(methods=("minmax", "percentile"), max_kl=0.05, max_float_nodes=2),
)


def _cut(rows: Examples, classes: int, first: int) -> tuple[Examples, Examples]:
    """Return the first ``first`` rows of every class, and the others; ``rows`` are class by class."""
    is_first = np.arange(len(rows)) % (len(rows) // classes) < first
    return tuple(Examples(rows.inputs[part], rows.labels[part]) for part in (is_first, ~is_first))  # type: ignore[return-value]


def _find_state(weights: str, architecture: str) -> Mapping[str, torch.Tensor]:
    if weights not in PACKAGES:
        return read_state(Path(weights))
    try:
        package: Any = importlib.import_module("torchvision.models" if weights == "torchvision" else "timm")
    except ImportError:
        raise MissingPart(f"weights='{weights}' needs that package; pip install {weights}, or name a file") from None
    if weights == "torchvision":
        model = package.get_model(architecture, weights="DEFAULT")
    else:
        model = package.create_model(architecture, pretrained=True)
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
