"""The one loop that fits weights, for training, fine-tuning and distillation alike.

Stochastic gradient descent with Nesterov momentum 0.9 under a one-cycle learning rate (Smith and Topin 2018,
"Super-Convergence"): the rate climbs for a quarter of the steps to its peak and falls to nearly nothing, which on small
data reaches in a dozen passes what a constant rate does in fifty. Rows are visited in shuffled passes; a pass's rest
that does not fill a batch joins the next pass, so that every step sees a full batch and batch norm is never fed one
row. The loop works on a copy: the model passed in is not changed.

Wrong for: very deep transformers (they want Adam and a warm-up in thousands of steps), or data that does not fit in
memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from variants.determinism import deterministic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.losses import Objective
    from variants.recipe import Training

    Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn from: ``inputs`` (N, ...), ``labels`` (N,), perhaps a teacher's logits (N, classes), and the loss.

    ``augment`` varies each batch anew; leave it ``None`` where ``teacher`` holds answers to exactly these rows.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    objective: Objective
    teacher: torch.Tensor | None = None
    augment: Augment | None = None


def fit(
    model: torch.nn.Module, lesson: Lesson, training: Training, seed: int, advance: Callable[[], None]
) -> torch.nn.Module:
    """Return a fitted copy of ``model`` in evaluation mode; ``advance`` is called after each step."""
    student = _lay_out(copy.deepcopy(model), torch.channels_last).train()
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=training.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=training.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps, pct_start=0.25
    )
    with deterministic(seed) as generator:
        for rows in _batches(len(lesson.labels), training, generator):
            optimizer.zero_grad()
            torch.autograd.backward(_loss(student, lesson, rows, generator))
            optimizer.step()
            schedule.step()
            advance()
    return _lay_out(student, torch.contiguous_format).eval()


def _lay_out(model: torch.nn.Module, form: torch.memory_format) -> torch.nn.Module:
    """Return ``model`` with its weights in another memory layout; convolutions on CPUs prefer channels last."""
    return model.to(memory_format=form)  # type: ignore[call-overload, no-any-return]  # missing from torch's stubs


def _loss(model: torch.nn.Module, lesson: Lesson, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    inputs = lesson.inputs[rows]  # (batch, ...)
    if lesson.augment is not None:
        inputs = lesson.augment(inputs, generator)
    teacher = None if lesson.teacher is None else lesson.teacher[rows]  # (batch, classes)
    return lesson.objective(model(inputs), lesson.labels[rows], teacher)


def _batches(rows: int, training: Training, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield ``training.steps`` full batches of row numbers from endless shuffled passes."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(training.steps):
        while len(queue) < training.batch_size:
            queue = torch.cat([queue, torch.randperm(rows, generator=generator)])
        yield queue[: training.batch_size]
        queue = queue[training.batch_size :]
