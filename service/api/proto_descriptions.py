"""What the service says about itself, as the protocol's protobuf messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2, service_pb2

from service.api.json_descriptions import BACKEND, PLATFORM, config_dims, config_parameters, config_type

if TYPE_CHECKING:
    from service.domain.descriptions import BatchStatistics, Duration, IndexEntry, ModelStatistics, ServerInfo
    from service.domain.tensors import TensorSpec
    from service.domain.variants import ModelInfo

Proto = Any  # the stubs ship no types


def server_proto(info: ServerInfo) -> Proto:
    """Return the server's metadata."""
    return service_pb2.ServerMetadataResponse(name=info.name, version=info.version, extensions=info.extensions)


def metadata_proto(info: ModelInfo) -> Proto:
    """Return a model's metadata; shapes include the batch as -1."""
    return service_pb2.ModelMetadataResponse(
        name=info.name,
        versions=[info.version],
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in info.inputs],
        outputs=[_tensor_metadata(spec) for spec in info.outputs],
    )


def config_proto(info: ModelInfo) -> Proto:
    """Return Triton's model configuration; dims leave the batch out where the model batches."""
    config = model_config_pb2.ModelConfig(
        name=info.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=info.max_batch_size,
        input=[_tensor_config(model_config_pb2.ModelInput, spec, info) for spec in info.inputs],
        output=[_tensor_config(model_config_pb2.ModelOutput, spec, info) for spec in info.outputs],
        dynamic_batching=model_config_pb2.ModelDynamicBatching(),
    )
    config.version_policy.latest.num_versions = 1
    for name, value in config_parameters(info).items():
        config.parameters[name].string_value = value
    return service_pb2.ModelConfigResponse(config=config)


def statistics_proto(models: tuple[ModelStatistics, ...]) -> Proto:
    """Return Triton's statistics."""
    return service_pb2.ModelStatisticsResponse(model_stats=[_model_statistics(model) for model in models])


def index_proto(entries: tuple[IndexEntry, ...]) -> Proto:
    """Return the repository index."""
    message = service_pb2.RepositoryIndexResponse()
    for entry in entries:
        message.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
    return message


def _tensor_metadata(spec: TensorSpec) -> Proto:
    return service_pb2.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _tensor_config(message_class: Proto, spec: TensorSpec, info: ModelInfo) -> Proto:
    data_type = model_config_pb2.DataType.Value(config_type(spec.datatype))
    return message_class(name=spec.name, data_type=data_type, dims=config_dims(spec, info))


def _model_statistics(model: ModelStatistics) -> Proto:
    return service_pb2.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=model.last_inference_ms,
        inference_count=model.inference_count,
        execution_count=model.execution_count,
        inference_stats=service_pb2.InferStatistics(
            success=_duration(model.success),
            fail=_duration(model.fail),
            queue=_duration(model.queue),
            compute_input=_duration(model.compute_input),
            compute_infer=_duration(model.compute_infer),
            compute_output=_duration(model.compute_output),
            cache_hit=_duration(model.cache_hit),
            cache_miss=_duration(model.cache_miss),
        ),
        batch_stats=[_batch(batch) for batch in model.batches],
    )


def _batch(batch: BatchStatistics) -> Proto:
    return service_pb2.InferBatchStatistics(
        batch_size=batch.batch_size,
        compute_input=_duration(batch.compute_input),
        compute_infer=_duration(batch.compute_infer),
        compute_output=_duration(batch.compute_output),
    )


def _duration(duration: Duration) -> Proto:
    return service_pb2.StatisticDuration(count=duration.count, ns=duration.ns)
