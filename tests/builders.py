"""Models for tests: as routing sees them, and as a repository on disk with tiny ONNX files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.domain.inference import NO_KNOBS, InferenceRequest, Knobs
from service.domain.tensors import Tensor, TensorSpec
from service.domain.variants import Cascade, LatencyCell, ModelInfo, Profile, Variant
from variants.evidence import Accuracy, Cost, Hardware, Latency, LatencyRow, Memory, Reference, Size
from variants.manifest import (
    MANIFEST_FILE,
    CascadeManifest,
    Machine,
    ModelManifest,
    Routing,
    Split,
    TensorInfo,
    Tier,
    VariantManifest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIGEST = "ab" * 32


@dataclass(frozen=True)
class VariantPlan:
    """One variant to write: ``y = scale * sum(x)`` for each row; ``latency_s`` is what its profile says of one row.

    ``tail`` is how many times the median the profile's upper quantiles are: the gateway predicts by these, so a variant
    with a long tail is predicted to take that much longer than it does, however fast or busy the machine is.
    """

    name: str
    tier: Tier
    accuracy: float
    latency_s: float
    scale: float = 1.0
    is_routable: bool = True
    threads: int = 1
    memory_bytes: int = 2**20
    tail: float = 1.0


@dataclass(frozen=True)
class ModelPlan:
    """One model to write."""

    name: str = "sums"
    version: str = "1"
    max_batch_size: int = 8
    variants: tuple[VariantPlan, ...] = (
        VariantPlan("full", "full", 0.92, 0.030),
        VariantPlan("quantized", "quantized", 0.915, 0.009),
        VariantPlan("distilled", "distilled", 0.86, 0.002),
    )
    cascades: tuple[Cascade, ...] = ()


SUMS = ModelPlan()


def write_repository(root: Path, models: Sequence[ModelPlan] = (SUMS,)) -> Path:
    """Write models that ``tiergate serve`` can load; return the repository's folder.

    Every model takes ``x``, FP32 ``[-1, 4]``, and returns ``y``, FP32 ``[-1, 1]``, the sum of each row times the
    variant's scale.
    """
    for model in models:
        write_model(root, model)
    return root


def write_model(root: Path, model: ModelPlan = SUMS) -> Path:
    """Write one version of one model; return its version folder."""
    folder = root / model.name / model.version
    folder.mkdir(parents=True)
    contents = {plan.name: sums_onnx(plan.scale) for plan in model.variants}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    manifest = make_manifest(model, contents)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


def replace_file(folder: Path, variant: str, content: bytes) -> None:
    """Give a variant other bytes and a manifest that knows them."""
    manifest = ModelManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    (folder / f"{variant}.onnx").write_bytes(content)
    changed = [_with_content(item, content) if item.name == variant else item for item in manifest.variants]
    manifest = manifest.model_copy(update={"variants": tuple(changed)})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")


def sums_onnx(scale: float = 1.0) -> bytes:
    """Return an ONNX file that computes ``y = scale * sum(x)`` for each row."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [4, 1], [scale] * 4)
    return onnx_model([helper.make_node("MatMul", ["x", "weight"], ["y"])], [weight])


def many_nodes_onnx(turns: int) -> bytes:
    """Return an ONNX file that computes the sum of each row, and then runs through two nodes so many times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["sum"], ["same"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["sums"]),
        helper.make_node("Loop", ["turns", "", "sums"], ["y"], body=body),
    ]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [4, 1], [1.0] * 4)
    return onnx_model(nodes, [weight, helper.make_tensor("turns", TensorProto.INT64, [], [turns])])


def onnx_model(nodes: Sequence[Any], initializers: Sequence[Any] = (), **fields: Any) -> bytes:  # noqa: ANN401 - protobuf
    """Return an ONNX file from ``x [-1, 4]`` to ``y [-1, 1]`` with these nodes; ``fields`` go to the model."""
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        initializers,
    )
    fields.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    model = helper.make_model(graph, ir_version=10, **fields)
    content: bytes = model.SerializeToString()
    return content


def make_manifest(model: ModelPlan, contents: dict[str, bytes]) -> ModelManifest:
    """Return the manifest of a model whose variants' files are ``contents``."""
    return ModelManifest(
        model=model.name,
        version=model.version,
        task="classification",
        metric="accuracy",
        labels=(),
        inputs=(TensorInfo(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorInfo(name="y", datatype="FP32", shape=(-1, 1)),),
        max_batch_size=model.max_batch_size,
        recipe="sums",
        recipe_parameters={},
        build_key=DIGEST,
        seed=0,
        tools={"onnx": onnx.__version__},
        splits={"test": Split(rows=100, sha256=DIGEST)},
        machine=Machine(cpu="test", cores=1, memory_bytes=2**30, system="test", isa=()),
        built_at="2025-01-01T00:00:00+00:00",
        variants=tuple(_manifest_of(plan, contents[plan.name], model.max_batch_size) for plan in model.variants),
        cascades=tuple(map(_cascade_of, model.cascades)),
    )


def _cascade_of(plan: Cascade) -> CascadeManifest:
    return CascadeManifest(
        variant=plan.variant,
        escalate_to=plan.escalate_to,
        margin=plan.margin,
        calibrated_ratio=plan.escalated_ratio,
        escalated_ratio=plan.escalated_ratio,
        accuracy=plan.accuracy,
        low=max(0.0, plan.accuracy - 0.05),
        high=min(1.0, plan.accuracy + 0.05),
        lost=0,
        gained=0,
    )


def _manifest_of(plan: VariantPlan, content: bytes, most_rows: int) -> VariantManifest:
    sizes = sorted({1, most_rows})
    return VariantManifest(
        name=plan.name,
        tier=plan.tier,
        file=f"{plan.name}.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        parent=None,
        parent_sha256=None,
        steps=(),
        opset=17,
        size=Size(
            parameters=4,
            nonzero_parameters=4,
            macs=4,
            weight_bytes={"FLOAT": 16},
            file_bytes=len(content),
            compressed_bytes=len(content),
        ),
        memory=Memory(loaded_bytes=plan.memory_bytes, peak_bytes=plan.memory_bytes),
        latency=Latency(rows=tuple(_latency_row(size, plan) for size in sizes), cold_start_s=0.01, load_average=0.0),
        accuracy=Accuracy(
            metric="accuracy",
            dataset="sums",
            dataset_sha256=DIGEST,
            rows=100,
            value=plan.accuracy,
            low=max(0.0, plan.accuracy - 0.05),
            high=min(1.0, plan.accuracy + 0.05),
            ratio_to_full=1.0,
            flips=0,
            lost=0,
            gained=0,
            mcnemar_p=1.0,
            non_inferiority=(),
            kl_to_full=0.0,
            calibration_error=0.0,
        ),
        parity=None,
        hardware=Hardware(measured_on="test", isa=(), verified_isa=(), proven_isa=()),
        reference=Reference(rows=0, inputs={}),
        cost=Cost(train_s=0.0, build_s=0.0),
        routing=Routing(state="routable" if plan.is_routable else "dominated", reason="as planned"),
        targets=(),
    )


def _latency_row(size: int, plan: VariantPlan) -> LatencyRow:
    seconds = plan.latency_s * size
    return LatencyRow(
        batch_size=size,
        threads=plan.threads,
        warmups=1,
        runs=10,
        mean_s=seconds,
        p50_s=seconds,
        p90_s=seconds * plan.tail,
        p95_s=seconds * plan.tail,
        p99_s=seconds * plan.tail,
    )


def _with_content(item: VariantManifest, content: bytes) -> VariantManifest:
    size = item.size.model_copy(update={"file_bytes": len(content)})
    return item.model_copy(update={"sha256": hashlib.sha256(content).hexdigest(), "size": size})


def make_variant(
    name: str,
    accuracy: float,
    compute_s: float,
    tier: str = "",
    *,
    is_routable: bool = True,
    memory_bytes: int = 2**20,
) -> Variant:
    """Return a variant whose compute time grows in proportion to the rows; the tier is named like the variant."""
    cells = tuple(LatencyCell(rows, *[compute_s * rows] * 3) for rows in (1, 8))
    return Variant(name, tier or name, accuracy, Profile(cells), memory_bytes, 1000, DIGEST, is_routable)


LADDER = (
    make_variant("full", 0.920, 0.030),
    make_variant("quantized", 0.915, 0.009),
    make_variant("pruned-quantized", 0.900, 0.005),
    make_variant("distilled-quantized", 0.860, 0.002),
)
"""The ladder of the first simulation in the design notes."""


def make_model(
    variants: Sequence[Variant] = LADDER,
    name: str = "sums",
    max_batch_size: int = 8,
    cascades: Sequence[Cascade] = (),
) -> ModelInfo:
    """Return a model from ``x [-1, 4]`` to ``y [-1, 1]``."""
    return ModelInfo(
        name=name,
        version="1",
        inputs=(TensorSpec("x", "FP32", (-1, 4)),),
        outputs=(TensorSpec("y", "FP32", (-1, 1)),),
        max_batch_size=max_batch_size,
        variants=tuple(variants),
        cascades=tuple(cascades),
    )


def make_request(value: float = 1.0, rows: int = 1, knobs: Knobs = NO_KNOBS, model: str = "sums") -> InferenceRequest:
    """Return a request whose rows each sum to four times ``value``."""
    data = np.full((rows, 4), value, dtype=np.float32)
    return InferenceRequest(model, "request-1", (Tensor("x", "FP32", data),), knobs=knobs)
