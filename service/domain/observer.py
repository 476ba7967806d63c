"""What the engine reports while it works; metrics, statistics and logs listen.

Hooks are called on the hot path: they must be quick. ``request_finished`` and ``request_refused``
come on the event loop's thread; ``run_finished`` comes from the thread that computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from service.domain.departure import Departure
    from service.domain.inference import Answer, Criticality, InferenceRequest
    from service.domain.variants import ModelInfo, Variant


@dataclass(slots=True)
class RunReport:
    """One finished run of a batch on a lane; seconds. ``rows`` is the batch size, ``requests`` share it.

    ``decision_s`` is how long choosing the run took, ``started_s`` the moment on the engine's clock at which its inputs
    began to be joined, ``cpu_s`` the CPU time of the computing thread, ``queued`` how many requests of the model then
    waited on. ``unwanted_s`` is the part of ``compute_s`` for rows of requests that had ended when the run was over:
    their deadline had passed, or their client had left. ``failed`` runs gave nothing; some of them were broken off.
    """

    model: str
    variant: str
    rows: int
    requests: int
    input_s: float
    compute_s: float
    output_s: float
    predicted_s: float
    decision_s: float = 0.0
    failed: bool = False
    started_s: float = 0.0
    cpu_s: float = 0.0
    queued: int = 0
    unwanted_s: float = 0.0


class Observer(Protocol):
    """The hooks."""

    def model_loaded(self, model: ModelInfo) -> None:
        """A model became available; its label sets can be made. Its variants here are those that can answer."""

    def model_unloaded(self, model: str) -> None:
        """A model is gone."""

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """A request was answered."""

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        """A request ended without an answer: refused, expired, cancelled or failed."""

    def run_finished(self, report: RunReport) -> None:
        """A lane finished a run."""

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """A request was refused for load; ``why`` is one of ``queue_full``, ``displaced``, ``overloaded``."""

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """A hard deadline passed before the answer was there."""

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        """A variant could not be loaded, or was taken out because its runs fail."""

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:
        """A run of a variant hung, and another thread serves its lane; ``stuck`` threads hang now."""

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """A variant came into memory: with its ``model``, on ``demand``, by a ``swap``, or since there is ``room``."""

    def variant_evicted(self, model: str, variant: str) -> None:
        """A variant was taken out of memory to make room; it is loaded again when a request needs it."""

    def variant_unproven(self, model: str, variant: str, treatment: str, why: str) -> None:
        """An int8 variant that was just loaded is not known to be right here; ``treatment``: precise, avoid, allow."""

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        """Another policy is in force; ``changes`` are the fields that differ, in words."""

    def policy_refused(self, why: str) -> None:
        """A policy that was to be put in force is not valid or cannot be read; the one before stays."""

    def remotes_applied(self, digest: str, models: tuple[str, ...]) -> None:
        """Another remotes file is in force; it says something else of these models, which were loaded again."""

    def remotes_refused(self, why: str) -> None:
        """A changed remotes file cannot be taken; what it said before stays in force."""

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Traffic left the region that the model's policy was tuned for, in these figures, or came back to it: none."""


class SilentObserver:
    """Listens to nothing; the base for observers that care about a few hooks."""

    def model_loaded(self, model: ModelInfo) -> None:
        """Ignore."""

    def model_unloaded(self, model: str) -> None:
        """Ignore."""

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Ignore."""

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        """Ignore."""

    def run_finished(self, report: RunReport) -> None:
        """Ignore."""

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Ignore."""

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """Ignore."""

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        """Ignore."""

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:
        """Ignore."""

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """Ignore."""

    def variant_evicted(self, model: str, variant: str) -> None:
        """Ignore."""

    def variant_unproven(self, model: str, variant: str, treatment: str, why: str) -> None:
        """Ignore."""

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        """Ignore."""

    def policy_refused(self, why: str) -> None:
        """Ignore."""

    def remotes_applied(self, digest: str, models: tuple[str, ...]) -> None:
        """Ignore."""

    def remotes_refused(self, why: str) -> None:
        """Ignore."""

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Ignore."""
