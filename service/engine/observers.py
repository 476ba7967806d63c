"""Many observers of the engine as one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.domain.inference import Answer, Criticality, InferenceRequest
    from service.domain.observer import Observer, RunReport
    from service.domain.variants import ModelInfo

_LOGGER: Final = logging.getLogger("tiergate")


class Observers:
    """Many observers as one; a hook that raises is logged, and harms neither the request nor the other observers."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        """Keep the observers in the order they are told."""
        self._observers = tuple(observers)

    def model_loaded(self, model: ModelInfo) -> None:
        """Tell all."""
        self._tell("model_loaded", model)

    def model_unloaded(self, model: str) -> None:
        """Tell all."""
        self._tell("model_unloaded", model)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Tell all."""
        self._tell("request_finished", request, answer)

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        """Tell all."""
        self._tell("request_refused", request, error, waited_s)

    def run_finished(self, report: RunReport) -> None:
        """Tell all."""
        self._tell("run_finished", report)

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Tell all."""
        self._tell("request_shed", model, criticality, why)

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """Tell all."""
        self._tell("request_expired", model, was_running=was_running)

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        """Tell all."""
        self._tell("variant_failed", model, variant, why)

    def _tell(self, hook: str, *arguments: object, **options: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, hook)(*arguments, **options)
            except Exception:  # whatever it is, counting must never end a request or a lane
                _LOGGER.exception("%s failed in %s", type(observer).__name__, hook)
