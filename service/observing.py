"""What a gateway tells of itself, wired in one place: metrics, log lines, traces, recorded arrivals, tuned regions."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from service.engine.arrival_log import ArrivalLog
from service.engine.observers import Observers
from service.engine.regions import TunedRegions
from service.settings import SettingsError
from service.telemetry.logs import LogObserver, log_turned_away
from service.telemetry.metrics import Metrics
from service.telemetry.refusal_log import RefusalLog
from service.telemetry.tracing import MissingTracing, open_tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from service.api.plane import Refusal
    from service.domain.inference import Criticality
    from service.domain.observer import Observer
    from service.domain.policy_file import PolicyFile
    from service.domain.policy_text import PolicyText
    from service.settings import Settings
    from service.telemetry.tracing import RequestTracing


class Observing:
    """The observers of one gateway; ``observer`` is all of them as one, for the engine."""

    def __init__(
        self, settings: Settings, policy: PolicyText, in_force: Callable[[], PolicyFile], others: Iterable[Observer]
    ) -> None:
        """Make what the settings ask for.

        Args:
            settings: The gateway's.
            policy: The policy that it starts with.
            in_force: Returns the policy in force, once ``regions.follow`` is called.
            others: Observers that the gateway has besides; they hear first.

        Raises:
            SettingsError: The folder for arrivals cannot be made, or tracing is not installed.
        """
        self.metrics = Metrics(_budgets_s(policy.policy))
        self.metrics.policy.policy_loaded(policy.digest)
        if settings.memory_budget_bytes is not None:
            self.metrics.memory_limited(settings.memory_budget_bytes)
        self.tracing = _tracing(settings)
        self.arrivals = arrivals = _arrival_log(settings.record_arrivals, in_force)
        if arrivals is not None:
            self.metrics.watch_recording(lambda: arrivals.dropped)
        logs = LogObserver(access_log=settings.access_log)
        self.regions = TunedRegions(time.perf_counter, in_force, Observers((self.metrics.policy, logs)))
        counted = self.metrics if settings.metrics else self.metrics.policy
        recording = () if arrivals is None else (arrivals,)
        self.observer = Observers((*others, counted, logs, self.regions, *recording))
        self._refusals = RefusalLog(time.perf_counter)

    def start(self) -> None:
        """Start what works by itself."""
        if self.arrivals is not None:
            self.arrivals.start()

    async def close_recording(self) -> None:
        """Write the last arrivals."""
        if self.arrivals is not None:
            await asyncio.to_thread(self.arrivals.close)

    async def close_tracing(self, timeout_s: float) -> None:
        """Send the last spans; give up after a time."""
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close, timeout_s)

    def note_turned_away(self, protocol: str, counts: Mapping[Criticality, int]) -> None:
        """Log and count inferences that were turned away before they were decoded."""
        log_turned_away(protocol, sum(counts.values()))
        self.metrics.turned_away(protocol, counts)

    def note_refusal(self, refusal: Refusal) -> None:
        """Log a refused request; count an inference that could not be decoded, since the data plane never saw it."""
        self._refusals.note(refusal.protocol, refusal.request_id, refusal.error)
        if refusal.stage == "decode":
            self.metrics.request_malformed(refusal.protocol, refusal.error)


def _tracing(settings: Settings) -> RequestTracing | None:
    if settings.trace_endpoint is None:
        return None
    try:
        return open_tracing(settings.trace_endpoint, settings.trace_ratio)
    except MissingTracing as error:
        raise SettingsError(f"trace_endpoint {settings.trace_endpoint}: {error}") from None


def _budgets_s(policy: PolicyFile) -> list[float]:
    models = [policy.default, *policy.models.values()]
    classes = [item.default_budget_s for item in policy.hardware_classes.values()]
    return [model.default_budget_s for model in models] + [budget_s for budget_s in classes if budget_s is not None]


def _arrival_log(folder: Path | None, in_force: Callable[[], PolicyFile]) -> ArrivalLog | None:
    try:
        if folder is None:
            return None
        return ArrivalLog(folder, time.time, classes=lambda: in_force().hardware_classes)
    except OSError as error:
        raise SettingsError(f"record_arrivals {folder} cannot be made: {error.strerror or error}") from None
