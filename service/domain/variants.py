"""Models, their variants, and what was measured of them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.domain.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class LatencyCell:
    """Measured compute time of one batch size on one lane (one thread), in seconds."""

    batch_size: int
    p50_s: float
    p95_s: float
    p99_s: float

    def scaled(self, ratio: float) -> LatencyCell:
        """Return the cell with every time multiplied by ``ratio``."""
        return LatencyCell(self.batch_size, self.p50_s * ratio, self.p95_s * ratio, self.p99_s * ratio)


@dataclass(frozen=True, slots=True)
class Profile:
    """Latency by batch size, ascending; the first cell is batch size 1."""

    cells: tuple[LatencyCell, ...]

    def at(self, batch_size: int) -> LatencyCell:
        """Return the times for a batch size: linear between measured sizes, proportional beyond the last."""
        sizes = [cell.batch_size for cell in self.cells]
        right = bisect_left(sizes, batch_size)
        if right < len(sizes) and sizes[right] == batch_size:
            return self.cells[right]
        if right == len(sizes):
            return replace(self.cells[-1].scaled(batch_size / sizes[-1]), batch_size=batch_size)
        if right == 0:
            return replace(self.cells[0], batch_size=batch_size)
        low, high = self.cells[right - 1], self.cells[right]
        share = (batch_size - low.batch_size) / (high.batch_size - low.batch_size)

        def mix(left: float, right: float) -> float:
            return left + share * (right - left)

        return LatencyCell(
            batch_size, mix(low.p50_s, high.p50_s), mix(low.p95_s, high.p95_s), mix(low.p99_s, high.p99_s)
        )


@dataclass(frozen=True, slots=True)
class Variant:
    """One built form of a model, as routing sees it.

    ``accuracy`` is the measured metric on the test split, 0..1, higher is better. ``memory_bytes`` is what a
    process gains by loading it. ``is_routable`` is false for a dominated variant, which still
    answers when pinned. ``note`` says why, and ``dominated_by`` names the variant that is no larger, no slower and no
    less accurate: where that one may not answer, this one may. ``doubted_accuracy`` is what the manifest claims where
    drift has taken that claim away, ``None`` elsewhere.
    """

    name: str
    tier: str
    accuracy: float
    profile: Profile
    memory_bytes: int
    file_bytes: int
    digest: str
    is_routable: bool = True
    note: str = ""
    dominated_by: str = ""
    doubted_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Cascade:
    """A calibrated pair: ``variant`` answers, and where its margin is below ``margin``, ``escalate_to`` is asked too.

    The margin is the difference of the two highest values of a row of the first output, in that output's own units.
    ``escalated_ratio`` is the share of test rows that escalate, ``accuracy`` the measured metric of the answers given,
    both 0..1.
    """

    variant: str
    escalate_to: str
    margin: float
    escalated_ratio: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as clients see it; the first dimension of every input and output is the batch."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    variants: tuple[Variant, ...]
    metric: str = "accuracy"
    cascades: tuple[Cascade, ...] = ()
    labels: tuple[str, ...] = field(default=(), repr=False)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name, or ``None``."""
        return next((variant for variant in self.variants if variant.name == name), None)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers present, in the manifest's order, each once."""
        return tuple(dict.fromkeys(variant.tier for variant in self.variants))
