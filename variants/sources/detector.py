"""A small detector of the YOLO family: one pass, no anchors, two scales, one tensor as the answer.

A backbone of residual blocks halves the picture four times; its last two maps, at strides 8 and 16, go down and up
again through a neck (top-down: Lin et al. 2017, "Feature pyramid networks"; bottom-up: Liu et al. 2018, "Path
aggregation network"), so that each scale knows of the other. At every place of both, one branch scores the classes and
another says how far the sides of the box are from the middle of the place (no anchors: Tian et al. 2019, "FCOS"; apart:
Ge et al. 2021, "YOLOX").

The answer is decoded inside the network, in float32 whatever the rest computes in, to YOLO's layout (rows, 4 + classes,
places): centre and size in pixels, scores 0..1; ``variants.boxes`` says more. A distance is ``stride * softplus``, so
that it is positive and a branch's output is of the size of one. ReLU takes the place of YOLO's SiLU, since a product
with a sigmoid does not stay in 8 bits. Suppression of what several places see alike is the client's, or the scorer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.sources.resnet import BasicBlock

STRIDES: Final = (8, 16)
RARE: Final = -4.0
"""The logit that scores begin with: nearly every place is empty (Lin et al. 2017, "Focal loss", section 4.1)."""


@dataclass(frozen=True, slots=True)
class Width:
    """Channels of the stem, of the maps at strides 4, 8 and 16, and of the neck and branches; blocks per map."""

    stem: int
    maps: tuple[int, int, int]
    neck: int
    blocks: int


def centres(side: int) -> torch.Tensor:
    """Return the middle and the stride of every place of a square picture, (3, places): x, y, stride, in pixels."""
    found = []
    for stride in STRIDES:
        middles = (torch.arange(side // stride) + 0.5) * stride
        down, right = torch.meshgrid(middles, middles, indexing="ij")
        found.append(torch.stack([right.flatten(), down.flatten(), torch.full((len(middles) ** 2,), float(stride))]))
    return torch.cat(found, dim=1)


def _layer(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Branches(nn.Module):
    """What is said at each place of one map: logits of classes, and distances in strides before softplus."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.score, self.scores = _layer(width, width), nn.Conv2d(width, classes, 1)
        self.side, self.sides = _layer(width, width), nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.scores.bias, RARE)  # type: ignore[arg-type]  # made with a bias

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (N, width, h, w) to (N, 4, h * w) and (N, classes, h * w)."""
        return self.sides(self.side(x)).flatten(2), self.scores(self.score(x)).flatten(2)


class Detector(nn.Module):
    """Takes grey pictures (N, 1, side, side) of any range of values."""

    places: torch.Tensor

    def __init__(self, width: Width, classes: int, side: int) -> None:
        super().__init__()
        low, middle, high = width.maps
        self.normalise = nn.InstanceNorm2d(1)
        self.stem = _layer(1, width.stem, 5, 2)
        self.low = self._stage(width.stem, low, width.blocks)
        self.middle = self._stage(low, middle, width.blocks)
        self.high = self._stage(middle, high, width.blocks)
        self.across, self.lateral = _layer(high, width.neck, 1), _layer(middle, width.neck, 1)
        self.down = _layer(2 * width.neck, width.neck)
        self.stride = _layer(width.neck, width.neck, 3, 2)
        self.up = _layer(2 * width.neck, width.neck)
        self.fine, self.coarse = Branches(width.neck, classes), Branches(width.neck, classes)
        self.register_buffer("places", centres(side), persistent=False)

    @property
    def answering(self) -> tuple[str, ...]:
        """The layers whose width is the answer's, which pruning leaves."""
        return tuple(f"{branch}.{layer}" for branch in ("fine", "coarse") for layer in ("sides", "scores"))

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(BasicBlock(inputs if not n else outputs, outputs, 1 if n else 2) for n in range(blocks)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (N, 4 + classes, places): centre x, y, width, height in pixels, then scores 0..1."""
        middle = self.middle(self.low(self.stem(self.normalise(image))))  # (N, middle, side / 8, side / 8)
        across = self.across(self.high(middle))  # (N, neck, side / 16, side / 16)
        fine = self.down(torch.cat([self.lateral(middle), F.interpolate(across, scale_factor=2.0)], dim=1))
        coarse = self.up(torch.cat([self.stride(fine), across], dim=1))
        said = [branches(part) for branches, part in ((self.fine, fine), (self.coarse, coarse))]
        sides, scores = (torch.cat(parts, dim=2).float() for parts in zip(*said, strict=True))
        return torch.cat([self._decode(sides), scores.sigmoid()], dim=1)

    def _decode(self, sides: torch.Tensor) -> torch.Tensor:
        """Return centres and sizes (N, 4, places) from left, top, right and bottom (N, 4, places)."""
        middles, stride = self.places[:2], self.places[2]
        far = F.softplus(sides) * stride
        return torch.cat([middles + (far[:, 2:] - far[:, :2]) * 0.5, far[:, :2] + far[:, 2:]], dim=1)
