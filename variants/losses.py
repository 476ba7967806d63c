"""The two losses that weights are fitted to.

Cross entropy with label smoothing e: the target gives ``1 - e`` to the label and spreads ``e`` over all classes, which
keeps a model on a thousand rows from growing ever more certain.

Distillation (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network")::

    p = softmax(teacher / T)        q = softmax(student / T)
    loss = w * T^2 * KL(p || q) + (1 - w) * cross_entropy(student, label)

The teacher's wrong classes carry what it knows about likeness (this 4 looks somewhat like a 9); the temperature T
makes that audible, and T^2 keeps the gradient's size the same whatever T is. The mean is over rows, the sum over
classes. It is of little use when the teacher is as wrong as the student, or when T is so high that the softened
answers become uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it


class Objective(Protocol):
    """Scores a batch."""

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the scalar loss of ``logits`` (N, classes) given ``labels`` (N,) and ``teacher`` (N, classes)."""
        ...


@dataclass(frozen=True, slots=True)
class LabelLoss:
    """Cross entropy with label smoothing; needs no teacher."""

    smoothing: float

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002 - the protocol's form
        """Return the mean loss over rows."""
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)


@dataclass(frozen=True, slots=True)
class DistillationLoss:
    """Softened Kullback-Leibler divergence to the teacher, mixed with the labels."""

    temperature: float
    weight: float

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss over rows; without a teacher's answers this is a mistake of the caller."""
        assert teacher is not None, "distillation needs the teacher's logits"  # noqa: S101 - our own invariant
        student_log = F.log_softmax(logits / self.temperature, dim=1)  # (N, classes)
        teacher_log = F.log_softmax(teacher / self.temperature, dim=1)  # (N, classes)
        divergence = F.kl_div(student_log, teacher_log, log_target=True, reduction="batchmean")
        soft = self.temperature**2 * divergence
        return self.weight * soft + (1.0 - self.weight) * F.cross_entropy(logits, labels)
