"""Any server of the Open Inference Protocol as a backend, by gRPC or HTTP: Triton, KServe, MLServer, another tiergate.

One ``Endpoint`` is one server with one connection (gRPC) or a pool of kept ones (HTTP), used on one event loop. It
translates and nothing more: ``engine.remote_variant`` decides which endpoint is asked, and what follows a failure.

What a failure says is read from the protocol's own codes. A server that cannot be reached, or that refuses for load or
because it is leaving, has computed nothing: ``RemoteUnavailable``. Anything else is ``RemoteBackendFailed``.

A server is not trusted: its answers are bounded by what the model's outputs can take, compressed ones are refused, its
redirects are not followed, and what it returns must have the names, types and shapes of the manifest.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from service.domain.errors import BackendFailed, RemoteBackendFailed, RemoteUnavailable
from service.domain.tensors import DTYPES
from service.engine.backends.bounded_http import BoundedSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from numpy.typing import NDArray

    from service.domain.tensors import TensorSpec
    from service.domain.variants import ModelInfo
    from service.engine.backends.backend import Call
    from service.engine.backends.trust import Trust

Outputs = tuple["NDArray[Any]", ...]

_UNAVAILABLE: Final = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED", "429", "502", "503"})
_MOST_MESSAGE_BYTES: Final = 2**31 - 1
_MOST_UNKNOWN_BYTES: Final = 2**28
"""The largest answer where an output's size is not known beforehand: texts, or open dimensions."""

_MOST_BESIDES_BYTES: Final = 2**20
_NUMBER_BYTES: Final = 32
"""A number as JSON, generously."""

_MOST_TOLD: Final = 300
_CHANNEL: Final = [
    ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
    # Compressed answers are not asked for (1 is the bit of "not compressed"), and those that come are not unpacked: a
    # small message could become a huge one.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
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

    @property
    def most_bytes(self) -> int:
        """The most that an answer may take, in whichever form."""
        numbers = [math.prod((self.info.max_batch_size, *spec.shape[1:])) for spec in self.info.outputs]
        if any(spec.datatype == "BYTES" or min(spec.shape[1:], default=0) < 0 for spec in self.info.outputs):
            return _MOST_UNKNOWN_BYTES
        return min(_MOST_MESSAGE_BYTES, _MOST_BESIDES_BYTES + _NUMBER_BYTES * sum(numbers))


class Endpoint(Protocol):
    """One server; every method raises ``RemoteUnavailable`` or ``RemoteBackendFailed`` where it fails."""

    async def is_ready(self) -> bool:
        """Ask whether the model is loaded and can answer."""

    async def check(self) -> str:
        """Compare its interface with what is called; return what differs, '' where nothing does."""

    async def infer(self, call: Call) -> Outputs:
        """Have one batch computed; the server is told how long somebody waits."""

    async def close(self) -> None:
        """Close the connections."""


def connect(address: str, called: Called, trust: Trust | None = None) -> Endpoint:
    """Return the endpoint at ``SCHEME://host:port``, not yet connected; on its event loop.

    The schemes are ``grpc``, ``http``, and with TLS ``grpcs``, ``https``, for which ``trust`` says whom to believe;
    without it, whom the system believes.
    """
    parts = urlsplit(address)
    kind = _GrpcEndpoint if parts.scheme.startswith("grpc") else _HttpEndpoint
    return kind(parts.netloc, called, trust, is_secure=parts.scheme.endswith("s"))


class _GrpcEndpoint:
    def __init__(self, netloc: str, called: Called, trust: Trust | None, *, is_secure: bool) -> None:
        credentials = None
        if is_secure:
            pems = (trust.ca, trust.key, trust.certificate) if trust else ()
            credentials = triton_grpc.grpc.ssl_channel_credentials(*pems)
        options = [*_CHANNEL, ("grpc.max_receive_message_length", called.most_bytes)]
        self._client = triton_grpc.InferenceServerClient(netloc, creds=credentials, channel_args=options)
        self._called = called

    async def is_ready(self) -> bool:
        return bool(await _told(self._client.is_model_ready(self._called.model, self._called.version)))

    async def check(self) -> str:
        found = await _told(self._client.get_model_metadata(self._called.model, self._called.version))
        tensors = [[(item.name, item.datatype) for item in items] for items in (found.inputs, found.outputs)]
        return _difference(tensors, self._called.info)

    async def infer(self, call: Call) -> Outputs:
        tensors = _tensors(triton_grpc.InferInput, call.inputs, self._called.info)
        answer = self._client.infer(inputs=tensors, client_timeout=call.timeout_s, **_asked(self._called, call))
        return await _told(_outputs(answer, self._called.info, call.rows))

    async def close(self) -> None:
        await self._client.close()


class _HttpEndpoint:
    def __init__(self, netloc: str, called: Called, trust: Trust | None, *, is_secure: bool) -> None:
        context = trust.context if trust else None
        self._client = triton_http.InferenceServerClient(
            netloc, conn_limit=0, conn_timeout=_NEVER_S, ssl=is_secure, ssl_context=context
        )
        self._client._stub = BoundedSession(self._client._stub, called.most_bytes)  # noqa: SLF001 - it has no other way in
        self._called = called
        self._is_binary = False

    async def is_ready(self) -> bool:
        return bool(await _told(self._client.is_model_ready(self._called.model, self._called.version)))

    async def check(self) -> str:
        return await _told(self._check())

    async def _check(self) -> str:
        server = await self._client.get_server_metadata()
        self._is_binary = _BINARY in server.get("extensions", ())
        found = await self._client.get_model_metadata(self._called.model, self._called.version)
        tensors = [[(item["name"], item["datatype"]) for item in found[kind]] for kind in ("inputs", "outputs")]
        return _difference(tensors, self._called.info)

    async def infer(self, call: Call) -> Outputs:
        called, binary = self._called, self._is_binary
        tensors = _tensors(triton_http.InferInput, call.inputs, called.info, binary_data=binary)
        wanted = [triton_http.InferRequestedOutput(spec.name, binary_data=binary) for spec in called.info.outputs]
        asked = _asked(called, call)
        if not binary:
            asked["headers"]["content-type"] = "application/json"  # KServe takes it for bytes otherwise
        answer = self._client.infer(inputs=tensors, outputs=wanted, **asked)
        return await _told(_outputs(answer, called.info, call.rows))

    async def close(self) -> None:
        await self._client.close()


def _asked(called: Called, call: Call) -> dict[str, Any]:
    """Return what every call says: which model, how long somebody waits (the protocol's parameter, our header), whose.

    Another tiergate turns a request away at its door by the budget, before it decodes it; others ignore the header.
    """
    headers = {"x-latency-budget-ms": f"{max(call.timeout_s, 1e-3) * 1e3:.3f}"}
    if call.traceparent:
        headers["traceparent"] = call.traceparent
    return {
        "model_name": called.model,
        "model_version": called.version,
        "timeout": int(call.timeout_s * 1e6),  # microseconds
        "headers": headers,
    }


_T = TypeVar("_T")


async def _told(call: Awaitable[_T]) -> _T:
    """Return what a call gives, its failure in our words."""
    try:
        return await call
    except InferenceServerException as error:
        told = str(error.message()).splitlines()[:1]
        message = f"{error.status()}: {_printable(told[0]) if told else 'no reason given'}"
        kind = RemoteUnavailable if str(error.status()) in _UNAVAILABLE else RemoteBackendFailed
        raise kind(message) from error
    except (triton_http.aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise RemoteUnavailable(f"{type(error).__name__}: {_printable(str(error))}") from error
    except (asyncio.CancelledError, TimeoutError, BackendFailed):
        raise
    except Exception as error:  # the client fails in its own ways on answers that break the protocol
        raise RemoteBackendFailed(f"its answer cannot be read: {type(error).__name__}") from error


def _printable(text: str) -> str:
    """Return the beginning of what a server said, fit for a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_MOST_TOLD])


def _tensors(kind: Any, inputs: Mapping[str, NDArray[Any]], info: ModelInfo, **how: bool) -> list[Any]:  # noqa: ANN401 - Triton's
    tensors = []
    for spec in info.inputs:
        data = inputs[spec.name]
        tensor = kind(spec.name, list(data.shape), spec.datatype)
        tensor.set_data_from_numpy(data, **how)
        tensors.append(tensor)
    return tensors


async def _outputs(answer: Awaitable[Any], info: ModelInfo, rows: int) -> Outputs:
    """Return the outputs of an answer for so many rows, each as the manifest declares it."""
    result, outputs = await answer, []
    for spec in info.outputs:
        data = result.as_numpy(spec.name)
        if data is None or data.dtype != DTYPES[spec.datatype]:
            found = "missing" if data is None else data.dtype
            raise RemoteBackendFailed(f"output '{spec.name}' is {found}; the manifest says {spec.datatype}")
        if not _has_shape(data, spec, rows):
            wanted = [rows, *spec.shape[1:]]
            raise RemoteBackendFailed(f"output '{spec.name}' has shape {list(data.shape)}; the manifest says {wanted}")
        outputs.append(_as_bytes(data) if spec.datatype == "BYTES" else data)
    return tuple(outputs)


def _has_shape(data: NDArray[Any], spec: TensorSpec, rows: int) -> bool:
    wanted = (rows, *spec.shape[1:])
    pairs = zip(data.shape, wanted, strict=False)
    return data.ndim == len(wanted) and all(dim in (found, -1) for found, dim in pairs)


def _as_bytes(texts: NDArray[Any]) -> NDArray[Any]:
    """Return strings as bytes: those that came as JSON are text."""
    result = np.empty(texts.size, dtype=np.object_)
    result[:] = [item.encode() if isinstance(item, str) else bytes(memoryview(item)) for item in texts.ravel()]
    return result.reshape(texts.shape)


def _difference(tensors: list[list[tuple[str, str]]], info: ModelInfo) -> str:
    for kind, found, specs in zip(("inputs", "outputs"), tensors, (info.inputs, info.outputs), strict=True):
        wanted = {spec.name: spec.datatype for spec in specs}
        if dict(found) != wanted:
            return f"its {kind} are {_printable(str(dict(found)))}; the manifest declares {wanted}"
    return ""
