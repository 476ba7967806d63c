"""A model as the simulator knows it: its variants, what they cost, which rows they answer rightly.

Compute times are drawn from the profile's three quantiles. The quantile function is taken as piecewise lognormal: the
logarithm of the time is linear in the normal score z between p50, p95 and p99, goes on with the last slope up to
p99.99, and below the median with the first slope. That meets the three measured quantiles exactly; what lies beyond
them is an assumption. A run's place in the distribution is one uniform number that belongs to the request, so that
two policies, or two variants, meet the same luck.

Without an answer sheet a request is answered rightly when another uniform number of its own is below the variant's
accuracy: what a small variant gets right, a more accurate one gets right too. Comparisons are then paired, and the
hindsight oracle does not gain from luck.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from service.domain.policy_file import ModelPolicy
from service.domain.variants import LatencyCell, Profile, Variant
from service.policy.costs import Costs, Plan
from service.policy.latency import safe_table
from variants.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from variants.manifest import VariantManifest

DRAWS: Final = 2048
"""Points at which a quantile function is tabulated."""

_HIGHEST_PROBABILITY: Final = 0.9999


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSheet:
    """What each variant answers on labelled rows: ``correct`` is (V, R) bool, ``margins`` (V, R) float32."""

    variants: tuple[str, ...]
    correct: NDArray[np.bool_]
    margins: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit the names."""
        for name, array in (("rows_correct", self.correct), ("margins", self.margins)):
            if array.ndim != 2 or array.shape != self.correct.shape or len(array) != len(self.variants):  # noqa: PLR2004
                raise ValueError(f"answer sheet: {name} has shape {array.shape}, not ({len(self.variants)}, rows)")

    def rows_of(self, variants: Sequence[str]) -> list[int]:
        """Return the sheet's row number of each of these variants.

        Raises:
            ValueError: A variant is not on the sheet.
        """
        missing = [name for name in variants if name not in self.variants]
        if missing:
            raise ValueError(f"answer sheet: has {', '.join(self.variants)}, not {', '.join(missing)}")
        return [self.variants.index(name) for name in variants]


def read_answer_sheet(path: Path) -> AnswerSheet:
    """Read an ``.npz`` file with the arrays ``variants``, ``rows_correct`` and ``margins``."""
    with np.load(path, allow_pickle=False) as file:
        names = tuple(str(name) for name in file["variants"])
        return AnswerSheet(names, file["rows_correct"].astype(np.bool_), file["margins"].astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """One model's variants, most accurate first, under a model policy."""

    name: str
    variants: tuple[Variant, ...]
    max_batch_size: int = 16
    policy: ModelPolicy = field(default_factory=ModelPolicy)
    answers: AnswerSheet | None = None
    plans: tuple[Plan, ...] = ()
    measured: Mapping[str, Profile] = field(default_factory=dict)
    """What variants really take where that is known; predictions start from the variants' own profiles."""

    def __post_init__(self) -> None:
        """Refuse cascades where no margins are known."""
        if self.plans and self.answers is None:
            raise ValueError(f"model '{self.name}': cascades need an answer sheet, which holds the margins")

    @property
    def names(self) -> tuple[str, ...]:
        """The variants' names; results hold places in this tuple."""
        return tuple(variant.name for variant in self.variants)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The variants' accuracies, (V,): those measured on the answer sheet's rows where there is one."""
        if self.answers is None:
            return np.array([variant.accuracy for variant in self.variants])
        means: NDArray[np.float64] = self.answers.correct[self.answers.rows_of(self.names)].mean(axis=1)
        return means

    @property
    def max_rows(self) -> int:
        """The most rows that one run may take."""
        return min(self.policy.max_batch_size, self.max_batch_size)

    def costs(self, *, uses_plans: bool = False) -> Costs:
        """Return the predictions that scheduling starts from: the profile at the policy's quantile and margin."""
        tables = {variant.name: safe_table(variant, self.policy, self.max_batch_size) for variant in self.variants}
        accuracy = {variant.name: variant.accuracy for variant in self.variants}
        plans = {plan.name: plan for plan in self.plans} if uses_plans else {}
        return Costs(tables, dict.fromkeys(tables, 1.0), accuracy, plans)

    def real(self, variant: Variant) -> Profile:
        """Return what a variant's runs really take."""
        return self.measured.get(variant.name, variant.profile)

    def margin(self, variant: str, row: int) -> float:
        """Return the margin between the two best classes that a variant sees in a row of the answer sheet."""
        if self.answers is None:
            raise ValueError(f"model '{self.name}' has no answer sheet, which holds the margins")
        margins = self.answers.margins
        return float(margins[self.answers.variants.index(variant), row % margins.shape[1]])

    def candidates(self, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the candidates among ``wanted``, most accurate first; of all that routing may choose if empty."""
        unknown = [name for name in wanted if name not in self.names]
        if unknown:
            raise ValueError(f"model '{self.name}' has {', '.join(self.names)}, not {', '.join(unknown)}")
        usable = [item for item in self.variants if (item.name in wanted if wanted else self._may_route(item))]
        return tuple(variant.name for variant in sorted(usable, key=lambda item: -item.accuracy))

    def _may_route(self, variant: Variant) -> bool:
        """Tell whether routing may choose a variant: a dominated one only where the policy leaves the other out."""
        return variant.is_routable or (bool(variant.dominated_by) and variant.dominated_by not in self.names)

    def outcome_of(self, plan: Plan) -> tuple[float, float]:
        """Return what a cascade does on the answer sheet's rows: the share that escalates, and the accuracy."""
        sheet = self.answers
        assert sheet is not None  # noqa: S101 - without a sheet there are no plans
        small, big = sheet.rows_of((plan.variant, plan.escalate_to))
        is_unsure = sheet.margins[small] < plan.margin  # (R,)
        return float(is_unsure.mean()), float(np.where(is_unsure, sheet.correct[big], sheet.correct[small]).mean())


def make_ladder(name: str, figures: dict[str, tuple[float, float]], **settings: object) -> Ladder:
    """Return a ladder of variants that always take the same time: ``{variant: (seconds a row, accuracy)}``.

    Batching gains nothing. Predictions carry no margin unless ``policy`` says so. Other ``settings`` are the
    ladder's fields.
    """
    variants = tuple(
        Variant(key, key, accuracy, Profile((LatencyCell(1, seconds, seconds, seconds),)), 0, 0, "")
        for key, (seconds, accuracy) in sorted(figures.items(), key=lambda item: -item[1][1])
    )
    settings.setdefault("policy", ModelPolicy(safety_margin_ratio=0.0))
    return Ladder(name, variants, **settings)  # type: ignore[arg-type]


def read_ladder(folder: Path, policy: ModelPolicy | None = None, answers: AnswerSheet | None = None) -> Ladder:
    """Return the ladder of the built model in ``folder``: what is published, profiled at one thread.

    Raises:
        ManifestError: The manifest cannot be read.
    """
    manifest = read_manifest(folder)
    variants = sorted((_variant(item) for item in manifest.published), key=lambda item: -item.accuracy)
    policy = policy or ModelPolicy()
    routed = tuple(item for item in variants if not policy.variants or item.name in policy.variants)
    return Ladder(manifest.model, routed, manifest.max_batch_size, policy, answers)


def _variant(item: VariantManifest) -> Variant:
    rows = sorted((row for row in item.latency.rows if row.threads == 1), key=lambda row: row.batch_size)
    if not rows:
        raise ValueError(f"variant '{item.name}' was not profiled at one thread, which is what a lane runs")
    cells = tuple(LatencyCell(row.batch_size, row.p50_s, row.p95_s, row.p99_s) for row in rows)
    return Variant(
        name=item.name,
        tier=item.tier,
        accuracy=item.accuracy.value,
        profile=Profile(cells),
        memory_bytes=item.memory.loaded_bytes,
        file_bytes=item.size.file_bytes,
        digest=item.sha256,
        is_routable=item.routing.state == "routable",
        dominated_by=item.routing.dominated_by or "",
    )


def draw_table(cell: LatencyCell, *, is_exact: bool) -> tuple[float, ...]:
    """Return ``DRAWS`` compute times in seconds, ascending, equally probable; all the median where ``is_exact``."""
    if is_exact or cell.p50_s == cell.p99_s or cell.p50_s <= 0.0:
        return (cell.p50_s,) * DRAWS
    normal = NormalDist()
    shares = np.minimum((np.arange(DRAWS) + 0.5) / DRAWS, _HIGHEST_PROBABILITY)
    scores = np.array([normal.inv_cdf(float(share)) for share in shares])
    knots = np.array([0.0, normal.inv_cdf(0.95), normal.inv_cdf(0.99)])
    logs = np.log([cell.p50_s, max(cell.p95_s, cell.p50_s), max(cell.p99_s, cell.p95_s, cell.p50_s)])
    slopes = np.diff(logs) / np.diff(knots)
    inner = np.interp(scores, knots, logs)
    below = np.minimum(scores, 0.0) * slopes[0]
    above = np.maximum(scores - knots[-1], 0.0) * slopes[-1]
    return tuple(np.exp(inner + below + above).tolist())
