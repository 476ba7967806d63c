"""Distillation: a small student learns from the full model's answers.

Two parts. ``make_lesson`` asks the teacher once about several augmented copies of the training rows and keeps the
answers; ``distil`` fits a student to them with the loss in ``variants.losses``.

Asking once instead of at every step makes the teacher's cost the same however long the student trains; since the
teacher is many times larger, its answers would otherwise be most of the training's time. The student sees exactly the
rows that the teacher answered, never a fresh variation of them: teacher and student must look at the same picture
(Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent"). A dozen copies stand for
endless variation well enough on small data; with too few copies the student learns the copies by heart.

The pruned model is fine-tuned on the same lesson, so that what pruning took is given back by the model that had it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from variants.determinism import computing_in, deterministic
from variants.fitting import Lesson, fit
from variants.knowledge import Guide, Tap
from variants.losses import objectives_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.recipe import ComputePrecision, Examples, Taught, Training

ROWS_AT_ONCE = 128


def make_lesson(
    teacher: torch.nn.Module, recipe: Taught, train: Examples, seed: int, advance: Callable[[], None]
) -> Lesson:
    """Return the teacher's answers to augmented copies of ``train``; ``advance`` is called after each copy."""
    teaching = recipe.plan.teaching
    originals = torch.from_numpy(train.inputs)  # (rows, ...)
    inputs, answers = [], []
    names = [] if teaching.features is None else [name for name, _ in teaching.features.pairs]
    tap, features = Tap(teacher, names), [list[torch.Tensor]() for _ in names]
    with deterministic(seed) as generator:
        for _ in range(teaching.copies):
            copy = recipe.augment(originals, generator)  # (rows, ...)
            inputs.append(copy)
            for rows in torch.split(copy, ROWS_AT_ONCE):
                answers.append(_answer(teacher, rows, teaching.precision))
                for name, kept in zip(names, features, strict=True):
                    kept.append(tap.seen[name].float().clone())
            advance()
    tap.close()
    guide = None if teaching.features is None else Guide(teaching.features, tuple(map(torch.cat, features)))
    return Lesson(
        inputs=torch.cat(inputs),  # (copies * rows, ...)
        labels=torch.cat([torch.from_numpy(train.labels)] * teaching.copies),  # (copies * rows, ...)
        objective=objectives_of(recipe).taught(teaching),
        teacher=torch.cat(answers),  # (copies * rows, classes)
        guide=guide,
    )


def distil(
    make_student: Callable[[], torch.nn.Module],
    training: Training,
    lesson: Lesson,
    seed: int,
    advance: Callable[[], None],
) -> torch.nn.Module:
    """Return a fresh student fitted to ``lesson``; ``advance`` is called ``training.steps`` times."""
    with deterministic(seed):
        student = make_student()
    return fit(student, lesson, training, seed, advance)


def _answer(teacher: torch.nn.Module, inputs: torch.Tensor, precision: ComputePrecision) -> torch.Tensor:
    with torch.inference_mode(), computing_in(precision):
        answers: torch.Tensor = teacher(inputs)  # (rows, classes)
    return answers.float().clone()
