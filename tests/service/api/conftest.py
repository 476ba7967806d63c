"""A stub data plane that doubles numbers, and ways to call the API without sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.api.http_app import HttpApp
from service.domain.descriptions import (
    Artifact,
    BatchStatistics,
    CandidateReport,
    Duration,
    IndexEntry,
    ModelStatistics,
    RouteExplanation,
    ServerInfo,
    VariantState,
)
from service.domain.errors import ModelNotFound, VariantNotFound
from service.domain.inference import Answer, InferenceRequest, InferenceResponse, Knobs, Reason
from service.domain.tensors import Tensor, TensorSpec
from service.domain.variants import LatencyCell, ModelInfo, Profile, Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.plane import Refusal

FULL = Variant("full", "full", 0.92, Profile((LatencyCell(1, 0.01, 0.012, 0.02),)), 1000, 900, "ab" * 32)
SMALL = Variant("small", "quantized", 0.9, Profile((LatencyCell(1, 0.001, 0.002, 0.003),)), 300, 250, "cd" * 32)
DIGITS = ModelInfo(
    name="digits",
    version="1",
    inputs=(TensorSpec("image", "FP32", (-1, 4)),),
    outputs=(TensorSpec("scores", "FP32", (-1, 4)),),
    max_batch_size=8,
    variants=(FULL, SMALL),
)
ANSWER = Answer(
    variant="small",
    tier="quantized",
    reason=Reason.WITHIN_BUDGET,
    predicted_s=0.0021,
    claimed_s=0.0034,
    queue_s=0.0005,
    compute_s=0.0012,
    total_s=0.0019,
    budget_s=0.05,
    budget_met=True,
    expected_accuracy=0.9,
)


def echo(request: InferenceRequest) -> tuple[Tensor, ...]:
    """Return numbers doubled, as ``scores`` for the model's own input, and anything else as it came."""
    tensors = []
    for tensor in request.inputs:
        if tensor.name == "image":
            tensors.append(Tensor("scores", tensor.datatype, (tensor.data * 2).astype(tensor.data.dtype)))
        else:
            tensors.append(Tensor(tensor.name, tensor.datatype, tensor.data))
    return tuple(tensors)


@dataclass
class StubPlane:
    """A data plane without queues: answers at once, or fails with ``error``, or waits for ``gate``."""

    artifact_path: Path = Path("absent.onnx")
    artifact_identity: tuple[int, int, int, int] | tuple[()] = ()
    error: Exception | None = None
    gate: asyncio.Event | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ready: bool = True
    requests: list[InferenceRequest] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    outputs: Callable[[InferenceRequest], tuple[Tensor, ...]] = echo

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self._check(request.model, request.version)
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            await self._wait(self.gate)
        outputs = self.outputs(request)
        if request.outputs:
            outputs = tuple(tensor for want in request.outputs for tensor in outputs if tensor.name == want.name)
        return InferenceResponse(request.model, "1", request.id, outputs, ANSWER, request)

    async def _wait(self, gate: asyncio.Event) -> None:
        self.events.append("waiting")
        self.arrived.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            self.left.set()
            raise

    def server_info(self) -> ServerInfo:
        return ServerInfo("tiergate", "0.1.0", ("binary_tensor_data", "statistics"))

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, model: str, version: str) -> bool:
        self._check(model, version)
        return self.ready

    def model_info(self, model: str, version: str) -> ModelInfo:
        self._check(model.partition("--")[0], version)
        return DIGITS

    def statistics(self, model: str, version: str) -> tuple[ModelStatistics, ...]:
        self._check(model or "digits", version)
        one = Duration(3, 3000)
        batch = BatchStatistics(2, one, one, one)
        return (ModelStatistics("digits", "1", 1700, 3, 2, one, Duration(), one, one, one, one, (batch,)),)

    def index(self, *, ready_only: bool) -> tuple[IndexEntry, ...]:
        loaded = (IndexEntry("digits", "1", "READY", ""),)
        return loaded if ready_only else (*loaded, IndexEntry("broken", "1", "UNAVAILABLE", "digest differs"))

    def variants(self, model: str) -> tuple[VariantState, ...]:
        self._check(model)
        return (VariantState(FULL, "READY", 1.0), VariantState(SMALL, "READY", 0.8))

    def explain(self, model: str, knobs: Knobs) -> RouteExplanation:
        self._check(model)
        hardware = knobs.hardware.class_name if knobs.hardware else None
        candidates = (CandidateReport("small", "quantized", 0.9, 0.001, True, True, "fits"),)
        budget_s = knobs.budget_s or 0.05
        return RouteExplanation(
            model, "small", "quantized", Reason.WITHIN_BUDGET, budget_s, 0.0, hardware or "", candidates
        )

    def artifact(self, model: str, variant: str, knobs: Knobs) -> Artifact:
        self._check(model)
        variant = variant or ("small" if knobs.hardware else "full")
        if variant not in ("full", "small"):
            message = f"model '{model}' has no variant '{variant}'"
            raise VariantNotFound(message)
        return Artifact(self.artifact_path, "ab" * 32, 1000, "model.onnx", variant, self.artifact_identity)

    async def load_model(self, model: str) -> None:
        self.events.append(f"load {model}")

    async def unload_model(self, model: str) -> None:
        self.events.append(f"unload {model}")

    def _check(self, model: str, version: str = "") -> None:
        if model != "digits" or version not in ("", "1"):
            message = f"no model '{model}' with version '{version}'"
            raise ModelNotFound(message)


@dataclass(frozen=True)
class HttpAnswer:
    """What an ASGI application sent."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Caller:
    """Calls an HTTP application in process."""

    app: HttpApp
    left: asyncio.Event = field(default_factory=asyncio.Event)
    bodies_read: int = 0

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | list[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> HttpAnswer | None:
        """Return the answer, or ``None`` where the application sent none."""
        chunks = [body] if isinstance(body, bytes) else list(body)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if chunks:
                self.bodies_read += 1
                chunk = chunks.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI messages are untyped
            sent.append(message)

        path, _, query = path.partition("?")
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": lines}
        await self.app(scope, receive, send)
        if not sent:
            return None
        names = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return HttpAnswer(sent[0]["status"], names, b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture
def plane(tmp_path: Path) -> StubPlane:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(index % 251 for index in range(1000)))
    return StubPlane(path)


@pytest.fixture
def refusals() -> list[Refusal]:
    return []


@pytest.fixture
def caller(plane: StubPlane, refusals: list[Refusal]) -> Caller:
    return Caller(HttpApp(plane, max_body_bytes=1 << 20, on_refused=refusals.append))


@pytest.fixture
def image() -> np.ndarray[Any, Any]:
    return np.arange(4, dtype=np.float32).reshape(1, 4)


def content(answer: HttpAnswer | None) -> Any:  # noqa: ANN401 - JSON
    assert answer is not None
    return json.loads(answer.body)


async def ask(caller: Caller, method: str, path: str, **more: Any) -> HttpAnswer:  # noqa: ANN401
    answer = await caller.call(method, path, **more)
    assert answer is not None
    assert int(answer.headers.get("content-length", 0)) == len(answer.body) or method == "HEAD"
    return answer
