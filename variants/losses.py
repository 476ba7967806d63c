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

Values (regression) have no softness: the student is fitted to a mixture of the teacher's value and the label, by the
Huber loss of the error in units of the tolerance that the recipe scores by. Errors below one tolerance count by their
square, greater ones by their size, so that a few wild labels do not lead the fit (Huber 1964). The teacher's value is
worth more than the label where labels are noisy, as its error has been averaged over many rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from variants.errors import RecipeError
from variants.knowledge import answer_loss
from variants.scoring import Values, scoring_of

if TYPE_CHECKING:
    from variants.plans import Teaching, Training
    from variants.recipe import Taught


class Objective(Protocol):
    """Scores a batch."""

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None, /) -> torch.Tensor:
        """Return the scalar loss of ``outputs`` (N, ...) given ``labels`` (N, ...) and ``teacher`` (N, ...)."""
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


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """Huber loss of values (N, ...) in units of ``tolerance``, ``weight`` parts of it against the teacher's answers."""

    tolerance: float
    weight: float = 0.0

    def __call__(self, values: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss over rows; without a teacher's answers the labels count alone."""
        wanted = labels.reshape(values.shape)
        if teacher is None:
            return self._huber(values, wanted)
        return self.weight * self._huber(values, teacher) + (1.0 - self.weight) * self._huber(values, wanted)

    def _huber(self, values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(values / self.tolerance, wanted / self.tolerance)


class Objectives(Protocol):
    """What training minimises: alone, from labels, and taught, from a teacher's answers too."""

    def alone(self, training: Training) -> Objective:
        """Return the loss of the full model's training."""
        ...

    def taught(self, teaching: Teaching) -> Objective:
        """Return the loss of distillation and of fine-tuning after pruning."""
        ...


@dataclass(frozen=True, slots=True)
class ClassObjectives:
    """Cross entropy, and softened divergence."""

    def alone(self, training: Training) -> Objective:
        """Return cross entropy with the training's smoothing."""
        return LabelLoss(training.label_smoothing)

    def taught(self, teaching: Teaching) -> Objective:
        """Return the divergence to the teacher at its temperature, or the other loss that the teaching names."""
        if teaching.loss != "kd":
            return answer_loss(teaching)
        return DistillationLoss(teaching.temperature, teaching.weight)


@dataclass(frozen=True, slots=True)
class ValueObjectives:
    """The Huber loss, of labels and of the teacher's values."""

    tolerance: float

    def alone(self, training: Training) -> Objective:  # noqa: ARG002 - the protocol's form
        """Return the loss of labels alone."""
        return ValueLoss(self.tolerance)

    def taught(self, teaching: Teaching) -> Objective:
        """Return the mixture with the teacher's values."""
        return ValueLoss(self.tolerance, teaching.weight)


def objectives_of(recipe: Taught) -> Objectives:
    """Return what the training of a recipe minimises: its own ``objectives``, or those of its kind of answers.

    Raises:
        RecipeError: It is a detector and has none; they depend on its places.
    """
    scoring = scoring_of(recipe)
    if scoring.task == "detection" and not hasattr(recipe, "objectives"):
        raise RecipeError(
            f"recipe '{recipe.name}' answers boxes and has no objectives; give it those of a detector, with the "
            "middles of its places: objectives = BoxObjectives(middles) (see variants/box_losses.py)"
        )
    usual = ValueObjectives(scoring.tolerance) if isinstance(scoring, Values) else ClassObjectives()
    objectives: Objectives = getattr(recipe, "objectives", usual)
    return objectives
