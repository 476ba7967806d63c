"""What the service says about itself, as JSON objects in the shapes that Triton's and KServe's clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from service.domain.descriptions import (
        BatchStatistics,
        CandidateReport,
        Duration,
        IndexEntry,
        ModelStatistics,
        RouteExplanation,
        ServerInfo,
        VariantState,
    )
    from service.domain.tensors import TensorSpec
    from service.domain.variants import LatencyCell, ModelInfo

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"

Json = dict[str, Any]


def server_json(info: ServerInfo) -> Json:
    """Return the server's metadata."""
    return {"name": info.name, "version": info.version, "extensions": list(info.extensions)}


def metadata_json(info: ModelInfo) -> Json:
    """Return a model's metadata; shapes include the batch as -1."""
    return {
        "name": info.name,
        "versions": [info.version],
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(spec) for spec in info.inputs],
        "outputs": [_tensor_metadata(spec) for spec in info.outputs],
    }


def config_json(info: ModelInfo) -> Json:
    """Return Triton's model configuration; dims leave the batch out where the model batches."""
    return {
        "name": info.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": info.max_batch_size,
        "input": [_tensor_config(spec, info) for spec in info.inputs],
        "output": [_tensor_config(spec, info) for spec in info.outputs],
        "instance_group": [],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "parameters": {name: {"string_value": value} for name, value in config_parameters(info).items()},
    }


def config_parameters(info: ModelInfo) -> dict[str, str]:
    """Return what a configuration says of the variants, as text."""
    return {
        "variants": ",".join(variant.name for variant in info.variants),
        "tiers": ",".join(info.tiers),
        "metric": info.metric,
    }


def config_type(datatype: str) -> str:
    """Return the configuration's name of a protocol datatype."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def config_dims(spec: TensorSpec, info: ModelInfo) -> tuple[int, ...]:
    """Return a tensor's dims as the configuration has them."""
    return spec.shape[1:] if info.max_batch_size > 0 else spec.shape


def statistics_json(models: tuple[ModelStatistics, ...]) -> Json:
    """Return Triton's statistics."""
    return {"model_stats": [_model_statistics(model) for model in models]}


def index_json(entries: tuple[IndexEntry, ...]) -> list[Json]:
    """Return the repository index."""
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in entries
    ]


def variants_json(model: str, states: tuple[VariantState, ...]) -> Json:
    """Return a model's variants with profile and state."""
    return {"model": model, "variants": [_variant(state) for state in states]}


def route_json(route: RouteExplanation) -> Json:
    """Return an explained routing decision."""
    return {
        "model": route.model,
        "chosen": route.chosen,
        "tier": route.tier,
        "reason": route.reason.value,
        "budget_ms": _ms(route.budget_s),
        "wait_ms": _ms(route.wait_s),
        "hardware_class": route.hardware_class,
        "candidates": [_candidate(candidate) for candidate in route.candidates],
    }


def _tensor_metadata(spec: TensorSpec) -> Json:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _tensor_config(spec: TensorSpec, info: ModelInfo) -> Json:
    return {"name": spec.name, "data_type": config_type(spec.datatype), "dims": list(config_dims(spec, info))}


def _model_statistics(model: ModelStatistics) -> Json:
    parts = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {part: _duration(getattr(model, part)) for part in parts},
        "batch_stats": [_batch(batch) for batch in model.batches],
    }


def _batch(batch: BatchStatistics) -> Json:
    return {
        "batch_size": batch.batch_size,
        "compute_input": _duration(batch.compute_input),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }


def _duration(duration: Duration) -> Json:
    return {"count": duration.count, "ns": duration.ns}


def _variant(state: VariantState) -> Json:
    variant = state.variant
    return {
        "name": variant.name,
        "tier": variant.tier,
        "state": state.state,
        "reason": state.reason,
        "drift": state.drift,
        "accuracy": variant.accuracy,
        "is_routable": variant.is_routable,
        "note": variant.note,
        "memory_bytes": variant.memory_bytes,
        "file_bytes": variant.file_bytes,
        "digest": variant.digest,
        "correction_ratio": state.correction_ratio,
        "profile": [_cell(cell) for cell in variant.profile.cells],
    }


def _cell(cell: LatencyCell) -> Json:
    return {
        "batch_size": cell.batch_size,
        "p50_ms": _ms(cell.p50_s),
        "p95_ms": _ms(cell.p95_s),
        "p99_ms": _ms(cell.p99_s),
    }


def _candidate(candidate: CandidateReport) -> Json:
    return {
        "variant": candidate.variant,
        "tier": candidate.tier,
        "accuracy": candidate.accuracy,
        "predicted_ms": _ms(candidate.predicted_s),
        "fits_budget": candidate.fits_budget,
        "is_candidate": candidate.is_candidate,
        "why": candidate.why,
    }


def _ms(duration_s: float) -> float:
    return round(duration_s * 1e3, 3)
