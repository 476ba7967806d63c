"""Distillation: a small student learns from the full model's answers.

Two parts. ``ask_teacher`` asks the teacher once about several augmented copies of the training rows, and its answers
are kept; ``distil`` fits a student to them with the loss in ``variants.losses``.

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
    from collections.abc import Callable, Mapping, Sequence

    from variants.plans import ComputePrecision, Teaching, Training
    from variants.recipe import Examples, Taught

ROWS_AT_ONCE = 128


def vary(recipe: Taught, train: Examples, seed: int) -> tuple[torch.Tensor, ...]:
    """Return augmented copies of the rows of ``train`` (rows, ...), as many as the plan's teaching asks for."""
    originals = torch.from_numpy(train.inputs)  # (rows, ...)
    with deterministic(seed) as generator:
        return tuple(recipe.augment(originals, generator) for _ in range(recipe.plan.teaching.copies))


def ask_teacher(
    teacher: torch.nn.Module,
    copies: Sequence[torch.Tensor],
    teaching: Teaching,
    seed: int,
    advance: Callable[[], None],
) -> dict[str, torch.Tensor]:
    """Return the teacher's answers to ``copies`` of rows (rows, ...); ``advance`` is called after each.

    They are named: ``answers`` (copies * rows, classes), and ``features 0``, ... of the teacher's layers that the
    teaching names.
    """
    names = [] if teaching.features is None else [name for name, _ in teaching.features.pairs]
    tap, answers, features = Tap(teacher, names), list[torch.Tensor](), [list[torch.Tensor]() for _ in names]
    with deterministic(seed):
        for copy in copies:
            for rows in torch.split(copy, ROWS_AT_ONCE):
                answers.append(_answer(teacher, rows, teaching.precision))
                for name, kept in zip(names, features, strict=True):
                    kept.append(tap.seen[name].float().clone())
            advance()
    tap.close()
    return {"answers": torch.cat(answers)} | {f"features {at}": torch.cat(kept) for at, kept in enumerate(features)}


def make_lesson(recipe: Taught, train: Examples, seed: int, answers: Mapping[str, torch.Tensor]) -> Lesson:
    """Return what students learn from: the copies that ``vary`` makes with this seed, and ``ask_teacher``'s answers."""
    teaching = recipe.plan.teaching
    guide = None
    if teaching.features is not None:
        named = (answers[f"features {at}"] for at in range(len(teaching.features.pairs)))
        guide = Guide(teaching.features, tuple(named))
    return Lesson(
        inputs=torch.cat(vary(recipe, train, seed)),  # (copies * rows, ...)
        labels=torch.cat([torch.from_numpy(train.labels)] * teaching.copies),  # (copies * rows, ...)
        objective=objectives_of(recipe).taught(teaching),
        teacher=answers["answers"],  # (copies * rows, classes)
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
