"""Other ways to learn from a teacher than its softened answers (``variants.losses`` has those).

By answers, mixed with the labels' cross entropy by the teaching's ``weight``::

    logits   mean (student - teacher)^2 of logits: no temperature to choose (Ba and Caruana 2014; Kim et al. 2021)
    dist     T^2 * ((1 - r over each row) + (1 - r over each class)), r the correlation of softened answers: for a
             teacher so strong that its exact numbers are out of reach (Huang et al. 2022, "DIST")
    dkd      T^2 * (KL of right against wrong + 8 * KL among the wrong ones): plain KD drowns the second where the
             teacher is sure (Zhao et al. 2022, "Decoupled Knowledge Distillation")

By what layers give on the way, added to any of these (``Features``)::

    hint       mean (regressor(student) - teacher)^2, the regressor a 1x1 layer learned beside the student and thrown
               away (Romero et al. 2015, "FitNets")
    attention  squared distance of maps, each the mean square over channels scaled to length 1, pooled to the smaller of
               the two sizes (Zagoruyko and Komodakis 2017)

Features cost memory: the teacher's are kept for every row of the lesson. They pay where student and teacher are alike
in their layout; between architectures they often do harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from variants.losses import Objective
    from variants.plans import Features, Teaching

AMONG_WRONG: Final = 8.0  # the weight that the paper of dkd ends with
PICTURES: Final = 4
SMALL: Final = 1e-8


def answer_loss(teaching: Teaching) -> Objective:
    """Return the loss of answers that the teaching names, mixed with the labels'."""
    return _Mixed(teaching)


@dataclass(frozen=True, slots=True)
class _Mixed:
    teaching: Teaching

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss over rows of ``logits`` (N, classes)."""
        assert teacher is not None, "distillation needs the teacher's logits"  # noqa: S101 - our own invariant
        how, heat = self.teaching, self.teaching.temperature
        if how.loss == "logits":
            taught = F.mse_loss(logits, teacher)
        elif how.loss == "dist":
            taught = dist(logits, teacher, heat)
        else:
            taught = dkd(logits, teacher, labels, heat)
        return how.weight * taught + (1.0 - how.weight) * F.cross_entropy(logits, labels)


def dist(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return how far the relations among classes, and among rows, are from the teacher's: 0 if they are equal."""
    own, wanted = (F.softmax(item / temperature, dim=1) for item in (logits, teacher))  # (N, classes)
    among_classes = 1.0 - F.cosine_similarity(_centred(own, 1), _centred(wanted, 1), dim=1, eps=SMALL).mean()
    among_rows = 1.0 - F.cosine_similarity(_centred(own, 0), _centred(wanted, 0), dim=0, eps=SMALL).mean()
    return temperature**2 * (among_classes + among_rows)


def dkd(logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the divergence of right against wrong, and eight times that among the wrong classes."""
    right = F.one_hot(labels, logits.shape[1]).bool()
    own, wanted = (F.softmax(item / temperature, dim=1) for item in (logits, teacher))  # (N, classes)
    two_own, two_wanted = (torch.stack([item[right], 1.0 - item[right]], 1).clamp_min(SMALL) for item in (own, wanted))
    target = F.kl_div(two_own.log(), two_wanted, reduction="batchmean")
    wrong_own, wrong_wanted = (
        F.log_softmax(item.masked_fill(right, -torch.inf) / temperature, dim=1)[~right].view(len(labels), -1)
        for item in (logits, teacher)
    )
    others = F.kl_div(wrong_own, wrong_wanted, log_target=True, reduction="batchmean")
    return temperature**2 * (target + AMONG_WRONG * others)


def _centred(values: torch.Tensor, dim: int) -> torch.Tensor:
    return values - values.mean(dim, keepdim=True)


class Tap:
    """Keeps what named modules of a model last gave, until ``close``."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        known = dict(model.named_modules())
        missing = [name for name in names if name not in known]
        if missing:
            shown = ", ".join(name for name in list(known)[1:13]) or "none: it is a file"
            raise RecipeError(f"features name module '{missing[0]}'; modules there are {shown}")
        self.seen: dict[str, torch.Tensor] = {}
        self._handles = [known[name].register_forward_hook(self._keep(name)) for name in names]

    def _keep(self, name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a hook of torch's
        def keep(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
            self.seen[name] = output

        return keep

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class Guide:
    """The teacher's features for every row of a lesson, in the order of ``plan.pairs``, each (N, channels, ...)."""

    plan: Features
    features: tuple[torch.Tensor, ...]

    def attach(self, student: torch.nn.Module, rows: torch.Tensor) -> Guided:
        """Begin to listen to ``student``; ``rows`` (2, ...) show the widths of its layers."""
        tap = Tap(student, [name for _, name in self.plan.pairs])
        was_training = student.training
        with torch.no_grad():
            student.eval()(rows)
            student.train(was_training)
        own = [tap.seen[name] for _, name in self.plan.pairs]
        regressors = [
            _regressor(mine, theirs) if self.plan.kind == "hint" else torch.nn.Identity()
            for mine, theirs in zip(own, self.features, strict=True)
        ]
        return Guided(self, tap, torch.nn.ModuleList(regressors))


@dataclass(frozen=True, slots=True)
class Guided:
    """A student under a guide; ``regressors`` learn with it."""

    guide: Guide
    tap: Tap
    regressors: torch.nn.ModuleList

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of the student's last features against the teacher's of ``rows``."""
        plan, total = self.guide.plan, torch.zeros(())
        for (_, name), theirs, regressor in zip(plan.pairs, self.guide.features, self.regressors, strict=True):
            mine, wanted = regressor(self.tap.seen[name].float()), theirs[rows]
            total = total + (F.mse_loss(mine, wanted) if plan.kind == "hint" else attention(mine, wanted))
        return plan.weight * total


def attention(mine: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance of two attention maps, of features (N, channels, height, width)."""
    size = min(mine.shape[2], wanted.shape[2]), min(mine.shape[3], wanted.shape[3])
    maps = [F.adaptive_avg_pool2d(item.square().mean(1, keepdim=True), size).flatten(1) for item in (mine, wanted)]
    first, second = (F.normalize(item, dim=1) for item in maps)  # (N, height * width)
    return (first - second).square().sum(1).mean()


def _regressor(mine: torch.Tensor, wanted: torch.Tensor) -> torch.nn.Module:
    """Return a layer from the student's features to the shape of the teacher's."""
    if mine.ndim != PICTURES:
        return torch.nn.Linear(mine.shape[-1], wanted.shape[-1])
    layer = torch.nn.Conv2d(mine.shape[1], wanted.shape[1], 1)
    return torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(tuple(wanted.shape[2:])))
