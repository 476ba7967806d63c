"""Every gRPC method as a row of one table, independent of the server that carries it.

A row has the request's message class and a handler. The adapter (``grpc_asgi``) parses bytes into the message, calls
the handler with the plane and a ``CallContext``, and sends what comes back. Handlers raise the domain's errors; the
adapter maps them with ``CallContext.refuse``.

The requests of one stream are answered one after the other, in their order: a slow one holds up those behind it. A
client that wants them computed together sends them as calls of their own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from service.api.admin_routes import REFUSAL
from service.api.answers import Story, metadata_of
from service.api.grpc_errors import grpc_status
from service.api.grpc_health import check_health, watch_health
from service.api.http_codec import RequestHead
from service.api.knobs import HEADERS
from service.api.names import check_request_id, check_version, new_request_id, shown, split_model_name
from service.api.plane import Refusal, ignore_refusal
from service.api.proto_answer import encode_response, encode_stream_response
from service.api.proto_codec import decode_request
from service.api.proto_descriptions import config_proto, index_proto, metadata_proto, server_proto, statistics_proto
from service.api.proto_message import read_message
from service.api.tracing import RESPONSE_HEADER, ending
from service.domain.errors import AdminOnly, InvalidRequest, NotSupported

if TYPE_CHECKING:
    from service.api.grpc_errors import GrpcStatus
    from service.api.plane import OnRefused, Plane, Stage
    from service.api.proto_message import InferMessage
    from service.domain.inference import InferenceRequest, InferenceResponse
    from service.domain.trace import Trace, Tracing

Proto = Any  # the stubs ship no types; in the place of an answer its bytes will do

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"


def no_deadline() -> None:
    """Return that a call has no deadline."""


@dataclass(slots=True)
class CallContext:
    """One call: what came with it, and the metadata that its answer will trail.

    ``time_left`` returns the seconds until the call's deadline, ``None`` where it has none. ``request_id`` starts as
    the one from the metadata, or a new one, and becomes the request's own once that is known. ``stage`` is how far the
    request came that is answered now. ``common`` are those trailers that many answers have in common. ``tracing`` is
    ``None`` where nothing is traced.
    """

    metadata: Mapping[str, str]
    time_left: Callable[[], float | None] = no_deadline
    on_refused: OnRefused = ignore_refusal
    request_id: str = field(default_factory=new_request_id)
    stage: Stage = "route"
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    common: tuple[tuple[bytes, bytes], ...] = ()
    tracing: Tracing | None = None

    def refuse(self, error: Exception) -> GrpcStatus:
        """Report a failure, and return the status that tells the client of it."""
        self.on_refused(Refusal("grpc", self.request_id, error, self.stage))
        return grpc_status(error, self.request_id)


UnaryHandler = Callable[["Plane", Proto, CallContext], Coroutine[Any, Any, Proto]]
StreamHandler = Callable[["Plane", AsyncIterator[Proto], CallContext], AsyncGenerator[Proto, None]]


@dataclass(frozen=True, slots=True)
class Unary:
    """A method with one request and one response."""

    request_class: Proto
    handler: UnaryHandler


@dataclass(frozen=True, slots=True)
class Stream:
    """A method that answers with a stream; the requests are a stream too, of one message where the method says so."""

    request_class: Proto
    handler: StreamHandler


Method = Unary | Stream


def first_stage(method: Method | None) -> Stage:
    """Return the stage at which a call of this method starts; ``None`` is an unknown method."""
    is_infer = method is not None and method.request_class is service_pb2.ModelInferRequest
    return "decode" if is_infer else "route"


def unknown_method(path: str) -> NotSupported:
    """Return the error of a call to a method that is not in the table."""
    return NotSupported(f"no method {shown(path)} is offered")


def parse(request_class: Proto, data: bytes | memoryview) -> Proto:
    """Return the message that the bytes are; an infer request as an ``InferMessage``, which may hold views of them.

    Raises:
        InvalidRequest: They are not that message, or hold more tensors than any request does.
    """
    if request_class is service_pb2.ModelInferRequest:
        return read_message(data)
    try:
        return request_class.FromString(bytes(data))
    except DecodeError:
        message = f"the message of {len(data)} bytes is no {request_class.DESCRIPTOR.full_name}"
        raise InvalidRequest(message) from None


def take_request_id(context: CallContext) -> None:
    """Take the request's id from the metadata, where it is given.

    Raises:
        InvalidRequest: The id is too long or holds control characters.
    """
    said = context.metadata.get("x-request-id")
    if said:
        context.request_id = check_request_id(said)


async def _infer(plane: Plane, message: InferMessage, context: CallContext) -> bytes:
    if context.tracing is not None:
        trace = context.tracing.begin("grpc", context.metadata.get("traceparent"), context.metadata.get("tracestate"))
        if trace is not None:
            return await _infer_traced(plane, message, context, trace)
    return _encode(await plane.infer(_decode(message, context)), context)


async def _infer_traced(plane: Plane, message: InferMessage, context: CallContext, trace: Trace) -> bytes:
    with ending(trace):
        request = _decode(message, context)
        trace.decoded(request)
        response = await plane.infer(request)
        trace.answered(response.answer)
        answer = _encode(response, context)
        context.trailers.append((RESPONSE_HEADER.encode(), trace.response_header.encode()))
        return answer


def _decode(message: InferMessage, context: CallContext) -> InferenceRequest:
    request = decode_request(message, _head(message, context), context.time_left())
    context.request_id = request.id
    context.stage = "infer"
    return request


def _encode(response: InferenceResponse, context: CallContext) -> bytes:
    story = Story(response.answer)
    fixed, numbers = story.fixed(), story.numbers()
    context.common = fixed.metadata
    context.trailers += metadata_of(numbers)
    return encode_response(response, fixed, numbers)


async def _stream_infer(
    plane: Plane, messages: AsyncIterator[InferMessage], context: CallContext
) -> AsyncGenerator[Proto, None]:
    """Answer one request after the other; an error is a message, and the stream goes on, as in Triton."""
    async for message in messages:
        context.request_id = message.id or new_request_id()
        try:
            answer = await _infer(plane, message, context)
            context.common = ()  # it would speak of many requests at once
            context.trailers.clear()
        except Exception as error:  # noqa: BLE001 - one failed request does not end the others' stream
            failed = service_pb2.ModelInferResponse(model_name=message.said.proto.model_name, id=message.id)
            text = context.refuse(error).message
            yield service_pb2.ModelStreamInferResponse(error_message=text, infer_response=failed)
        else:
            yield encode_stream_response(answer)
        context.stage = "decode"  # of the next one


async def _server_live(plane: Plane, _: Proto, __: CallContext) -> Proto:
    return service_pb2.ServerLiveResponse(live=plane.is_live())


async def _server_ready(plane: Plane, _: Proto, __: CallContext) -> Proto:
    return service_pb2.ServerReadyResponse(ready=plane.is_ready())


async def _server_metadata(plane: Plane, _: Proto, __: CallContext) -> Proto:
    return server_proto(plane.server_info())


async def _model_ready(plane: Plane, message: Proto, _: CallContext) -> Proto:
    return service_pb2.ModelReadyResponse(ready=plane.is_model_ready(*_named(message)))


async def _model_metadata(plane: Plane, message: Proto, _: CallContext) -> Proto:
    return metadata_proto(plane.model_info(*_named(message)))


async def _model_config(plane: Plane, message: Proto, _: CallContext) -> Proto:
    return config_proto(plane.model_info(*_named(message)))


async def _model_statistics(plane: Plane, message: Proto, _: CallContext) -> Proto:
    if not message.name:
        return statistics_proto(plane.statistics("", ""))
    model, _pinned = split_model_name(message.name)
    return statistics_proto(plane.statistics(model, check_version(message.version, model)))


async def _index(plane: Plane, message: Proto, _: CallContext) -> Proto:
    return index_proto(plane.index(ready_only=message.ready))


async def _load(plane: Plane, message: Proto, _: CallContext) -> Proto:
    await plane.load_model(split_model_name(message.model_name)[0])
    return service_pb2.RepositoryModelLoadResponse()


async def _unload(plane: Plane, message: Proto, _: CallContext) -> Proto:
    await plane.unload_model(split_model_name(message.model_name)[0])
    return service_pb2.RepositoryModelUnloadResponse()


async def _refuse_admin(_: Plane, __: Proto, ___: CallContext) -> Proto:
    raise AdminOnly(REFUSAL)


async def _left_out(_: Plane, message: Proto, __: CallContext) -> Proto:
    name = message.DESCRIPTOR.name.removesuffix("Request")
    raise NotSupported(f"method {name} is not offered: this server has no shared memory, trace or log settings")


_LEFT_OUT: Final = (
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)


def methods(*, admin: bool = False) -> dict[str, Method]:
    """Return every method by its full name, such as ``/inference.GRPCInferenceService/ModelInfer``."""
    offered = {
        "ServerLive": _server_live,
        "ServerReady": _server_ready,
        "ServerMetadata": _server_metadata,
        "ModelReady": _model_ready,
        "ModelMetadata": _model_metadata,
        "ModelConfig": _model_config,
        "ModelStatistics": _model_statistics,
        "ModelInfer": _infer,
        "RepositoryIndex": _index,
        "RepositoryModelLoad": _load if admin else _refuse_admin,
        "RepositoryModelUnload": _unload if admin else _refuse_admin,
    } | dict.fromkeys(_LEFT_OUT, _left_out)
    table: dict[str, Method] = {
        f"/{SERVICE}/{name}": Unary(getattr(service_pb2, f"{name}Request"), handler)
        for name, handler in offered.items()
    }
    table[f"/{SERVICE}/ModelStreamInfer"] = Stream(service_pb2.ModelInferRequest, _stream_infer)
    table[f"/{HEALTH}/Check"] = Unary(health_pb2.HealthCheckRequest, check_health)
    table[f"/{HEALTH}/Watch"] = Stream(health_pb2.HealthCheckRequest, watch_health)
    return table


def _named(message: Proto) -> tuple[str, str]:
    split_model_name(message.name)
    return message.name, check_version(message.version, message.name)


def _head(message: InferMessage, context: CallContext) -> RequestHead:
    proto, metadata = message.said.proto, context.metadata
    model, pinned = split_model_name(proto.model_name)
    knob_metadata = {key: metadata[key] for key in HEADERS & metadata.keys()} if metadata else {}
    return RequestHead(model, context.request_id, check_version(proto.model_version, model), pinned, knob_metadata)
