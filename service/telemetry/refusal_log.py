"""Log lines of refused requests, so many a second at most: under a flood the lines would cost more than the refusals.

What is left out is told by number with the next refusal of its kind; the metrics count every one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.telemetry.logs import log_event, log_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PER_S: Final = 100
"""Lines for one kind of error in one second."""


@dataclass(slots=True)
class _Second:
    began_s: float
    logged: int = 0
    left_out: int = 0


class RefusalLog:
    """Logs refusals, on one thread; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with nothing logged."""
        self._clock = clock
        self._seconds: dict[type[BaseException], _Second] = {}

    def note(self, protocol: str, request_id: str, error: BaseException) -> None:
        """Log a refused or failed request, or count it where there were too many like it in this second."""
        now_s, kind = self._clock(), type(error)
        second = self._seconds.get(kind)
        if second is None or now_s - second.began_s >= 1.0:
            if second is not None and second.left_out:
                log_event(logging.WARNING, "refusals not logged", error=kind.__name__, count=second.left_out)
            second = self._seconds[kind] = _Second(now_s)
        if second.logged < MOST_PER_S:
            second.logged += 1
            log_refusal(protocol, request_id, error)
        else:
            second.left_out += 1
