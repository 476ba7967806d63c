"""The manifest: what a build writes about a model's variants, and all that the service reads of them.

One JSON file per built version, ``<repository>/<model>/<version>/manifest.json``, beside one ONNX file per published
variant; of a rejected variant only the evidence is kept, here.
It is versioned (``schema_version``), strict (unknown fields are refused) and needs no torch. Its JSON schema is kept
in ``variants/manifest.schema.json``; a test holds the two together.

Units: seconds, bytes, ratios 0..1. Every figure was measured by the build on the machine named in ``machine``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
MOST_ELEMENTS: Final = 2**28
"""Elements of one row of a tensor; more cannot be warmed up with, let alone served."""
MOST_BYTES: Final = 16 * 2**20
"""A manifest of a dozen variants has some tens of kilobytes."""
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Verdict = Literal["pass", "fail", "inconclusive"]
Tier = Literal["full", "pruned", "quantized", "distilled", "pruned-quantized", "distilled-quantized"]


class ManifestError(ValueError):
    """A manifest is missing, malformed, or of a version that this program does not read."""


class Strict(BaseModel):
    """Frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorInfo(Strict):
    """One input or output; the first dimension is the batch and is -1."""

    name: str = Field(min_length=1)
    datatype: Literal[
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BF16", "BYTES",
    ]  # fmt: skip
    shape: tuple[int, ...] = Field(min_length=1, max_length=16)

    @field_validator("shape")
    @classmethod
    def _shape_starts_with_the_batch(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        elements = math.prod(dim for dim in value if dim > 0)
        if value[0] != -1 or any(dim == 0 or dim < -1 for dim in value) or elements > MOST_ELEMENTS:
            message = (
                f"shape {list(value)} must start with -1, the batch; other dimensions are -1 or at least 1, and one "
                f"row has at most {MOST_ELEMENTS} elements"
            )
            raise ValueError(message)
        return value


class Step(Strict):
    """One operation of the build with every parameter, so that it can be repeated."""

    name: str
    parameters: dict[str, Any]
    seed: int


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
    kl_to_full: float = Field(description="mean Kullback-Leibler divergence from full's output, nats")
    kl_to_parent: float | None = Field(default=None, description="the same from the parent's; null for full")
    calibration_error: Ratio = Field(description="expected calibration error, 15 equal-width bins")
    calibration_sha256: Sha256 | None = Field(
        default=None, description="hash of the rows that calibrated quantization; disjoint from test"
    )


class Parity(Strict):
    """The exported file against the torch model on real rows; ``None`` where there is no torch model."""

    rows: int = Field(ge=1)
    max_error: float = Field(ge=0.0)
    mean_error: float = Field(ge=0.0)
    argmax_agreement: Ratio


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
    energy_j: float | None = None


class Gate(Strict):
    """One threshold that the variant had to pass to be published."""

    name: str
    passed: bool
    detail: str


class Routing(Strict):
    """Whether routing may choose the variant, and why not."""

    state: Literal["routable", "dominated", "rejected"]
    reason: str
    dominated_by: Name | None = Field(default=None, description="a routable variant that is better in every way")
    gates: tuple[Gate, ...] = ()


class VariantManifest(Strict):
    """Everything known about one variant."""

    name: Name
    tier: Tier
    file: str = Field(description="beside the manifest, unless the variant is rejected")
    sha256: Sha256
    parent: Name | None = Field(description="the variant that this one was made from")
    parent_sha256: Sha256 | None
    steps: tuple[Step, ...]
    opset: int = Field(ge=1)
    size: Size
    memory: Memory
    latency: Latency
    accuracy: Accuracy
    parity: Parity | None
    hardware: Hardware
    reference: Reference
    cost: Cost
    routing: Routing
    targets: tuple[str, ...] = Field(description="runtimes that really executed the file, with version")

    @field_validator("file")
    @classmethod
    def _file_is_a_plain_name(cls, value: str) -> str:
        if PurePosixPath(value).name != value or not value.endswith(".onnx") or "\\" in value or "\0" in value:
            message = f"file {value!r} must be a plain file name ending in .onnx, with no folder"
            raise ValueError(message)
        return value

    @property
    def is_published(self) -> bool:
        """Tell whether the file stands beside the manifest; a rejected variant leaves its evidence alone."""
        return self.routing.state != "rejected"


class Split(Strict):
    """One part of the data; parts share no row."""

    rows: int = Field(ge=1)
    sha256: Sha256


class Machine(Strict):
    """Where the build ran."""

    cpu: str
    cores: int = Field(ge=1)
    memory_bytes: Count
    system: str
    isa: tuple[str, ...]


class ModelManifest(Strict):
    """One built version of a model: its interface, its data, its variants."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: Name
    version: str = Field(pattern=r"^[1-9][0-9]{0,8}$")
    task: Literal["classification"]
    metric: str
    labels: tuple[str, ...]
    inputs: tuple[TensorInfo, ...] = Field(min_length=1)
    outputs: tuple[TensorInfo, ...] = Field(min_length=1)
    max_batch_size: int = Field(ge=1, le=4096)
    recipe: str
    recipe_parameters: dict[str, Any]
    build_key: Sha256 = Field(description="digest of recipe, parameters, seed, data, tool versions and instruction set")
    seed: int
    tools: dict[str, str] = Field(description="package -> version")
    splits: dict[str, Split]
    machine: Machine
    built_at: str = Field(description="UTC, ISO 8601")
    variants: tuple[VariantManifest, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _variants_are_distinct(self) -> ModelManifest:
        names = [variant.name for variant in self.variants]
        files = [variant.file for variant in self.variants]
        if len(set(names)) != len(names) or len(set(files)) != len(files):
            message = f"variant names and files must be distinct; got {names} and {files}"
            raise ValueError(message)
        return self

    @property
    def published(self) -> tuple[VariantManifest, ...]:
        """The variants whose files are there: all but those that a gate kept back."""
        return tuple(variant for variant in self.variants if variant.is_published)

    def variant(self, name: str) -> VariantManifest:
        """Return the variant of that name.

        Raises:
            KeyError: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        message = f"model '{self.model}' has no variant '{name}'; it has {', '.join(v.name for v in self.variants)}"
        raise KeyError(message)


def parse_manifest(text: str | bytes, source: str) -> ModelManifest:
    """Parse a manifest; ``source`` names it in errors.

    Raises:
        ManifestError: Not JSON, not of a schema version read here, or not valid.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{source} is not JSON: {error}"
        raise ManifestError(message) from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        message = (
            f"{source} has schema_version {version!r}; this program reads version {SCHEMA_VERSION}: "
            "rebuild the model, or use a tiergate that reads it"
        )
        raise ManifestError(message)
    try:
        return ModelManifest.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'manifest'}: {item['msg']}" for item in error.errors()[:5]
        )
        message = f"{source} is not a valid manifest: {problems}"
        raise ManifestError(message) from None


def read_manifest(folder: Path) -> ModelManifest:
    """Read ``folder/manifest.json``.

    Raises:
        ManifestError: It cannot be read, or ``parse_manifest`` refuses it.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ManifestError(message) from None
    if len(text) > MOST_BYTES:
        message = f"{path} is larger than {MOST_BYTES} bytes, more than any manifest needs"
        raise ManifestError(message)
    return parse_manifest(text, str(path))


def manifest_schema() -> dict[str, Any]:
    """Return the JSON schema of ``ModelManifest``."""
    return ModelManifest.model_json_schema()
