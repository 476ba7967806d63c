"""The recipe protocol: everything a build must know about one model, and nothing about how a build works.

A recipe is any object with these attributes and methods: they name the model, give its data in four disjoint parts, and
state every number of the plan. A ``.py`` file that assigns one to ``RECIPE`` can be built by its path::

    class Mine:
        name, labels, plan = "mine", ("no", "yes"), Plan(...)
        def load(self, seed): ...                # -> DataParts
        def make_model(self): ...                # -> torch.nn.Module
        def make_student(self): ...              # -> torch.nn.Module
        def augment(self, inputs, generator): ...

    RECIPE = Mine()

Three kinds differ in where files come from. A ``Recipe`` has a torch network trained. A ``FileRecipe`` brings ONNX
files of its own, as converted scikit-learn models or a file that was trained elsewhere; where it is ``Taught`` as well,
a small network learns from its full file. Three attributes are optional in all of them: ``scoring`` says what a right
answer is where answers are no classes (``variants.scoring``), ``objectives`` what training minimises
(``variants.losses``), ``more_students`` how to make others: ``{"small": make_smaller}`` gives ``distilled-small``.

What a plan is made of stands in ``variants.plans`` and is handed on here, so that a recipe imports from one place.
Torch is not imported: a serving-only install knows recipes too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from variants.plans import (
    CalibrationMethod,
    ComputePrecision,
    Download,
    Features,
    FilePlan,
    Importance,
    Plan,
    Precision,
    Profiling,
    Pruning,
    Quantization,
    TaughtPlan,
    TeacherLoss,
    Teaching,
    Thresholds,
    Training,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from variants.evidence import Parity
    from variants.manifest import Tier

__all__ = [
    "AnyRecipe",
    "CalibrationMethod",
    "Classes",
    "ComputePrecision",
    "DataParts",
    "Download",
    "Draft",
    "Examples",
    "Features",
    "FilePlan",
    "FileRecipe",
    "Floats",
    "Importance",
    "Inputs",
    "Labels",
    "Plan",
    "Precision",
    "Profiling",
    "Pruning",
    "Quantization",
    "Ready",
    "Recipe",
    "Taught",
    "TaughtPlan",
    "TeacherLoss",
    "Teaching",
    "Thresholds",
    "Training",
    "brings_files",
    "is_taught",
    "is_trained",
    "students_of",
]

Floats = NDArray[np.float32]
Classes = NDArray[np.int64]
Inputs = NDArray[Any]
"""Rows (rows, ...) as a model takes them; a structured array has one field for each input of a model with several."""
Labels = NDArray[Any]
"""What is right for each row: int64 class numbers (rows,), or whatever the recipe's scoring compares with."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one part of the data: ``inputs`` (rows, ...) and ``labels`` (rows, ...).

    In a ``Recipe`` inputs are float32, or int64 where they are token numbers.
    """

    inputs: Inputs
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class DataParts:
    """The four parts; no row is in two. ``train`` fits weights, and is empty where nothing is trained.

    ``calibration`` sets ranges of int8, ``validation`` decides in a build and is drift's reference, ``test`` measures.
    """

    train: Examples
    calibration: Examples
    validation: Examples
    test: Examples

    def named(self) -> dict[str, Examples]:
        """Return the parts by name."""
        return {
            "train": self.train,
            "calibration": self.calibration,
            "validation": self.validation,
            "test": self.test,
        }


@runtime_checkable
class AnyRecipe(Protocol):
    """What every recipe has; attributes will do where properties are asked for."""

    @property
    def name(self) -> str:
        """What clients call the model."""
        ...

    @property
    def metric(self) -> str:
        """What reports call the share of rows that are right."""
        ...

    @property
    def dataset(self) -> str:
        """What reports call the data."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes by number; none where answers are no classes."""
        ...

    @property
    def plan(self) -> FilePlan:
        """Every number of the build."""
        ...

    def load(self, seed: int) -> DataParts:
        """Return the data, split by ``seed``; the same seed gives the same parts in the same order."""
        ...


@runtime_checkable
class Taught(AnyRecipe, Protocol):
    """How to make a small torch network that learns from the full model.

    The network takes (rows, *input_shape), float32 or int64, and returns what the full model returns, for classes
    logits (rows, classes).
    """

    @property
    def input_name(self) -> str:
        """What the file calls its input."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One row's shape."""
        ...

    @property
    def output_name(self) -> str:
        """What the file calls its output."""
        ...

    @property
    def plan(self) -> TaughtPlan:
        """Every number of the build."""
        ...

    def make_student(self) -> torch.nn.Module:
        """Return the untrained student, a smaller model with the same inputs and outputs."""
        ...

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a random variation of ``inputs`` (rows, ...), of the same shape, drawn from ``generator`` alone."""
        ...


@runtime_checkable
class Recipe(Taught, Protocol):
    """How to make, train and evaluate one torch model, any normalisation inside it."""

    @property
    def plan(self) -> Plan:
        """Every number of the build."""
        ...

    def make_model(self) -> torch.nn.Module:
        """Return the untrained full model; its weights come from torch's global generator, which the build seeds."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A finished ONNX file, how it compares with the model it was made from, if one can run, and what was chosen."""

    file: bytes
    parity: Parity | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """One file that a recipe can make: ``step`` names the operation, ``parameters`` every number of it.

    ``parent`` is the name of the draft that it derives from, ``None`` for the full model, which comes first.
    """

    name: str
    tier: Tier
    parent: str | None
    step: str
    parameters: dict[str, Any]
    make: Callable[[], Ready]


@runtime_checkable
class FileRecipe(AnyRecipe, Protocol):
    """A model whose ONNX files the recipe makes itself."""

    def draft(self, parts: DataParts, seed: int) -> Iterable[Draft]:
        """Return what can be made, the full model first, each after its parent; ``make`` gives the same bytes again."""
        ...


def is_taught(recipe: AnyRecipe) -> TypeGuard[Taught]:
    """Tell whether the recipe has a student that learns from the full model."""
    return hasattr(recipe, "make_student")


def students_of(recipe: Taught) -> dict[str, Callable[[], torch.nn.Module]]:
    """Return how to make each student, by the name of its variant; the recipe's first is ``distilled``."""
    more: Mapping[str, Callable[[], torch.nn.Module]] = getattr(recipe, "more_students", {})
    return {"distilled": recipe.make_student} | {f"distilled-{name}": make for name, make in more.items()}


def brings_files(recipe: AnyRecipe) -> TypeGuard[FileRecipe]:
    """Tell whether the recipe makes its ONNX files itself."""
    return hasattr(recipe, "draft")


def is_trained(recipe: AnyRecipe) -> TypeGuard[Recipe]:
    """Tell whether the recipe has a torch model to train."""
    return hasattr(recipe, "make_model")
