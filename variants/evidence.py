"""The nouns of evidence: what a manifest says was measured of one variant.

Strict (unknown fields are refused) and frozen; ``variants.manifest`` puts them together and is what reads them. Units:
seconds, bytes, ratios 0..1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Verdict = Literal["pass", "fail", "inconclusive"]


class Strict(BaseModel):
    """Frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(Strict):
    """How big the variant is, by every measure that users ask for."""

    parameters: Count
    nonzero_parameters: Count
    macs: Count = Field(description="multiply-accumulates for one row")
    weight_bytes: dict[str, Count] = Field(description="bytes of weights by ONNX element type")
    file_bytes: Count
    compressed_bytes: Count = Field(description="size of the file when compressed for download (zlib level 9)")


class Memory(Strict):
    """Memory of a fresh process that loads and runs only this variant, over one that only imports the runtime."""

    loaded_bytes: Count
    peak_bytes: Count


class LatencyRow(Strict):
    """Compute time of one batch size at one thread count, over ``runs`` timed runs after ``warmups``."""

    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)
    warmups: Count
    runs: int = Field(ge=1)
    mean_s: Seconds
    p50_s: Seconds
    p90_s: Seconds
    p95_s: Seconds
    p99_s: Seconds


class Latency(Strict):
    """Every measured cell, the time to load and answer first, and how busy the machine was."""

    rows: tuple[LatencyRow, ...] = Field(min_length=1)
    cold_start_s: Seconds
    load_average: float = Field(ge=0.0, description="one-minute load average around profiling, the highest reading")
    others_cores: float | None = Field(
        default=None,
        ge=0.0,
        allow_inf_nan=False,
        description="what other processes took of the machine's cores while the rows were timed, in cores; null where "
        "that is not known",
    )


class NonInferiority(Strict):
    """Is the variant at most ``margin`` worse than full? From a paired interval of the difference on the same rows."""

    margin: Ratio
    verdict: Verdict
    difference: float = Field(description="metric of this variant minus metric of full")
    low: float = Field(description="lower end of the two-sided 90 % Tango interval: each verdict is one-sided at 5 %")
    high: float


class Accuracy(Strict):
    """The metric on the held-out test split, and the paired comparison with full on the same rows."""

    metric: str
    dataset: str
    dataset_sha256: Sha256
    rows: int = Field(ge=1)
    value: Ratio
    low: Ratio = Field(description="lower end of the 95 % Wilson interval")
    high: Ratio = Field(description="upper end of the 95 % Wilson interval")
    ratio_to_full: float = Field(ge=0.0)
    flips: Count = Field(description="rows whose predicted class differs from full's")
    lost: Count = Field(description="rows right in full and wrong here")
    gained: Count = Field(description="rows wrong in full and right here")
    mcnemar_p: Ratio = Field(description="exact two-sided p of lost against gained")
    non_inferiority: tuple[NonInferiority, ...] = Field(description="one verdict per margin; none for full itself")
    kl_to_full: float | None = Field(
        description="mean Kullback-Leibler divergence from full's output, nats; null where outputs are no classes"
    )
    kl_to_parent: float | None = Field(default=None, description="the same from the parent's; null for full")
    calibration_error: Ratio | None = Field(
        description="expected calibration error, 15 equal-width bins; null where outputs are no classes"
    )
    calibration_sha256: Sha256 | None = Field(
        default=None, description="hash of the rows that calibrated quantization; disjoint from test"
    )
    beside: dict[str, float] = Field(
        default_factory=dict, description="other measures of the same answers, where the task has its own: r2, map"
    )


class Parity(Strict):
    """The file against the model that it was made from, on real rows: torch, scikit-learn, or a file of full precision.

    ``None`` where there is no such model: a file that was trained elsewhere.
    """

    rows: int = Field(ge=1)
    max_error: float = Field(ge=0.0)
    mean_error: float = Field(ge=0.0)
    argmax_agreement: Ratio = Field(description="share of rows with the same answer: class, or value within tolerance")


class Saturation(Strict):
    """What an int8 file loses where pairs of products saturate at 16 bits (AVX2, plain AVX-512), by emulation."""

    rows: int = Field(ge=1)
    agreement: Ratio = Field(description="share of rows with the same answer as where nothing saturates")
    loss: float = Field(description="metric where nothing saturates minus metric where pairs do, on the same rows")
    verdict: Verdict = Field(description="pass: at most half a point is lost; inconclusive: not all could be emulated")


class Hardware(Strict):
    """Where it was measured, on which instruction sets it is known to be right, and what the session must be told."""

    measured_on: str
    isa: tuple[str, ...] = Field(description="what the measuring machine has")
    verified_isa: tuple[str, ...] = Field(description="paths that executed when accuracy and parity were measured")
    proven_isa: tuple[str, ...] = Field(
        description="int8 only: paths that add products in 16 bits, where the weights' bound excludes saturation; "
        "empty for float files, which need no proof: instruction sets differ there in rounding alone"
    )
    session_options: dict[str, str] = Field(default_factory=dict)
    saturation: Saturation | None = Field(
        default=None, description="int8 whose weights do not exclude saturation: what emulating it showed"
    )


class Histogram(Strict):
    """A distribution: ``counts[i]`` values lie between ``edges[i]`` and ``edges[i + 1]``."""

    edges: tuple[float, ...] = Field(min_length=2)
    counts: tuple[Count, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _edges_enclose_counts(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            message = f"histogram has {len(self.counts)} counts and {len(self.edges)} edges; edges must be one more"
            raise ValueError(message)
        return self


class Reference(Strict):
    """Distributions on the validation split that drift is later compared with."""

    rows: Count
    inputs: dict[str, Histogram] = Field(description="values of each input, all elements together")
    confidence: Histogram | None = Field(default=None, description="largest class probability")
    predictions: dict[str, Count] = Field(default_factory=dict, description="rows predicted as each class")


class Cost(Strict):
    """What the variant took to make."""

    train_s: Seconds
    build_s: Seconds
    peak_bytes: Count | None = Field(
        default=None, description="resident memory of the process that made it, the highest in any of its steps"
    )
    energy_j: float | None = None

    def __add__(self, other: Cost) -> Cost:
        """Return what both took, one after the other; energy is not known of a part."""
        peaks = [peak for peak in (self.peak_bytes, other.peak_bytes) if peak is not None]
        return Cost(
            train_s=self.train_s + other.train_s,
            build_s=self.build_s + other.build_s,
            peak_bytes=max(peaks, default=None),
        )


class Gate(Strict):
    """One threshold that the variant had to pass to be published."""

    name: str
    passed: bool
    detail: str
