"""What the API needs of the data plane; the real one is ``service.engine.dataplane.DataPlane``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from service.domain.descriptions import (
        Artifact,
        IndexEntry,
        ModelStatistics,
        RouteExplanation,
        ServerInfo,
        VariantState,
    )
    from service.domain.inference import InferenceRequest, InferenceResponse, Knobs
    from service.domain.variants import ModelInfo

Stage = Literal["route", "decode", "infer"]
"""How far a request came: no inference at all, an inference that ``Plane.infer`` never saw, one that it saw."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is refused or failed; ``request_id`` is empty where the request was never read so far."""

    protocol: str
    request_id: str
    error: Exception
    stage: Stage = "route"


OnRefused = Callable[[Refusal], None]
"""Called once for every request that is refused or fails."""


def ignore_refusal(refusal: Refusal) -> None:
    """Take note of nothing; the default of ``on_refused``."""


class Plane(Protocol):
    """Everything behind the wire; every method may raise the errors of ``service.domain.errors``."""

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Answer one request; cancelled when the client has left."""
        ...

    def server_info(self) -> ServerInfo:
        """Return the server's name, version and protocol extensions."""
        ...

    def is_live(self) -> bool:
        """Return whether the process works at all."""
        ...

    def is_ready(self) -> bool:
        """Return whether every required model can answer and the server is not leaving."""
        ...

    def is_model_ready(self, model: str, version: str) -> bool:
        """Return whether a model can answer; an empty version means any."""
        ...

    def model_info(self, model: str, version: str) -> ModelInfo:
        """Return a model's description; ``model--variant`` is accepted."""
        ...

    def statistics(self, model: str, version: str) -> tuple[ModelStatistics, ...]:
        """Return the statistics of one model, or of all when ``model`` is empty."""
        ...

    def index(self, *, ready_only: bool) -> tuple[IndexEntry, ...]:
        """Return the repository index."""
        ...

    def variants(self, model: str) -> tuple[VariantState, ...]:
        """Return the state of every variant of a model."""
        ...

    def explain(self, model: str, knobs: Knobs) -> RouteExplanation:
        """Return what routing would decide now, without running anything."""
        ...

    def artifact(self, model: str, variant: str, knobs: Knobs) -> Artifact:
        """Return a variant's file; an empty variant is chosen by the knobs."""
        ...

    async def load_model(self, model: str) -> None:
        """Load or reload a model from the repository."""
        ...

    async def unload_model(self, model: str) -> None:
        """Take a model out of memory."""
        ...
