"""What the service says about itself: metadata, statistics, index, states, explained routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.inference import Reason
    from service.domain.variants import Variant


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Name, version and protocol extensions of this server."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duration:
    """A count of events and their summed time in nanoseconds."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """The runs of one batch size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Triton's statistics of one model, summed over its variants, since the model was loaded."""

    name: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    batches: tuple[BatchStatistics, ...]
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One row of the repository index; ``reason`` says what is wrong, or why a variant is out of routing."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VariantState:
    """A variant, whether it is loaded, the correction of its profile learnt here, and what drift says of it."""

    variant: Variant
    state: str
    correction_ratio: float
    reason: str = ""
    drift: str = "healthy"


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One variant in an explained routing decision."""

    variant: str
    tier: str
    accuracy: float
    predicted_s: float
    fits_budget: bool
    is_candidate: bool
    why: str


@dataclass(frozen=True, slots=True)
class RouteExplanation:
    """What routing would decide now for a request with these knobs, without running it."""

    model: str
    chosen: str
    tier: str
    reason: Reason
    budget_s: float
    wait_s: float
    hardware_class: str
    candidates: tuple[CandidateReport, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A variant's file, verified against ``digest`` (sha256, hex) when it was loaded.

    ``identity`` is what the file looked like then (device, inode, size in bytes, time of change in ns); empty where
    that is not known.
    """

    path: Path
    digest: str
    size_bytes: int
    filename: str
    variant: str
    identity: tuple[int, int, int, int] | tuple[()] = ()
