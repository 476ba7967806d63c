"""Lines of a library, one a minute of each level: while a collector is gone, its exporter says so every second."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S: Final = 60.0


class Sparing(logging.Filter):
    """Lets one line of each level pass in ``EVERY_S``, and has the next one say how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Let the first of each level pass; ``clock`` gives seconds."""
        super().__init__()
        self._clock = clock
        self._passed_s: dict[int, float] = {}
        self._left_out: dict[int, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line passes."""
        now_s, level = self._clock(), record.levelno
        if now_s - self._passed_s.get(level, -EVERY_S) < EVERY_S:
            self._left_out[level] = self._left_out.get(level, 0) + 1
            return False
        self._passed_s[level] = now_s
        left_out = self._left_out.pop(level, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more lines like it were left out)", ()
        return True
