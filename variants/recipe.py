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

The frozen dataclasses are the nouns that steps take. Torch is not imported: a serving-only install knows recipes too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from variants.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from variants.evidence import Parity
    from variants.manifest import Tier
    from variants.presets import Preset

Floats = NDArray[np.float32]
Classes = NDArray[np.int64]
Inputs = NDArray[Any]
"""Rows (rows, ...) as a model takes them; a structured array has one field for each input of a model with several."""
Labels = NDArray[Any]
"""What is right for each row: int64 class numbers (rows,), or whatever the recipe's scoring compares with."""
FEWEST_STEPS: Final = 8
MOST_VALUES: Final = 256
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
Precision = Literal["dynamic", "half", "int4"]
"""Forms that need no calibration: int8 weights with ranges taken while running, 16-bit floats, and 4-bit weights."""
ComputePrecision = Literal["float32", "bfloat16"]
TeacherLoss = Literal["kd", "logits", "dist", "dkd"]
Importance = Literal["group-l2", "bn-scale", "group-taylor"]


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


@dataclass(frozen=True, slots=True)
class Training:
    """One run of an optimizer under a one-cycle learning rate that peaks at ``learning_rate``.

    ``precision`` is that of the forward computation; weights are float32 either way. ``coarse_share`` of the steps, the
    first ones, see pictures (rows, channels, height, width) at half the side, which takes a quarter of the time.

    ``dropout`` is the share that the network's ``Dropout`` layers drop, by default as the network was made; ``l1``
    times the sum of sizes of weights is added to the loss. Modules named in ``frozen`` keep their weights, and behave
    as in evaluation: a network that starts from published weights learns nothing but its head.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.02
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    optimizer: Literal["sgd", "adamw"] = "sgd"
    precision: ComputePrecision = "float32"
    coarse_share: float = 0.0
    dropout: float | None = None
    l1: float = 0.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < FEWEST_STEPS:
            raise RecipeError(f"a training of {self.steps} steps is too short; its schedule needs {FEWEST_STEPS}")
        if not 0.0 <= self.coarse_share <= 1.0:
            raise RecipeError(f"a training has coarse_share {self.coarse_share}; allowed is 0 to 1")
        if not 0.0 <= (self.dropout or 0.0) < 1.0 or self.l1 < 0.0:
            raise RecipeError(
                f"a training has dropout {self.dropout} and l1 {self.l1}; allowed are 0 to below 1, and 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Features:
    """What layers give on the way: ``pairs`` name a module of the teacher and one of the student each."""

    kind: Literal["hint", "attention"]
    pairs: tuple[tuple[str, str], ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Teaching:
    """What the teacher passes on: its answers to ``copies`` augmented copies of the training rows.

    The student's loss is ``weight`` parts of the teacher's answers and ``1 - weight`` parts of the labels. How answers
    are compared is ``loss``, softened by default; ``features`` of layers can be compared too: ``variants.knowledge``.
    """

    copies: int = 12
    temperature: float = 3.0
    weight: float = 0.9
    precision: ComputePrecision = "float32"
    loss: TeacherLoss = "kd"
    features: Features | None = None


@dataclass(frozen=True, slots=True)
class Pruning:
    """Remove ``ratio`` of every layer's channels over ``iterations``, each followed by ``training``; then ``settle``.

    Without a ``training`` all is removed at once, and only batch norms are set anew. ``importance`` says which channels
    go first (``variants.pruning``). ``apart`` gives layers, by their names or those of modules around them, ratios of
    their own.
    """

    ratio: float
    iterations: int
    training: Training | None
    round_to: int = 8
    importance: Importance = "group-l2"
    apart: tuple[tuple[str, float], ...] = ()
    settle: Training | None = None


@dataclass(frozen=True, slots=True)
class Quantization:
    """Static int8: try ``methods`` for ranges, then return nodes to float until the error is at most ``max_kl``.

    ``preset`` is a choice of number formats (``variants.presets``); ``also`` names others, made beside it.
    """

    methods: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "entropy")
    max_kl: float = 0.02
    max_float_nodes: int = 4
    preset: Preset = "portable"
    also: tuple[Preset, ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """A packed form of the full model: smaller to download, not faster.

    ``sparsity`` of the weights become zero, or all but n of every m with ``pattern``; the others share ``values`` for
    each tensor. Without a ``training``, and where nothing is trained, both happen at once and nothing is repaired.
    """

    sparsity: float = 0.9
    values: int = 32
    pattern: tuple[int, int] | None = None
    training: Training | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0 or not 2 <= self.values <= MOST_VALUES:  # noqa: PLR2004 - fewer is a sign
            raise RecipeError(
                f"a download of sparsity {self.sparsity} and {self.values} values; allowed are 0 to below 1, and 2 to "
                f"{MOST_VALUES}"
            )
        if self.pattern is not None and not 0 < self.pattern[0] < self.pattern[1]:
            raise RecipeError(f"a download of pattern {self.pattern}; allowed is n of m, n below m")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the gates demand of a variant before it may be offered."""

    min_full: float
    max_loss: float = 0.03
    max_parity_error: float = 1e-3
    min_agreement: float = 0.97


@dataclass(frozen=True, slots=True)
class Profiling:
    """The grid of the latency profile and what each cell may cost: batch 1 gets ``single_row_s``, others ``cell_s``."""

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 10
    runs: int = 500
    cell_s: float = 0.25
    single_row_s: float = 1.0
    memory_repeats: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """Every number of a build that trains nothing; ``starts_from`` is the digest of weights that the recipe brings.

    Float files are quantized by calibration unless ``quantization`` is ``None``, and given each of ``precisions``.
    """

    thresholds: Thresholds
    quantization: Quantization | None = field(default_factory=Quantization)
    precisions: tuple[Precision, ...] = ()
    profiling: Profiling = field(default_factory=Profiling)
    starts_from: str | None = None
    download: Download | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtPlan(FilePlan):
    """The same where a student is fitted to the full model's answers."""

    teaching: Teaching
    distillation: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(TaughtPlan):
    """The same where the full model is trained too, and pruned unless ``pruning`` is ``None``."""

    training: Training
    pruning: Pruning | None


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
