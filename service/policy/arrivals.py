"""Who is about to come: arrivals that are not here yet, counted like those that wait.

The level (``policy.pace``) is found for those that wait, and at the start of a burst these are few: what is spent on
them then is missing for those behind. A burst goes on for some time, though, so the rate of the last arrivals tells
much about the next moments. Let r be that rate, n wait that can be on time, the last of them with the slack s, and let
h be a part of s. If arrivals go on like that, r * h more will be here, the last of them due at s + h, and with m lanes
that are free from F on (in sum) a turn of a lane of c seconds keeps them all on time where

    c (n + r h + m)  <=  m (s + h) - F

which is Graham's bound again. No step before the first that passes is taken. Where even the cheapest does not pass, not
all will be saved, whatever is done now; then the queue alone decides.

``RecentRate`` forgets within a quarter of a budget. So in calm traffic one or two are expected, for whom there is room,
and a burst is known for one after a quarter of the time that its first requests have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.policy.situation import Situation

_REMEMBERED: Final = 0.25
"""The part of a request's budget after which two thirds of its arrival are forgotten."""

_AHEAD: Final = 0.5
"""The part of the last one's slack for which arrivals are expected to go on as they came; at most, of a budget."""

_LEAST_S: Final = 1e-4


@dataclass(slots=True)
class RecentRate:
    """How fast requests come now, each forgotten exponentially; the caller holds a lock."""

    _hz: float = 0.0
    _counted_s: float = -math.inf
    _remembered_s: float = 1.0

    def arrived(self, now_s: float, budget_s: float) -> None:
        """Count an arrival with its budget; moments may come in any order."""
        remembered_s = max(_LEAST_S, _REMEMBERED * budget_s)
        # Else a few with small budgets would be seen for long as very many, and ones with large budgets keep others'.
        self._remembered_s = min(self._remembered_s, remembered_s)
        self._hz = self.hz(now_s) + 1.0 / remembered_s
        self._remembered_s = remembered_s
        self._counted_s = max(self._counted_s, now_s)

    @property
    def horizon_s(self) -> float:
        """For how long arrivals may be expected to go on as they came: as part of the last one's budget."""
        return self._remembered_s * (_AHEAD / _REMEMBERED)

    def hz(self, now_s: float) -> float:
        """Return the rate now (1/s), as a request with the last one's budget sees it."""
        since_s = now_s - self._counted_s
        return self._hz * math.exp(-since_s / self._remembered_s) if since_s > 0.0 else self._hz


def turn_kept_up_s(count: int, latest_s: float, busy_s: float, situation: Situation) -> float:
    """Return the longest turn of a lane at which who waits and who is expected soon are all on time.

    So many wait, the last of whom has the slack ``latest_s``; ``busy_s`` is what the lanes take until they are free.
    Where nobody is to be expected, no turn is too long.
    """
    recent, lanes = situation.recent, len(situation.lanes_free_s)
    if recent is None:
        return math.inf
    # Who has far more time than those who came last is not told by their rate what will come in all of it.
    ahead_s = min(_AHEAD * latest_s, recent.horizon_s)
    count_then = count + recent.hz(situation.now_s) * ahead_s
    return (lanes * (latest_s + ahead_s) - busy_s) / (count_then + lanes)
