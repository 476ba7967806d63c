"""Five ways to ask, made equal: each sends one question and returns what came back in the same form."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.gateway_process import GatewayProcess

# The two error tables of the protocol, as one word for each row.
HTTP_KINDS = {
    400: "invalid",
    404: "not_found",
    413: "too_large",
    415: "invalid",
    429: "overloaded",
    503: "not_ready",
    504: "deadline",
}
GRPC_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too_large",
    grpc.StatusCode.UNAVAILABLE: "not_ready",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
}


@dataclass(frozen=True)
class Question:
    """What is asked; ``timeout_us`` is the protocol's own timeout argument."""

    model: str = "sums"
    version: str = ""
    input_name: str = "x"
    shape: tuple[int, ...] = (1, 4)
    datatype: str = "FP32"
    parameters: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    timeout_us: int | None = None

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """Ones."""
        return np.ones(self.shape, dtype={"FP32": np.float32, "FP64": np.float64, "INT32": np.int32}[self.datatype])


@dataclass(frozen=True)
class Reply:
    """What came back: sums and response parameters, or the kind of refusal and its message."""

    sums: tuple[float, ...] = ()
    answer: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    message: str = ""


def ask_plain(gateway: GatewayProcess, question: Question) -> Reply:
    """Ask as curl does: JSON in, JSON out."""
    parameters = dict(question.parameters)
    if question.timeout_us is not None:
        parameters["timeout"] = question.timeout_us
    tensor = {
        "name": question.input_name,
        "shape": list(question.shape),
        "datatype": question.datatype,
        "data": question.data.ravel().tolist(),
    }
    version = f"/versions/{question.version}" if question.version else ""
    status, _, content = gateway.call(
        "POST",
        f"/v2/models/{question.model}{version}/infer",
        json.dumps({"id": "q", "inputs": [tensor], "parameters": parameters}).encode(),
        {"Content-Type": "application/json", **question.headers},
    )
    if status != 200:
        return Reply(refused=HTTP_KINDS[status], message=content["error"])
    assert (content["id"], content["model_name"]) == ("q", question.model.partition("--")[0])
    return Reply(tuple(content["outputs"][0]["data"]), content["parameters"])


def ask_http(gateway: GatewayProcess, question: Question) -> Reply:
    """Ask with Triton's HTTP client, in binary."""
    with triton_http.InferenceServerClient(gateway.http) as client:
        return _catch(lambda: _from_http(client.infer(**_arguments(question, triton_http))))


def ask_http_aio(gateway: GatewayProcess, question: Question) -> Reply:
    """Ask with Triton's asyncio HTTP client."""

    async def ask() -> Any:  # noqa: ANN401 - Triton ships no types
        async with triton_http_aio.InferenceServerClient(gateway.http) as client:
            return await client.infer(**_arguments(question, triton_http))

    return _catch(lambda: _from_http(asyncio.run(ask())))


def ask_grpc(gateway: GatewayProcess, question: Question) -> Reply:
    """Ask with Triton's gRPC client."""
    with triton_grpc.InferenceServerClient(gateway.grpc) as client:
        return _catch(lambda: _from_grpc(client.infer(**_arguments(question, triton_grpc))))


def ask_grpc_aio(gateway: GatewayProcess, question: Question) -> Reply:
    """Ask with Triton's asyncio gRPC client."""

    async def ask() -> Any:  # noqa: ANN401 - Triton ships no types
        async with triton_grpc_aio.InferenceServerClient(gateway.grpc) as client:
            return await client.infer(**_arguments(question, triton_grpc))

    return _catch(lambda: _from_grpc(asyncio.run(ask())))


ASKERS: dict[str, Callable[[GatewayProcess, Question], Reply]] = {
    "plain": ask_plain,
    "http": ask_http,
    "http.aio": ask_http_aio,
    "grpc": ask_grpc,
    "grpc.aio": ask_grpc_aio,
}


def _arguments(question: Question, triton: Any) -> dict[str, Any]:  # noqa: ANN401 - one of two modules
    tensor = triton.InferInput(question.input_name, list(question.shape), question.datatype)
    tensor.set_data_from_numpy(question.data)
    return {
        "model_name": question.model,
        "model_version": question.version,
        "inputs": [tensor],
        "parameters": question.parameters or None,
        "headers": dict(question.headers),  # Triton's HTTP client writes into it
        "timeout": question.timeout_us,
    }


def _from_http(result: Any) -> Reply:  # noqa: ANN401 - Triton ships no types
    return Reply(tuple(result.as_numpy("y").ravel()), result.get_response()["parameters"])


def _from_grpc(result: Any) -> Reply:  # noqa: ANN401 - Triton ships no types
    parameters = result.get_response().parameters
    answer = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}
    return Reply(tuple(result.as_numpy("y").ravel()), answer)


def _catch(ask: Callable[[], Reply]) -> Reply:
    try:
        return ask()
    except InferenceServerException as error:
        status = str(error.status())
        kinds = {str(code): kind for code, kind in GRPC_KINDS.items()} | {
            str(code): kind for code, kind in HTTP_KINDS.items()
        }
        return Reply(refused=kinds[status], message=error.message())
