"""Any server of the Open Inference Protocol as a backend, by gRPC or HTTP: Triton, KServe, MLServer, another tiergate.

One ``Endpoint`` is one server with one connection (gRPC) or a pool of kept ones (HTTP), used on one event loop. It
translates and nothing more: ``engine.remote_variant`` decides which endpoint is asked, and what follows a failure.

What a failure says is read from the protocol's own codes. A server that cannot be reached, or that refuses for load or
because it is leaving, has computed nothing: ``RemoteUnavailable``. Anything else is ``RemoteBackendFailed``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from service.domain.errors import RemoteBackendFailed, RemoteUnavailable
from service.domain.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from numpy.typing import NDArray

    from service.domain.variants import ModelInfo

Outputs = tuple["NDArray[Any]", ...]

_UNAVAILABLE: Final = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED", "429", "502", "503"})
_MOST_MESSAGE_BYTES: Final = 2**31 - 1
_CHANNEL: Final = [
    ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
    # A server that comes back is found by its health probe; the channel must not sit out minutes by itself.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The environment's proxies are for the world outside, as for HTTP.
    ("grpc.enable_http_proxy", 0),
]
_NEVER_S: Final = 1e6
"""aiohttp's own limit; calls carry their deadlines."""

_BINARY: Final = "binary_tensor_data"


@dataclass(frozen=True, slots=True)
class Called:
    """What is asked of a server: its name for the variant, the version ('' its newest), and the model's interface."""

    model: str
    version: str
    info: ModelInfo


class Endpoint(Protocol):
    """One server; every method raises ``RemoteUnavailable`` or ``RemoteBackendFailed`` where it fails."""

    async def is_ready(self) -> bool:
        """Ask whether the model is loaded and can answer."""

    async def check(self) -> str:
        """Compare its interface with what is called; return what differs, '' where nothing does."""

    async def infer(self, inputs: Mapping[str, NDArray[Any]], timeout_s: float) -> Outputs:
        """Have one batch computed; the server is told how long somebody waits."""

    async def close(self) -> None:
        """Close the connections."""


def connect(address: str, called: Called) -> Endpoint:
    """Return the endpoint at ``grpc://host:port`` or ``http://host:port``, not yet connected; on its event loop."""
    parts = urlsplit(address)
    return (_GrpcEndpoint if parts.scheme == "grpc" else _HttpEndpoint)(parts.netloc, called)


class _GrpcEndpoint:
    def __init__(self, netloc: str, called: Called) -> None:
        self._client = triton_grpc.InferenceServerClient(netloc, channel_args=_CHANNEL)
        self._called = called

    async def is_ready(self) -> bool:
        return bool(await _told(self._client.is_model_ready(self._called.model, self._called.version)))

    async def check(self) -> str:
        found = await _told(self._client.get_model_metadata(self._called.model, self._called.version))
        tensors = [[(item.name, item.datatype) for item in items] for items in (found.inputs, found.outputs)]
        return _difference(tensors, self._called.info)

    async def infer(self, inputs: Mapping[str, NDArray[Any]], timeout_s: float) -> Outputs:
        tensors = _tensors(triton_grpc.InferInput, inputs, self._called.info)
        told = _asked(self._called, timeout_s)
        result = await _told(self._client.infer(inputs=tensors, client_timeout=timeout_s, **told))
        return _outputs(result, self._called.info)

    async def close(self) -> None:
        await self._client.close()


class _HttpEndpoint:
    def __init__(self, netloc: str, called: Called) -> None:
        self._client = triton_http.InferenceServerClient(netloc, conn_limit=0, conn_timeout=_NEVER_S)
        self._called = called
        self._is_binary = False

    async def is_ready(self) -> bool:
        return bool(await _told(self._client.is_model_ready(self._called.model, self._called.version)))

    async def check(self) -> str:
        server = await _told(self._client.get_server_metadata())
        self._is_binary = _BINARY in server.get("extensions", ())
        found = await _told(self._client.get_model_metadata(self._called.model, self._called.version))
        tensors = [[(item["name"], item["datatype"]) for item in found[kind]] for kind in ("inputs", "outputs")]
        return _difference(tensors, self._called.info)

    async def infer(self, inputs: Mapping[str, NDArray[Any]], timeout_s: float) -> Outputs:
        called, binary = self._called, self._is_binary
        tensors = _tensors(triton_http.InferInput, inputs, called.info, binary_data=binary)
        wanted = [triton_http.InferRequestedOutput(spec.name, binary_data=binary) for spec in called.info.outputs]
        result = await _told(self._client.infer(inputs=tensors, outputs=wanted, **_asked(called, timeout_s)))
        return _outputs(result, called.info)

    async def close(self) -> None:
        await self._client.close()


def _asked(called: Called, timeout_s: float) -> dict[str, Any]:
    """Return what every call says: which model, and how long somebody waits (the protocol's parameter, our header).

    Another tiergate turns a request away at its door by the budget, before it decodes it; others ignore the header.
    """
    return {
        "model_name": called.model,
        "model_version": called.version,
        "timeout": int(timeout_s * 1e6),  # microseconds
        "headers": {"x-latency-budget-ms": f"{max(timeout_s, 1e-3) * 1e3:.3f}"},
    }


async def _told(call: Awaitable[Any]) -> Any:  # noqa: ANN401 - Triton ships no types
    """Return what a call gives, its failure in our words."""
    try:
        return await call
    except InferenceServerException as error:
        told = str(error.message()).splitlines()[:1]
        message = f"{error.status()}: {told[0][:300] if told else 'no reason given'}"
        kind = RemoteUnavailable if str(error.status()) in _UNAVAILABLE else RemoteBackendFailed
        raise kind(message) from error
    except (triton_http.aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise RemoteUnavailable(f"{type(error).__name__}: {str(error)[:300]}") from error
    except (asyncio.CancelledError, TimeoutError):
        raise
    except Exception as error:  # the client fails in its own ways on answers that break the protocol
        raise RemoteBackendFailed(f"its answer cannot be read: {type(error).__name__}") from error


def _tensors(kind: Any, inputs: Mapping[str, NDArray[Any]], info: ModelInfo, **how: bool) -> list[Any]:  # noqa: ANN401 - Triton's
    tensors = []
    for spec in info.inputs:
        data = inputs[spec.name]
        tensor = kind(spec.name, list(data.shape), spec.datatype)
        tensor.set_data_from_numpy(data, **how)
        tensors.append(tensor)
    return tensors


def _outputs(result: Any, info: ModelInfo) -> Outputs:  # noqa: ANN401 - Triton's
    outputs = []
    for spec in info.outputs:
        data = result.as_numpy(spec.name)
        if data is None or data.dtype != DTYPES[spec.datatype]:
            found = "missing" if data is None else data.dtype
            raise RemoteBackendFailed(f"output '{spec.name}' is {found}; the manifest says {spec.datatype}")
        outputs.append(_as_bytes(data) if spec.datatype == "BYTES" else data)
    return tuple(outputs)


def _as_bytes(texts: NDArray[Any]) -> NDArray[Any]:
    """Return strings as bytes: those that came as JSON are text."""
    result = np.empty(texts.size, dtype=np.object_)
    result[:] = [item.encode() if isinstance(item, str) else item for item in texts.ravel()]
    return result.reshape(texts.shape)


def _difference(tensors: list[list[tuple[str, str]]], info: ModelInfo) -> str:
    for kind, found, specs in zip(("inputs", "outputs"), tensors, (info.inputs, info.outputs), strict=True):
        wanted = {spec.name: spec.datatype for spec in specs}
        if dict(found) != wanted:
            return f"its {kind} are {dict(found)}; the manifest declares {wanted}"
    return ""
