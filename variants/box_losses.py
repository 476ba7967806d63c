"""What a detector is fitted to: labelled boxes, and a teacher's answers place by place.

**Which place answers for which object** is decided anew in every step, by how well the detector does there already
(task-aligned assignment: Feng et al. 2021, "TOOD", as YOLOv8 has it). With s a place's score for the object's class and
u the overlap of its box with the object's::

    alignment = s^0.5 * u^6

and the ``TOPMOST`` places of greatest alignment whose middle lies in the object answer for it; a place that would
answer for two takes the one that it overlaps more. It should score t = alignment * (greatest u of the object) / (its
greatest alignment), and all other places and classes 0::

    loss = (sum of binary cross entropy of scores with t + 2.5 * sum of t (1 - GIoU)) / sum of t

GIoU (Rezatofighi et al. 2019) is the overlap less the share of the enclosing box that neither fills: it says where to
move even where nothing overlaps.

**From a teacher** the student learns what the teacher says at the same place: the teacher's scores are the targets of
the cross entropy (less its own entropy), and 1 - GIoU with the teacher's box is weighted by its greatest score there
(soft targets of detectors: Chen et al. 2017, "Learning efficient object detection models with knowledge distillation").
Teacher and student need the same places, so the same input size and strides.

It is little use where objects are smaller than a place, of which two can then fall into one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

if TYPE_CHECKING:
    from variants.losses import Objective
    from variants.plans import Teaching, Training

TOPMOST: Final = 6
BOX_WEIGHT: Final = 2.5
SCORE_POWER: Final = 0.5
OVERLAP_POWER: Final = 6.0
SMALLEST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class BoxLoss:
    """Loss of answers (N, 4 + classes, places) against labels (N, most, 5), ``weight`` parts of it against a teacher.

    ``middles`` are those of the places, (2, places).
    """

    middles: torch.Tensor
    weight: float = 0.0

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the loss for each object; without a teacher's answers the labels count alone."""
        alone = self._by_labels(outputs, labels)
        if teacher is None:
            return alone
        return self.weight * _by_teacher(outputs, teacher) + (1.0 - self.weight) * alone

    def _by_labels(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        boxes, scores = outputs[:, :4], outputs[:, 4:]
        with torch.no_grad():
            targets, wanted = assign(outputs, labels, self.middles)  # (N, classes, places), (N, 4, places)
        weights = targets.sum(1)  # (N, places)
        apart = 1.0 - generalised_overlap(boxes, wanted)
        entropy = F.binary_cross_entropy(scores, targets, reduction="sum")
        return (entropy + BOX_WEIGHT * (weights * apart).sum()) / weights.sum().clamp(min=1.0)


@dataclass(frozen=True, slots=True)
class BoxObjectives:
    """The objectives of detectors; ``middles`` are those of the places, (2, places)."""

    middles: torch.Tensor

    def alone(self, training: Training) -> Objective:  # noqa: ARG002 - the protocol's form
        """Return the loss of labels alone."""
        return BoxLoss(self.middles)

    def taught(self, teaching: Teaching) -> Objective:
        """Return the mixture with the teacher's answers."""
        return BoxLoss(self.middles, teaching.weight)


def assign(outputs: torch.Tensor, labels: torch.Tensor, middles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each place should score, (N, classes, places), and the box it answers for, (N, 4, places)."""
    classes = labels[..., 0].long()  # (N, most); -1 is none
    objects = labels[..., 1:].transpose(1, 2)  # (N, 4, most)
    shared = overlap(outputs[:, :4, None, :], objects[..., None])  # (N, most, places)
    scores = outputs[:, 4:].gather(1, classes.clamp(min=0)[..., None].expand(-1, -1, outputs.shape[2]))
    offsets = (middles[None, :, None, :] - objects[:, :2, :, None]).abs()  # (N, 2, most, places)
    is_inside = (offsets < 0.5 * objects[:, 2:, :, None]).all(1) & (classes >= 0)[..., None]
    alignment = scores**SCORE_POWER * shared**OVERLAP_POWER * is_inside + SMALLEST * is_inside
    least = alignment.topk(TOPMOST, dim=2).values[..., -1:]
    answers = is_inside & (alignment >= least)
    best = (shared + answers).argmax(1)  # (N, places): of the objects that a place answers for, the most overlapped
    answers &= F.one_hot(best, labels.shape[1]).transpose(1, 2).bool()
    alignment = alignment * answers
    greatest = (shared * answers).amax(2, keepdim=True)
    t = alignment * greatest / alignment.amax(2, keepdim=True).clamp(min=SMALLEST)  # (N, most, places)
    one_hot = F.one_hot(classes.clamp(min=0), outputs.shape[1] - 4).float()  # (N, most, classes)
    targets = torch.einsum("nmp,nmc->ncp", t, one_hot)
    wanted = objects.gather(2, best[:, None, :].expand(-1, 4, -1))
    return targets.clamp(max=1.0), wanted


def overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of boxes (N, 4, ...), centre and size, that broadcast."""
    shared, union, _ = _areas(first, second)
    return shared / union.clamp(min=SMALLEST)


def generalised_overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return GIoU, -1..1, of boxes (N, 4, ...) with others of the same shape."""
    shared, union, around = _areas(first, second)
    return shared / union.clamp(min=SMALLEST) - (around - union) / around.clamp(min=SMALLEST)


def _areas(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return intersection, union and enclosing box."""
    lows = [box[:, :2] - 0.5 * box[:, 2:] for box in (first, second)]
    highs = [box[:, :2] + 0.5 * box[:, 2:] for box in (first, second)]
    shared = (torch.minimum(*highs) - torch.maximum(*lows)).clamp(min=0.0).prod(1)
    around = (torch.maximum(*highs) - torch.minimum(*lows)).clamp(min=0.0).prod(1)
    return shared, first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared, around


def _by_teacher(outputs: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    wanted = teacher[:, 4:]
    sure = wanted.amax(1)  # (N, places)
    cross = F.binary_cross_entropy(outputs[:, 4:], wanted, reduction="sum")
    own = F.binary_cross_entropy(wanted, wanted, reduction="sum")  # what no student can get below
    apart = 1.0 - generalised_overlap(outputs[:, :4], teacher[:, :4])
    return (cross - own + BOX_WEIGHT * (sure * apart).sum()) / sure.sum().clamp(min=1.0)
