"""The level at which a whole queue stays on time.

The queue comes in service order, and every request is given to the lane that is free first. Where all take the same
turn of a lane, c seconds, the turns begin at f_j, f_j + c, f_j + 2 c, ... on lane j, f_j being the moment from now at
which it is free; so the request with k before it is on time exactly if that many turns and one more end within its
slack s_k:

    sum over lanes j of floor((s_k - f_j) / c)  >  k                                (all f_j < s_k)

Most looks need less. With m lanes and F = f_1 + ... + f_m it is enough that c (k + m) <= m s_k - F, since the lane that
is free first is free no later than the average one (Graham's bound on list scheduling, 1966); and it takes at least
that c (k + 1) <= m s_k - F. The level is the first step of the ladder whose turn passes for everybody; a cheaper step
passes wherever a dearer one does, so one pass over the queue finds it. A request that cannot be saved even at the
cheapest step is not counted, nor is its work: it will be set aside, whatever the level. Those who are expected soon are
counted behind the last one (``policy.arrivals``).

Where the requests ask differently (pins, floors, numbers of rows) there is no single turn. Then a level is tried: every
request takes its own best candidate not above it, and Graham's bound decides on the sums; short queues are laid out
exactly. The highest level that passes is found by bisection, because a lower level never costs more.

What other models have waiting takes time from the lanes too: it is taken off, up to the others' share of the lanes.

A long queue is not looked at in full but at its first positions and then at distances that grow with the position, so
that a decision takes about as long for a thousand requests as for fifty. It errs where due moments bunch between two
looks; the next decision looks again.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.policy.arrivals import turn_kept_up_s
from service.policy.costs import RUN_OVERHEAD_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.costs import Costs, Ladder, Step
    from service.policy.situation import Situation, Waiting

_EXACT: Final = 24
"""Queues of requests that ask differently are laid out over the lanes exactly up to this length."""

_ROUNDING: Final = 1e-9
"""Turns that fill a slack to the last bit are within it, whatever the floats say."""

_SPREAD: Final = 2
"""Beyond this position the distance between two looks grows, by one for every so many positions."""


@lru_cache(maxsize=4096)
def sampled(length: int) -> Sequence[int]:
    """Return the positions at which a queue is looked at: the first ones, then further and further apart, the last."""
    positions, position = [], 0
    while position < length - 1:
        positions.append(position)
        position += 1 + position // _SPREAD
    return (*positions, length - 1)


class LaneTime:
    """How much time the lanes have until a moment, less what other models may take of it."""

    __slots__ = ("_busy_s", "_longest_s", "_others_s", "_theirs", "free", "now_s")

    def __init__(self, situation: Situation) -> None:
        """Look at the lanes; ``free`` is when each is free, in seconds from now."""
        self.now_s = now_s = situation.now_s
        self.free = free = [moment - now_s if moment > now_s else 0.0 for moment in situation.lanes_free_s]
        self._busy_s, self._longest_s = sum(free), max(free)
        self._others_s, self._theirs = situation.others_s, (1.0 - situation.lane_share) * len(free)

    def within(self, slack_s: float) -> tuple[int, float]:
        """Return how many lanes are free within so long, and the time that is left of all these until then."""
        if slack_s >= self._longest_s:
            lanes, left_s = len(self.free), len(self.free) * slack_s - self._busy_s
        else:
            reached = [slack_s - moment for moment in self.free if moment < slack_s]
            lanes, left_s = len(reached), sum(reached)
        return lanes, left_s - min(self._others_s, self._theirs * slack_s) if self._others_s else left_s


def level_of_alike(queue: Sequence[Waiting], head: int, turns_s: Sequence[float], situation: Situation) -> int | None:
    """Return the first of the steps at which all that can be saved stay on time, the last one where there is none.

    ``turns_s`` is how long one request occupies a lane at each step. ``None`` says that the requests ask differently.
    """
    now_s, first, others_s = situation.now_s, queue[head], situation.others_s
    free = [moment - now_s if moment > now_s else 0.0 for moment in situation.lanes_free_s]
    lanes, busy_s, longest_s, theirs = len(free), sum(free), max(free), (1.0 - situation.lane_share) * len(free)
    candidates, rows, lost, before = first.candidates, first.rows, 0, 0
    index, turn_s, fastest_s, taken_s, latest_s = 0, turns_s[0], turns_s[-1], 0.0, 0.0
    for offset in sampled(len(queue) - head):
        item = queue[head + offset]
        if (item.candidates is not candidates and item.candidates != candidates) or item.rows != rows:
            return None
        slack_s, ahead = item.due_s - now_s, offset - lost
        spare_s = lanes * slack_s - busy_s
        if others_s:
            taken_s = min(others_s, theirs * slack_s)
            spare_s -= taken_s
        if turn_s * (ahead + lanes) <= spare_s or not offset:  # the first runs now
            before, latest_s = offset, slack_s
            continue
        since, before, slack_s = offset - before, offset, slack_s - taken_s / lanes
        most_s = spare_s * (1.0 + _ROUNDING) if slack_s >= longest_s else math.inf
        if fastest_s * (ahead + lanes) > spare_s:
            possible = (
                int(spare_s / fastest_s) if fastest_s * (ahead + 1) > most_s else _turns(slack_s, fastest_s, free)
            )
            if possible <= ahead:
                lost += min(since, ahead + 1 - possible)
                continue
        while turn_s * (ahead + lanes) > spare_s and (
            turn_s * (ahead + 1) > most_s or _turns(slack_s, turn_s, free) <= ahead
        ):
            index += 1
            turn_s = turns_s[index]
        if turn_s == fastest_s:
            return index
        latest_s = slack_s
    most_s = turn_kept_up_s(len(queue) - head - lost, latest_s, busy_s, situation)
    return index if turn_s <= most_s or most_s < fastest_s else _first_within(most_s, turns_s, index)


def _first_within(most_s: float, turns_s: Sequence[float], index: int) -> int:
    while turns_s[index] > most_s:
        index += 1
    return index


def _turns(slack_s: float, turn_s: float, free: Sequence[float]) -> int:
    """Return how many turns of a lane end within the slack."""
    return sum([int((slack_s - moment) / turn_s + _ROUNDING) for moment in free if moment < slack_s])


Look = tuple[int, int, int, float]
"""One request that is looked at: its ladder's place, how many it stands for, how many lanes it can reach, and the time
that is left until it is due, or where a queue is not looked at in full, that of all these lanes."""


@dataclass(slots=True)
class Outlook:
    """What a level is tried on: the requests looked at that can be saved, in service order, and their ladders."""

    free: list[float]
    is_whole: bool
    ladders: list[Ladder] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    _places: dict[tuple[int, int], int] = field(default_factory=dict)

    def place(self, item: Waiting, costs: Costs) -> int:
        """Return the place of a request's ladder."""
        key = (id(item.candidates), item.rows)  # the queue holds the candidates for as long as this lasts
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.ladders)
            self.ladders.append(costs.ladder(item.candidates, item.rows))
        return place


def look(queue: Sequence[Waiting], head: int, situation: Situation) -> Outlook:
    """Look at a queue of requests that ask differently: at all of a short one, else at some."""
    time = LaneTime(situation)
    if len(queue) - head <= _EXACT and not situation.others_s:
        return _look_at_all(queue, head, situation, Outlook(time.free, is_whole=True))
    return _look_at_some(queue, head, situation.costs, time)


def _look_at_all(queue: Sequence[Waiting], head: int, situation: Situation, outlook: Outlook) -> Outlook:
    soonest, lanes = outlook.free.copy(), len(outlook.free)
    heapq.heapify(soonest)
    for position in range(head, len(queue)):
        item = queue[position]
        place, slack_s = outlook.place(item, situation.costs), item.due_s - situation.now_s
        finish_s = soonest[0] + outlook.ladders[place].steps[-1].cost_s + RUN_OVERHEAD_S
        if finish_s <= slack_s or position == head:
            outlook.looks.append((place, 1, lanes, slack_s))
            if item.kept_level is None:  # else it can be answered with what it has, and takes no time from others
                heapq.heapreplace(soonest, finish_s)
    return outlook


def _look_at_some(queue: Sequence[Waiting], head: int, costs: Costs, time: LaneTime) -> Outlook:
    outlook, now_s = Outlook(time.free, is_whole=False), time.now_s
    least_s, before, add = 0.0, -1, outlook.looks.append
    for offset in sampled(len(queue) - head):
        item = queue[head + offset]
        place, slack_s = outlook.place(item, costs), item.due_s - now_s
        count, before = offset - before, offset
        lanes, left_s = time.within(slack_s)
        turn_s = outlook.ladders[place].steps[-1].cost_s + RUN_OVERHEAD_S
        if least_s + (count - 1 + lanes) * turn_s <= left_s or not offset:
            least_s += count * turn_s if item.kept_level is None else 0.0
            add((place, count, lanes, left_s))
    return outlook


def level_by_bisection(outlook: Outlook, steps: Sequence[Step]) -> int:
    """Return the first of the steps at whose level all stay on time; the last one where there is no such level."""
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if stays_on_time(outlook, steps[middle].accuracy):
            high = middle
        else:
            low = middle + 1
    return low


def stays_on_time(outlook: Outlook, level: float) -> bool:
    """Tell whether all that can be saved are on time if everyone takes the best candidate not above ``level``.

    The first one runs now, and is on time by whoever chose for it.
    """
    turns_s = [ladder.at(level).cost_s + RUN_OVERHEAD_S for ladder in outlook.ladders]
    if outlook.is_whole:
        return _lays_out(outlook, turns_s)
    work_s, is_first = 0.0, True
    for place, count, lanes, left_s in outlook.looks:
        turn_s = turns_s[place]
        if work_s + (count - 1 + lanes) * turn_s > left_s and not is_first:
            return False
        work_s += count * turn_s
        is_first = False
    return True


def _lays_out(outlook: Outlook, turns_s: Sequence[float]) -> bool:
    free, is_first = outlook.free.copy(), True
    heapq.heapify(free)
    for place, _, _, slack_s in outlook.looks:
        finish_s = free[0] + turns_s[place]
        if finish_s > slack_s and not is_first:
            return False
        heapq.heapreplace(free, finish_s)
        is_first = False
    return True
