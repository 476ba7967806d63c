"""Who would be late at the lanes: what a glance at the queues tells of a newcomer that nobody has read yet.

A *crowd* is more late work than the lanes will soon have time for. Where there is one, a newcomer that would be late as
well is of no use inside. The glance must not turn away anybody who would be on time; so it counts only work that is
served before the newcomer for sure, and each piece at its least:

* timely work that is as important, and due earlier;
* of another model no more than it may be ahead of the newcomer's (``policy.desk``), however much it has waiting;
* what models with variants elsewhere have waiting counts nothing: other lanes may take it;
* what could share a run costs its part of a full one, where that is far less than a run of its own. (Where it is a
  little less, runs are seldom full; counting on it lets in more than is served.)

One thing it cannot tell: work before the newcomer that will itself be late by then is set aside, and is counted still.
A newcomer behind such work may be turned away though the lanes would have come to it in time.

There is no lock: what is read may be a moment old.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from service.policy.limits import earliest_start_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.desk import Desk

_MOST_LATE_S: Final = 0.05
_MOST_LATE: Final = 64
"""Of late work for each lane, seconds and requests: both must be exceeded."""
_GAINS_BELOW: Final = 0.5


class Prospect(Enum):
    """What a newcomer may hope for: an answer in time, one but for those before it, or none in time even alone."""

    TIMELY = auto()
    BEHIND = auto()
    HOPELESS = auto()


@dataclass(frozen=True, slots=True)
class Newcomer:
    """One that is not read yet, of a criticality: a run of ``needs_s`` has to end by ``due_s``, had it come now.

    It came up to ``waited_s`` ago, and is served after those that are due before ``after_s``, which is not before its
    own due moment.
    """

    model: Any
    criticality: int
    due_s: float
    needs_s: float
    waited_s: float
    after_s: float


def is_crowded(desk: Desk[Any]) -> bool:
    """Tell whether more late work waits than the lanes of this machine will soon have time for."""
    if not desk.models:
        return False
    count, late_s = 0, 0.0
    for model in tuple(desk.models):
        if not model.standing.pools:
            count += model.queue.late_count
            late_s += model.queue.late_work_s
    return count > _MOST_LATE * len(desk.lanes) and late_s > _MOST_LATE_S * len(desk.lanes)


def prospect(desk: Desk[Any], newcomer: Newcomer, now_s: float) -> Prospect:
    """Tell what becomes of a newcomer at the lanes, whose model has no variants elsewhere."""
    left_s = newcomer.due_s - now_s - newcomer.needs_s
    if left_s < 0:
        return Prospect.HOPELESS
    left_s -= newcomer.waited_s
    busy_s = [max(0.0, lane.free_s - now_s) if lane.is_busy else 0.0 for lane in desk.lanes]
    models = [model for model in tuple(desk.models) if not model.standing.pools]
    most_s = sum([model.queue.work_s(newcomer.criticality) for model in models])
    if earliest_start_s(busy_s, most_s) <= left_s:  # looking who is before it takes longer
        return Prospect.TIMELY
    waits_s = earliest_start_s(busy_s, _work_before_s(desk, models, newcomer, now_s))
    return Prospect.BEHIND if waits_s > left_s else Prospect.TIMELY


def _work_before_s(desk: Desk[Any], models: Sequence[Any], newcomer: Newcomer, now_s: float) -> float:
    before_s = 0.0
    for model in models:
        # Of its own model all that are due at the same moment go first, of another one perhaps none.
        until_s = newcomer.after_s if model is newcomer.model else math.nextafter(newcomer.after_s, -math.inf)
        work_s = model.queue.work_before_s(newcomer.criticality, until_s)
        shared = model.costs(now_s).shared_ratio(model.max_rows)
        work_s *= shared if shared <= _GAINS_BELOW else 1.0
        if model is not newcomer.model:
            work_s = min(work_s, desk.may_precede_s(model, newcomer.model))
        before_s += work_s
    return before_s
