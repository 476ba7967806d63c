"""What a student is fitted to beside softened answers."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from torch import nn

from variants.determinism import deterministic
from variants.errors import RecipeError
from variants.fitting import Lesson, fit
from variants.knowledge import Guide, Tap, attention, dist, dkd
from variants.losses import ClassObjectives, LabelLoss
from variants.recipe import Features, Teaching, Training

if TYPE_CHECKING:
    from variants.recipe import TeacherLoss

LOGITS = torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, -1.0]])
TEACHER = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.0, 0.2]])
LABELS = torch.tensor([2, 0])


@pytest.mark.parametrize("loss", ["kd", "logits", "dist", "dkd"])
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it(loss: TeacherLoss) -> None:
    objective = ClassObjectives().taught(Teaching(weight=1.0, loss=loss))
    assert float(objective(TEACHER, LABELS, TEACHER)) == pytest.approx(0.0, abs=1e-5)
    assert float(objective(LOGITS, LABELS, TEACHER)) > 0.01


@pytest.mark.parametrize("loss", ["kd", "logits", "dist", "dkd"])
def test_the_weight_shares_between_teacher_and_labels(loss: TeacherLoss) -> None:
    alone, half, labels = (
        float(ClassObjectives().taught(Teaching(weight=weight, loss=loss))(LOGITS, LABELS, TEACHER))
        for weight in (1.0, 0.5, 0.0)
    )
    assert half == pytest.approx((alone + labels) / 2, rel=1e-5)
    assert labels == pytest.approx(float(LabelLoss(0.0)(LOGITS, LABELS, None)), rel=1e-5)


def test_dist_does_not_mind_answers_of_another_scale() -> None:
    softened = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    sharper = softened + 0.5 * (softened - softened.mean(1, keepdim=True))
    assert float(dist(softened.log(), sharper.log(), 1.0)) == pytest.approx(0.0, abs=1e-5)
    assert float(dist(softened.log(), sharper.flip(0).log(), 1.0)) > 1.0


def test_dkd_equals_the_hand_calculation() -> None:
    p, q = 0.9, 0.6  # the right class, in teacher and student; the two wrong ones are 4:1 and 1:1
    teacher = torch.tensor([[p, (1 - p) * 0.8, (1 - p) * 0.2]]).log()
    student = torch.tensor([[q, (1 - q) / 2, (1 - q) / 2]]).log()
    target = p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))
    others = 0.8 * log(0.8 / 0.5) + 0.2 * log(0.2 / 0.5)
    assert float(dkd(student, teacher, torch.tensor([0]), 1.0)) == pytest.approx(target + 8 * others, rel=1e-4)
    assert exp(0.0) == 1.0


def test_attention_looks_at_where_not_at_how_much_nor_at_how_many_channels() -> None:
    features = torch.rand((2, 4, 6, 6), generator=torch.Generator().manual_seed(0))
    assert float(attention(3.0 * features.repeat(1, 2, 1, 1), features)) == pytest.approx(0.0, abs=1e-6)
    assert float(attention(features.flip(3), features)) > 0.01
    assert float(attention(torch.nn.functional.avg_pool2d(features, 2), features)) >= 0.0


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x).relu().mean((2, 3)))
        return logits


def taught(kind: Literal["hint", "attention"]) -> tuple[Lesson, nn.Module]:
    with deterministic(0) as generator:
        teacher, student = Net(12).eval(), Net(4)
        inputs = torch.rand((32, 1, 8, 8), generator=generator)
    plan = Features(kind=kind, pairs=(("body", "body"),), weight=10.0)
    with torch.no_grad():
        guide = Guide(plan, (teacher.body(inputs),))
    return Lesson(inputs, torch.arange(32) % 3, LabelLoss(0.0), guide=guide), student


@pytest.mark.parametrize("kind", ["hint", "attention"])
def test_features_bring_a_students_layer_nearer_to_the_teachers(kind: Literal["hint", "attention"]) -> None:
    lesson, student = taught(kind)
    training = Training(steps=40, batch_size=16, learning_rate=0.05)
    guided, alone = (fit(student, item, training, 0, lambda: None) for item in (lesson, replace(lesson, guide=None)))
    assert lesson.guide is not None
    wanted, distances = lesson.guide.features[0], []
    for model in (guided, alone):
        assert set(model.state_dict()) == set(student.state_dict()), "the regressor is thrown away"
        assert not any(item._forward_hooks for item in model.modules())
        with torch.no_grad():
            own = model.body(lesson.inputs)  # type: ignore[operator]
        distances.append(float(attention(own, wanted)) if kind == "attention" else _unexplained(own, wanted))
    assert distances[0] < distances[1]


def _unexplained(own: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the share of ``wanted`` that no linear map of ``own`` explains."""
    first, second = (item.transpose(0, 1).flatten(1).T for item in (own, wanted))  # (places, channels)
    first = torch.cat([first, torch.ones(len(first), 1)], 1)
    rest = second - first @ torch.linalg.lstsq(first, second).solution
    return float(rest.square().mean() / second.var(0).mean())


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match=r"features name module 'features\.9'; modules there are body, head"):
        Tap(Net(4), ["features.9"])
