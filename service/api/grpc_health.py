"""``grpc.health.v1.Health``: what gRPC load balancers and Kubernetes ask.

The empty service is the server; ``inference.GRPCInferenceService`` is the same. Any other name is taken for a model's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2

from service.api.names import split_model_name
from service.domain.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from service.api.grpc_methods import CallContext
    from service.api.plane import Plane

_SERVER_NAMES: Final = ("", "inference.GRPCInferenceService")
_WATCH_INTERVAL_S: Final = 1.0
_SERVING: Final[int] = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final[int] = health_pb2.HealthCheckResponse.NOT_SERVING


async def check_health(plane: Plane, message: Any, _: CallContext) -> health_pb2.HealthCheckResponse:  # noqa: ANN401 - protobuf ships no types
    """Return whether a service can answer.

    Raises:
        NotFound: Nothing of that name is known.
    """
    return health_pb2.HealthCheckResponse(status=_status(plane, message.service))


async def watch_health(
    plane: Plane, messages: AsyncIterator[Any], _: CallContext
) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
    """Yield a service's status now and at every change; an unknown one may yet come to be."""
    message = await anext(messages)
    last = None
    while True:
        try:
            status = _status(plane, message.service)
        except NotFound:
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if status != last:
            last = status
            yield health_pb2.HealthCheckResponse(status=status)
        await asyncio.sleep(_WATCH_INTERVAL_S)


def _status(plane: Plane, service: str) -> int:
    if service not in _SERVER_NAMES:
        split_model_name(service)  # refuses what is no name
        return _SERVING if plane.is_model_ready(service, "") else _NOT_SERVING
    is_ready = plane.is_ready()
    return _SERVING if is_ready else _NOT_SERVING
