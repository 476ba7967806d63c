"""The manifest: what a build writes about a model's variants, and all that the service reads of them.

One JSON file per built version, ``<repository>/<model>/<version>/manifest.json``, beside one ONNX file per published
variant; of a rejected variant only the evidence is kept, here.
It is versioned (``schema_version``), strict (unknown fields are refused) and needs no torch. Its JSON schema is kept
in ``variants/manifest.schema.json``; a test holds the two together.

Units: seconds, bytes, ratios 0..1. Every figure was measured by the build on the machine named in ``machine``; times
and memory may have been measured anew since, on the machine named in ``measured``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from variants.drift_reference import DriftReference, InputDrift, ScoringForm
from variants.evidence import (
    Accuracy,
    Cost,
    Count,
    Gate,
    Hardware,
    Latency,
    Memory,
    Parity,
    Ratio,
    Reference,
    Sha256,
    Size,
    Strict,
)

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
MOST_ELEMENTS: Final = 2**28
"""Elements of one row of a tensor; more cannot be warmed up with, let alone served."""
MOST_BYTES: Final = 16 * 2**20
"""A manifest of a dozen variants has some tens of kilobytes."""
MOST_CASCADES: Final = 64
MOST_UNPACKED_BYTES: Final = 2**31 - 1
"""What one ONNX file can have."""
ENDINGS: Final = (".onnx", ".packed")
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Task = Literal["classification", "regression", "detection"]
Tier = Literal["full", "pruned", "quantized", "distilled", "pruned-quantized", "distilled-quantized"]


class ManifestError(ValueError):
    """A manifest is missing, malformed, or of a version that this program does not read."""


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


class Unpacked(Strict):
    """The ONNX file that a packed one holds (``variants.packed``)."""

    bytes: int = Field(ge=1, le=MOST_UNPACKED_BYTES)
    sha256: Sha256


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
    unpacked: Unpacked | None = Field(default=None, description="smaller to download, not faster: what the file holds")
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
    drift: DriftReference | None = None
    cost: Cost
    routing: Routing
    targets: tuple[str, ...] = Field(description="runtimes that really executed the file, with version")

    @field_validator("file")
    @classmethod
    def _file_is_a_plain_name(cls, value: str) -> str:
        if PurePosixPath(value).name != value or not value.endswith(ENDINGS) or "\\" in value or "\0" in value:
            message = f"file {value!r} must be a plain file name ending in {' or '.join(ENDINGS)}, with no folder"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _packed_files_say_what_they_hold(self) -> VariantManifest:
        if self.file.endswith(ENDINGS[1]) != (self.unpacked is not None):
            message = (
                f"file '{self.file}' and unpacked {self.unpacked}: a file ending in {ENDINGS[1]} says what it holds"
            )
            raise ValueError(message)
        return self

    @property
    def is_published(self) -> bool:
        """Tell whether the file stands beside the manifest; a rejected variant leaves its evidence alone."""
        return self.routing.state != "rejected"


class CascadeManifest(Strict):
    """A calibrated pair: ``variant`` answers, and where its margin is below ``margin``, ``escalate_to`` is asked too.

    The margin of a row is the difference of the two highest values of the first output. The threshold comes from
    validation rows, every other figure from the test rows that the accuracy of the two alone is measured on.
    """

    variant: Name
    escalate_to: Name
    margin: float = Field(ge=0.0, allow_inf_nan=False, description="in the units of the variant's first output")
    calibrated_ratio: Ratio = Field(description="share of validation rows whose margin is below")
    escalated_ratio: Ratio = Field(description="share of test rows whose margin is below")
    accuracy: Ratio = Field(description="the metric of the answers given")
    low: Ratio = Field(description="lower end of the 95 % Wilson interval")
    high: Ratio = Field(description="upper end of the 95 % Wilson interval")
    lost: Count = Field(description="rows right in the variant alone and wrong in the cascade")
    gained: Count = Field(description="rows wrong in the variant alone and right in the cascade")


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


class Measured(Strict):
    """Where and when latency and memory were measured anew, of files that were built before."""

    machine: Machine
    at: str = Field(description="UTC, ISO 8601")


class ModelManifest(Strict):
    """One built version of a model: its interface, its data, its variants."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: Name
    version: str = Field(pattern=r"^[1-9][0-9]{0,8}$")
    task: Task
    metric: str
    scoring: ScoringForm | None = Field(default=None, description="when a row is right; null in older builds")
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
    cascades: tuple[CascadeManifest, ...] = Field(default=(), max_length=MOST_CASCADES)
    input_drift: InputDrift | None = None
    measured: Measured | None = Field(default=None, description="null: latency and memory are the build's")

    @property
    def profiled_on(self) -> Machine:
        """The machine on which latency and memory were measured."""
        return self.machine if self.measured is None else self.measured.machine

    @model_validator(mode="after")
    def _variants_are_distinct(self) -> ModelManifest:
        names = [variant.name for variant in self.variants]
        files = [variant.file for variant in self.variants]
        if len(set(names)) != len(names) or len(set(files)) != len(files):
            message = f"variant names and files must be distinct; got {names} and {files}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _cascades_are_of_published_variants(self) -> ModelManifest:
        names = {variant.name for variant in self.published}
        asked = [(cascade.variant, cascade.escalate_to, cascade.margin) for cascade in self.cascades]
        for variant, escalate_to, _ in asked:
            if variant == escalate_to or not {variant, escalate_to} <= names:
                message = (
                    f"a cascade goes from '{variant}' to '{escalate_to}'; it must join two different published "
                    f"variants of {', '.join(sorted(names))}"
                )
                raise ValueError(message)
        if len(set(asked)) != len(asked):
            message = f"cascades must be distinct; got {asked}"
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
