"""Whom to give up when not all can be saved: those whose little time left would keep every run small.

Earliest deadline first is the best order as long as everybody can be saved. Beyond that it serves each request at its
last moment: what is left of the first one's slack is then room for a run of one or two, though a run of sixteen would
take less of the lane for each. So lanes give fewest answers when most are asked for, and stay there, since a queue that
is served so slowly never gets its slack back.

Let t(n) be the time of a run of n on the fastest candidate, o the overhead of a run and n* the smallest n at which a
request's turn of a lane, (t(n) + o) / n, is within 5 % of the least. Where the first request has less than t(n*) left,
two ways are compared by how many requests of its kind they lose:

* to stay with it, at the turn of the largest run that its slack has room for;
* to give up everybody in front of the first request that has t(n*) left, and to go on at the turn of n* from there.

Both are laid out over the lanes as in ``policy.pace``, and from the first one that then has t(n*) left all take the
turn of n*: a few with little time before many with much are no reason. Where the second way loses fewer, that request
is the head. Who is given up is not forgotten: it has its turn when nobody can be on time any more. Where the turns
differ by so little that runs are not shared for it, nobody is given up.

Clockwork (OSDI 2020) drops what cannot be on time; that dropping more, from the front, can save more is an old rule of
overloaded real-time systems: Nexus (SOSP 2019) drops early for the sake of the batch behind, in a window of the
batch's size, whether or not it then saves anybody.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

from service.policy.costs import JOINS_BELOW
from service.policy.pace import LaneTime, sampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.costs import Ladder, Sizes
    from service.policy.situation import Situation, Waiting

_due_s = attrgetter("due_s")


def first_to_serve(queue: Sequence[Waiting], head: int, ladder: Ladder, situation: Situation) -> int:
    """Return the place of whom to serve first: ``head``, unless giving up those before another one saves more.

    ``head`` is the first in the queue that can be on time, ``ladder`` its candidates; who is returned has the same.
    """
    first, costs, now_s, fastest = queue[head], situation.costs, situation.now_s, ladder.fastest.name
    slack_s, most_rows = first.due_s - now_s, situation.max_rows
    if fastest in costs.plans or slack_s >= costs.of(fastest, most_rows):
        return head  # as nearly always: there is time for the largest run
    sizes = costs.sizes(ladder, first.rows, max(1, most_rows // first.rows))
    turn_s = sizes.turn_within_s(slack_s)
    if slack_s >= sizes.good_s or sizes.good_turn_s > JOINS_BELOW * turn_s:
        return head
    end, time = _end_of_kind(queue, head), LaneTime(situation)
    lost_by_staying = _lost(queue, range(head, end), turn_s, sizes, time)
    place = bisect_left(queue, now_s + sizes.good_s, head, end, key=_due_s)
    while place < end and not _is_alike(queue[place], first):
        place += 1
    if place == end or place - head >= lost_by_staying:
        return head
    lost_by_leaving = place - head + _lost(queue, range(place, end), sizes.good_turn_s, sizes, time)
    return place if lost_by_leaving < lost_by_staying else head


def _end_of_kind(queue: Sequence[Waiting], head: int) -> int:
    """Return the place behind those like the head, or of one that is not like it: the search looks at a few."""
    first, low, high = queue[head], head, len(queue)
    for offset in sampled(len(queue) - head):
        if not _is_alike(queue[head + offset], first):
            high = head + offset
            break
        low = head + offset
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_alike(queue[middle], first) else (low, middle)
    return low + 1


def _lost(queue: Sequence[Waiting], places: range, turn_s: float, sizes: Sizes, time: LaneTime) -> int:
    """Return how many of these places are late if each takes such a turn of the lane that is free first.

    From the first that then has time for a good run, each takes the turn of a good run.
    """
    lost = before = done = 0
    done_s = 0.0
    for offset in sampled(len(places)):
        slack_s, since, before = queue[places[offset]].due_s - time.now_s, offset - before, offset
        lanes, left_s = time.within(slack_s)
        ahead = offset - lost
        if turn_s > sizes.good_turn_s and offset and left_s - ahead * turn_s >= lanes * sizes.good_s:
            done, done_s, turn_s = ahead, ahead * turn_s, sizes.good_turn_s
        possible = max(0, done + int((left_s - done_s) / turn_s))
        if possible <= ahead and offset:
            lost += min(since, ahead + 1 - possible)
    return lost


def _is_alike(item: Waiting, first: Waiting) -> bool:
    """Tell whether a request behind the first is as important, not known to be late, and can share its run."""
    if item.due_s < first.due_s:
        return False  # what is late comes behind all else
    is_kind = item.criticality == first.criticality and item.rows == first.rows and item.may_share
    is_free = item.kept_level is None and item.batch_key == first.batch_key
    return is_kind and is_free and (item.candidates is first.candidates or item.candidates == first.candidates)
