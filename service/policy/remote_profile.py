"""How long a variant takes elsewhere: learnt from its calls, begun with what the build measured.

A call to another server takes what the network and the other queue take, whatever the batch, and then the compute,
which is the profile's on another kind of machine. So with q(b) the manifest's median for a batch of b

    t(b) = offset + speed * q(b)

is fitted to the calls by weighted least squares, a call counting less by 2 % with every later one. Where the calls
have been of one size only, they cannot tell the two apart: ``speed`` is drawn towards 1, the manifest's word, with the
weight that a spread of a fifth of one row's time would have. Neither is ever below 0: where the line would cross the
axis, all is speed.

The quantiles above the median are factors on that line, found as in ``latency.Claim`` by small steps up and down.
They begin with the manifest's own.

One call counts at most four times what is typical: a single stall must not move the line far. What changes faster than
the fit is left to ``latency.Correction``, which relaxes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from service.domain.variants import LatencyCell, Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

_WEIGHT: Final = 0.02
_PRIOR: Final = 0.04
_MOST_ONE_CALL_COUNTS: Final = 4.0
_BELIEVED_AT_ONCE: Final = 3
_STEP: Final = 5e-4
_P95, _P99 = 0.95, 0.99


@dataclass(slots=True)
class LearntProfile:
    """The fit of one variant; not thread-safe, the caller holds a lock."""

    manifest: Profile
    _calls: int = 0
    _mean_x: float = 0.0
    _mean_s: float = 0.0
    _var_x: float = 0.0
    _cov: float = 0.0
    _p95: float = 0.0
    _p99: float = 0.0
    _sizes: Sequence[int] = field(default=())

    def __post_init__(self) -> None:
        """Begin with the manifest's quantiles."""
        first = self.manifest.at(1)
        self._p95 = max(1.0, first.p95_s / max(first.p50_s, 1e-9))
        self._p99 = max(self._p95, first.p99_s / max(first.p50_s, 1e-9))
        self._sizes = tuple(cell.batch_size for cell in self.manifest.cells)

    def typical_s(self, rows: int) -> float:
        """Return the median time of a call with so many rows."""
        offset_s, speed = self._line()
        return max(1e-6, offset_s + speed * self.manifest.at(rows).p50_s)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one answered call."""
        typical_s = self.typical_s(rows)
        self._p95 = _stepped(self._p95, _P95, is_above=seconds > self._p95 * typical_s)
        self._p99 = max(self._p95, _stepped(self._p99, _P99, is_above=seconds > self._p99 * typical_s))
        if self._calls >= _BELIEVED_AT_ONCE:
            seconds = min(seconds, _MOST_ONE_CALL_COUNTS * typical_s)
        self._calls += 1
        share = max(_WEIGHT, 1.0 / self._calls)
        off_x, off_s = self.manifest.at(rows).p50_s - self._mean_x, seconds - self._mean_s
        self._mean_x += share * off_x
        self._mean_s += share * off_s
        self._var_x = (1.0 - share) * (self._var_x + share * off_x * off_x)
        self._cov = (1.0 - share) * (self._cov + share * off_x * off_s)

    def profile(self) -> Profile:
        """Return the profile as it is now believed, for the manifest's batch sizes."""
        cells = []
        for rows in self._sizes:
            typical_s = self.typical_s(rows)
            cells.append(LatencyCell(rows, typical_s, self._p95 * typical_s, self._p99 * typical_s))
        return Profile(tuple(cells))

    def _line(self) -> tuple[float, float]:
        if not self._calls:
            return 0.0, 1.0
        prior = _PRIOR * max(self.manifest.at(1).p50_s, 1e-9) ** 2
        speed = max(0.0, (self._cov + prior) / (self._var_x + prior))
        offset_s = self._mean_s - speed * self._mean_x
        return (offset_s, speed) if offset_s >= 0.0 else (0.0, self._mean_s / self._mean_x)


def _stepped(factor: float, quantile: float, *, is_above: bool) -> float:
    step = _STEP * quantile / (1.0 - quantile) if is_above else -_STEP
    return max(1.0, factor * (1.0 + step))
