"""Many observers of the engine as one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from service.domain.observer import SilentObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.domain.departure import Departure
    from service.domain.inference import Answer, Criticality, InferenceRequest
    from service.domain.observer import Observer, RunReport
    from service.domain.variants import ModelInfo, Variant

_LOGGER: Final = logging.getLogger("tiergate")

_HOOKS: Final = tuple(name for name in vars(SilentObserver) if not name.startswith("_"))


class Observers:
    """Many observers as one; a hook that raises is logged, and harms neither the request nor the other observers.

    Hooks that an observer leaves as ``SilentObserver`` has them are not called at all.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        """Keep the observers in the order they are told."""
        heard = tuple(observers)
        self._hooks = {hook: _listeners(hook, heard) for hook in _HOOKS}
        self._on_finished, self._on_run = self._hooks["request_finished"], self._hooks["run_finished"]

    def model_loaded(self, model: ModelInfo) -> None:
        """Tell all."""
        self._tell("model_loaded", model)

    def model_unloaded(self, model: str) -> None:
        """Tell all."""
        self._tell("model_unloaded", model)

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Tell all."""
        for tell in self._on_finished:  # as _tell, which takes longer
            try:
                tell(request, answer)
            except Exception:  # noqa: BLE001 - as there
                _log_failure(tell, "request_finished")

    def request_refused(self, request: InferenceRequest, error: BaseException, waited_s: float) -> None:
        """Tell all."""
        self._tell("request_refused", request, error, waited_s)

    def run_finished(self, report: RunReport) -> None:
        """Tell all."""
        for tell in self._on_run:
            try:
                tell(report)
            except Exception:  # noqa: BLE001 - as there
                _log_failure(tell, "run_finished")

    def request_shed(self, model: str, criticality: Criticality, why: str) -> None:
        """Tell all."""
        self._tell("request_shed", model, criticality, why)

    def request_expired(self, model: str, *, was_running: bool) -> None:
        """Tell all."""
        self._tell("request_expired", model, was_running=was_running)

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        """Tell all."""
        self._tell("variant_failed", model, variant, why)

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:
        """Tell all."""
        self._tell("lane_replaced", model, variant, stuck)

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """Tell all."""
        self._tell("variant_held", model, variant, cause)

    def variant_evicted(self, model: str, variant: str) -> None:
        """Tell all."""
        self._tell("variant_evicted", model, variant)

    def variant_unproven(self, model: str, variant: str, treatment: str, why: str) -> None:
        """Tell all."""
        self._tell("variant_unproven", model, variant, treatment, why)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        """Tell all."""
        self._tell("policy_applied", digest, changes)

    def policy_refused(self, why: str) -> None:
        """Tell all."""
        self._tell("policy_refused", why)

    def remotes_applied(self, digest: str, models: tuple[str, ...]) -> None:
        """Tell all."""
        self._tell("remotes_applied", digest, models)

    def remotes_refused(self, why: str) -> None:
        """Tell all."""
        self._tell("remotes_refused", why)

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Tell all."""
        self._tell("region_changed", model, departures)

    def _tell(self, hook: str, *arguments: object, **options: object) -> None:
        for tell in self._hooks[hook]:
            try:
                tell(*arguments, **options)
            except Exception:  # noqa: BLE001 - whatever it is, counting must never end a request or a lane
                _log_failure(tell, hook)


def _log_failure(tell: Callable[..., None], hook: str) -> None:
    _LOGGER.exception("%s failed in %s", type(getattr(tell, "__self__", tell)).__name__, hook)  # noqa: LOG004 - its callers are


def _listeners(hook: str, observers: Iterable[Observer]) -> tuple[Callable[..., None], ...]:
    silent = getattr(SilentObserver, hook)
    heard = (getattr(observer, hook) for observer in observers)
    return tuple(tell for tell in heard if getattr(tell, "__func__", None) is not silent)
