"""The one loop that fits weights, for training, fine-tuning and distillation alike.

Stochastic gradient descent with Nesterov momentum 0.9, or AdamW (Loshchilov and Hutter 2019), under a one-cycle
learning rate (Smith and Topin 2018, "Super-Convergence"): the rate climbs for a quarter of the steps to its peak and
falls to nearly nothing, which on small data reaches in a dozen passes what a constant rate does in fifty. Rows are
visited in shuffled passes; a pass's rest that does not fill a batch joins the next pass, so that every step sees a full
batch and batch norm is never fed one row. The loop works on a copy: the model passed in is not changed.

A convolutional net needs few pixels to learn its first filters, so a training may see pictures at half the side for the
first of its steps (progressive learning: Tan and Le 2021, "EfficientNetV2"), and compute in bfloat16 on processors that
have it: together they took a ResNet-18's step at 64x64 from 15.8 to 2.8 ms a picture (two cores, AVX512-BF16).

Wrong for: very deep transformers (they want a warm-up in thousands of steps), or data that does not fit in memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from variants.determinism import computing_in, deterministic
from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from variants.knowledge import Guide, Guided
    from variants.losses import Objective
    from variants.plans import Training

    Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn from: ``inputs`` (N, ...), ``labels`` (N,), perhaps a teacher's logits (N, classes), and the loss.

    ``augment`` varies each batch anew; leave it ``None`` where ``teacher`` holds answers to exactly these rows, and
    ``guide`` perhaps its features.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    objective: Objective
    teacher: torch.Tensor | None = None
    augment: Augment | None = None
    guide: Guide | None = None


def fit(
    model: torch.nn.Module, lesson: Lesson, training: Training, seed: int, advance: Callable[[], None]
) -> torch.nn.Module:
    """Return a fitted copy of ``model`` in evaluation mode; ``advance`` is called after each step.

    Raises:
        RecipeError: Answers or loss are no finite numbers any more; what follows could only be lost.
    """
    student = _lay_out(copy.deepcopy(model), torch.channels_last).train()
    guided = _attach(lesson, student, seed)
    weights = [*_release(student, training), *_learning(guided)]
    optimizer = _make_optimizer(weights, training)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps, pct_start=0.25
    )
    with deterministic(seed) as generator:
        for step, rows in enumerate(_batches(len(lesson.labels), training, generator)):
            inputs = _take(lesson, rows, generator)  # (batch, ...)
            if step < training.coarse_share * training.steps:
                inputs = F.avg_pool2d(inputs, 2)  # (batch, channels, height / 2, width / 2)
            optimizer.zero_grad()
            with computing_in(training.precision):
                logits = student(inputs).float()  # (batch, classes)
            _check(logits, step, training)
            loss = _loss(logits, lesson, rows)
            if training.l1:
                loss = loss + training.l1 * torch.stack([weight.abs().sum() for weight in weights]).sum()
            if guided is not None:
                loss = loss + guided.loss(rows)
            _check(loss, step, training)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            advance()
    if guided is not None:
        guided.tap.close()
    return _lay_out(student, torch.contiguous_format).requires_grad_().eval()


def _check(values: torch.Tensor, step: int, training: Training) -> None:
    if not torch.isfinite(values).all():
        raise RecipeError(
            f"a training diverged: step {step + 1} of {training.steps} gives no finite numbers; lower its "
            f"learning_rate of {training.learning_rate:g}, or look for rows and labels that are no finite numbers"
        )


def _lay_out(model: torch.nn.Module, form: torch.memory_format) -> torch.nn.Module:
    """Return ``model`` with its weights in another memory layout; convolutions on CPUs prefer channels last."""
    return model.to(memory_format=form)  # type: ignore[call-overload, no-any-return]  # missing from torch's stubs


def _release(student: torch.nn.Module, training: Training) -> list[torch.nn.Parameter]:
    """Set the network to train as ``training`` says, and return the weights that may change.

    Raises:
        RecipeError: A module that should keep its weights does not exist.
    """
    if training.dropout is not None:
        for layer in student.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = training.dropout
    known = dict(student.named_modules())
    for name in training.frozen:
        if name not in known:
            raise RecipeError(f"a training freezes '{name}'; modules are {', '.join(filter(None, known))[:500]}")
        known[name].eval().requires_grad_(requires_grad=False)
    return [weight for weight in student.parameters() if weight.requires_grad]


def _attach(lesson: Lesson, student: torch.nn.Module, seed: int) -> Guided | None:
    if lesson.guide is None:
        return None
    with deterministic(seed):
        return lesson.guide.attach(student, lesson.inputs[:2])


def _learning(guided: Guided | None) -> Iterable[torch.nn.Parameter]:
    return () if guided is None else guided.regressors.parameters()


def _make_optimizer(weights: list[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    return torch.optim.SGD(weights, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)


def _take(lesson: Lesson, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    inputs = lesson.inputs[rows]  # (batch, ...)
    return inputs if lesson.augment is None else lesson.augment(inputs, generator)


def _loss(logits: torch.Tensor, lesson: Lesson, rows: torch.Tensor) -> torch.Tensor:
    teacher = None if lesson.teacher is None else lesson.teacher[rows]  # (batch, classes)
    return lesson.objective(logits, lesson.labels[rows], teacher)


def _batches(rows: int, training: Training, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield ``training.steps`` full batches of row numbers from endless shuffled passes."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(training.steps):
        while len(queue) < training.batch_size:
            queue = torch.cat([queue, torch.randperm(rows, generator=generator)])
        yield queue[: training.batch_size]
        queue = queue[training.batch_size :]
