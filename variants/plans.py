"""The plan: every number of a build, as frozen dataclasses that a recipe fills in and steps take.

A recipe's ``plan`` is a ``Plan`` where a network is trained, a ``TaughtPlan`` where a student learns from files that
the recipe brings, and a ``FilePlan`` where nothing is trained; the other classes are parts of these. Impossible
numbers are refused where they are written. Recipes import all of it from ``variants.recipe``. Torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from variants.errors import RecipeError

if TYPE_CHECKING:
    from variants.presets import Preset

FEWEST_STEPS: Final = 8
MOST_VALUES: Final = 256
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
Precision = Literal["dynamic", "half", "int4"]
"""Forms that need no calibration: int8 weights with ranges taken while running, 16-bit floats, and 4-bit weights."""
ComputePrecision = Literal["float32", "bfloat16"]
TeacherLoss = Literal["kd", "logits", "dist", "dkd"]
Importance = Literal["group-l2", "bn-scale", "group-taylor"]


@dataclass(frozen=True, slots=True)
class Training:
    """One run of an optimizer under a one-cycle learning rate that peaks at ``learning_rate``.

    ``precision`` is that of the forward computation; weights are float32 either way. ``coarse_share`` of the steps, the
    first ones, see pictures (rows, channels, height, width) at half the side, which takes a quarter of the time.

    ``dropout`` is the share that the network's ``Dropout`` layers drop, by default as the network was made; ``l1``
    times the sum of sizes of weights is added to the loss. Without ``augments`` full is trained on its rows as they
    are, not on the recipe's variations of them. Modules named in ``frozen`` keep their weights, and behave
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
    augments: bool = True
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

    Before that, ``blocks`` residual blocks (a transformer's layers) are left out whole, those that matter least
    (``variants.shortening``); with a ``ratio`` of 0 that is all that is removed.
    """

    ratio: float
    iterations: int
    training: Training | None
    round_to: int = 8
    importance: Importance = "group-l2"
    apart: tuple[tuple[str, float], ...] = ()
    settle: Training | None = None
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Static int8: try ``methods`` for ranges, then return nodes to float until the error is at most ``max_kl``.

    ``preset`` is a choice of number formats (``variants.presets``); ``also`` names others, made beside it. With a
    ``tuning`` every network that is trained gets another int8 form beside it, of weights that were fitted on while its
    layers rounded as int8 does (``variants.quantization_aware``).
    """

    methods: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "entropy")
    max_kl: float = 0.02
    max_float_nodes: int = 4
    preset: Preset = "portable"
    also: tuple[Preset, ...] = ()
    tuning: Training | None = None


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
