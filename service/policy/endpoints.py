"""Which of several equal servers gets a call, and which get none for a while.

**The less loaded of two.** Of two endpoints drawn at random the one with fewer calls under way is taken. With n
endpoints the longest queue is then about log log n instead of the log n / log log n of one random draw, and unlike
"the least loaded of all" many gateways that decide by the same stale numbers do not all pick the same one (Mitzenmacher
2001; the default of most proxies).

**Outlier ejection.** ``FAILURES_TO_EJECT`` failed calls in a row take an endpoint out for ``EJECTED_S``, twice as long
each time, up to ``MOST_EJECTED_S``. A while without another ejection makes the next one shorter again. Whether
a server is there at all is not judged here but by its own health (``is_up``).

**Panic.** Where fewer than half of those that are up would be left, ejections do not count: then the fault is more
likely what they are sent, or all of them, and the few that are left would only be overrun (as in Envoy).

**Retry budget.** A token bucket: each call brings a tenth of a token, a retry takes one, and at most ``_MOST_TOKENS``
are saved up. So retries are at most a tenth of the calls, and an outage does not multiply the load that caused it.

Time and chance are arguments; nothing here locks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FAILURES_TO_EJECT: Final = 5
EJECTED_S: Final = 1.0
MOST_EJECTED_S: Final = 60.0
PANIC_RATIO: Final = 0.5
RETRY_RATIO: Final = 0.1
_MOST_TOKENS: Final = 10.0


@dataclass(slots=True, eq=False)
class Endpoint:
    """One server as its callers know it: there or not, calls under way, failures in a row, and its ejections."""

    name: str
    is_up: bool = False
    inflight: int = 0
    failures: int = 0
    ejections: int = 0
    ejected_until_s: float = -math.inf

    def is_ejected(self, now_s: float) -> bool:
        """Tell whether it is out for its failures."""
        return now_s < self.ejected_until_s

    def succeeded(self, now_s: float) -> None:
        """Note a call that was answered."""
        self.failures = 0
        if self.ejections and now_s > self.ejected_until_s + _length_s(self.ejections):
            self.ejections -= 1
            self.ejected_until_s = now_s

    def failed(self, now_s: float) -> bool:
        """Note a call that failed by the server's fault; return whether that ejects it."""
        self.failures += 1
        if self.failures < FAILURES_TO_EJECT or self.is_ejected(now_s):
            return False
        self.failures = 0
        self.ejections += 1
        self.ejected_until_s = now_s + _length_s(self.ejections)
        return True


def _length_s(ejections: int) -> float:
    return float(min(MOST_EJECTED_S, EJECTED_S * 2.0 ** min(ejections - 1, 30)))


def callable_now(endpoints: Sequence[Endpoint], now_s: float) -> list[Endpoint]:
    """Return those that may be called: up and not ejected, or all that are up where too few would be left."""
    up = [item for item in endpoints if item.is_up]
    well = [item for item in up if not item.is_ejected(now_s)]
    return well if len(well) >= PANIC_RATIO * len(up) else up


def is_panicking(endpoints: Sequence[Endpoint], now_s: float) -> bool:
    """Tell whether ejections do not count now: those that are ejected are called again."""
    return any(item.is_ejected(now_s) for item in callable_now(endpoints, now_s))


def choose_endpoint(
    endpoints: Sequence[Endpoint], draws: tuple[float, float], now_s: float, avoid: Collection[Endpoint] = ()
) -> Endpoint | None:
    """Return the less loaded of two drawn endpoints, ``None`` where none may be called.

    ``draws`` are two numbers in [0, 1). ``avoid`` are those that have just failed: one of them is taken only where
    there is no other.
    """
    able = callable_now(endpoints, now_s)
    able = [item for item in able if item not in avoid] or able
    if not able:
        return None
    first = able[int(draws[0] * len(able))]
    others = [item for item in able if item is not first]
    if not others:
        return first
    second = others[int(draws[1] * len(others))]
    return second if second.inflight < first.inflight else first


@dataclass(slots=True)
class RetryBudget:
    """The tokens that calls bring and retries take; the first retry of all may come at once."""

    tokens: float = 1.0

    def called(self) -> None:
        """Count a call that is no retry."""
        self.tokens = min(_MOST_TOKENS, self.tokens + RETRY_RATIO)

    def may_retry(self) -> bool:
        """Take a token for a retry; tell whether there was one."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
