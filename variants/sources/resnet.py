"""Residual networks in torchvision's layout, so that published weights fit them, at any width and input size.

He et al. 2016, "Deep Residual Learning for Image Recognition": a stem, four stages of residual blocks of which each
after the first halves the picture and doubles the channels, a mean over the picture, one linear layer. Parameters have
the names and shapes of torchvision's ``resnet18`` and ``resnet50`` (``conv1``, ``layer2.0.downsample.1``, ``fc``), so a
file of their weights loads as it is, and neither torchvision nor timm needs to be installed.

Two stems: ``published`` is the original's (7x7 with stride 2, then pooling: a 224x224 picture enters the first stage at
56x56); ``small`` only strides (5x5 with stride 2: 64x64 enters at 32x32), for at 16x16 accents are gone.

The last batch norm of each block starts at zero, so that a fresh block passes its input on unchanged (Goyal et al.
2017, section 5.1): deep ones learn sooner.
"""

from __future__ import annotations

import pickle  # for the name of an error only
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXPANSION: Final = 4
"""How many times wider than its middle a bottleneck's end is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Stages: ``blocks`` per stage at ``widths`` channels (times four where the block is a bottleneck)."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: Literal["basic", "bottleneck"] = "basic"
    stem: Literal["published", "small"] = "published"


RESNET18: Final = Shape((2, 2, 2, 2))
RESNET50: Final = Shape((3, 4, 6, 3), block="bottleneck")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = _way_around(inputs, width, stride)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, the last four times wider, and a way around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = _way_around(inputs, outputs, stride)
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, 4 * width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """A residual network that takes raw pictures; ``normalise`` brings their values to about zero mean, unit spread."""

    def __init__(self, shape: Shape, channels: int, classes: int, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        width = shape.widths[0]
        size = 7 if shape.stem == "published" else 5
        self.conv1, self.bn1 = nn.Conv2d(channels, width, size, 2, size // 2, bias=False), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if shape.stem == "published" else nn.Identity()
        self.stages = len(shape.widths)
        for stage, (count, stage_width) in enumerate(zip(shape.blocks, shape.widths, strict=True)):
            made = _stage(shape, width, (stage_width, count), 1 if stage == 0 else 2)
            self.add_module(f"layer{stage + 1}", made)
            width = stage_width * (EXPANSION if shape.block == "bottleneck" else 1)
        self.fc = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map raw pictures (N, channels, H, W) to logits (N, classes)."""
        x = self.normalise(image)  # (N, channels, H, W)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.fc(x.mean((2, 3)))  # (N, classes)
        return logits


class FixedScale(nn.Module):
    """Take 0..255 to 0..1, less ``mean``, over ``spread`` per channel, as published weights expect."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, mean: tuple[float, ...], spread: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("spread", 255.0 * torch.tensor(spread).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return (image - self.mean) / self.spread


def read_state(file: Path) -> Mapping[str, torch.Tensor]:
    """Return the weights that ``torch.save(model.state_dict(), file)`` wrote, without running code from the file.

    Raises:
        RecipeError: The file is not there, is damaged, or holds something else.
    """
    try:
        state: object = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RecipeError(f"cannot read weights from '{file}': {type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise RecipeError(f"'{file}' holds no state dictionary (names to tensors); save model.state_dict()")
    return state


def load_state(model: ResNet, state: Mapping[str, torch.Tensor]) -> None:
    """Load torchvision's or timm's weights of the same architecture; ``fc`` only where it has as many classes.

    Raises:
        RecipeError: They do not fit.
    """
    has_other_classes = "fc.weight" in state and len(state["fc.weight"]) != model.fc.out_features
    wanted = {name: value for name, value in model.state_dict().items() if not (has_other_classes and _is_head(name))}
    given = {name: value for name, value in state.items() if not (has_other_classes and _is_head(name))}
    misfits = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    misfits += [name for name in given if name not in wanted]
    if misfits:
        raise RecipeError(
            f"the weights do not fit this network: {len(misfits)} of {len(wanted)} differ, the first is "
            f"'{misfits[0]}'; they must be of the same architecture in torchvision's layout"
        )
    model.load_state_dict(given, strict=False)


def _is_head(name: str) -> bool:
    return name.startswith("fc.")


def _way_around(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stage(shape: Shape, inputs: int, size: tuple[int, int], stride: int) -> nn.Sequential:
    """Return the blocks of a stage of ``size`` (width, count), of which the first strides."""
    width, count = size
    make = BasicBlock if shape.block == "basic" else Bottleneck
    outputs = width if shape.block == "basic" else EXPANSION * width
    first: nn.Module = make(inputs, width, stride)
    return nn.Sequential(first, *(make(outputs, width, 1) for _ in range(count - 1)))
