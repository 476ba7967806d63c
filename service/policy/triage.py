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

Both are laid out over the lanes as in ``policy.pace``. Where the second loses fewer, that request is the head. Who is
given up is not forgotten: whoever is still there when the others are served has a turn, late as it may be.

Clockwork (OSDI 2020) drops what cannot be on time; that dropping more, from the front, can save more is an old rule of
overloaded real-time systems: Nexus (SOSP 2019) drops early for the sake of the batch behind, in a window of the
batch's size, whether or not it then saves anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.policy.pace import sampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.costs import Ladder
    from service.policy.situation import Situation, Waiting


def first_to_serve(queue: Sequence[Waiting], head: int, ladder: Ladder, situation: Situation) -> int:
    """Return the place of whom to serve first: ``head``, unless giving up those before another one saves more.

    ``head`` is the first in the queue that can be on time, ``ladder`` its candidates; who is returned has the same.
    """
    first, costs, now_s, fastest = queue[head], situation.costs, situation.now_s, ladder.steps[-1].name
    slack_s, most_rows = first.due_s - now_s, situation.max_rows
    if fastest in costs.plans or slack_s >= costs.of(fastest, most_rows):
        return head  # as nearly always: there is time for the largest run
    sizes = costs.sizes(ladder, first.rows, max(1, most_rows // first.rows))
    if slack_s >= sizes.good_s or len(queue) - head == 1:
        return head
    end = _end_of_kind(queue, head)
    lost_by_staying = _lost((queue, head, end), sizes.turn_within_s(slack_s), situation)
    if lost_by_staying <= 1:
        return head
    for place in range(head + 1, min(end, head + lost_by_staying)):
        if queue[place].due_s - now_s >= sizes.good_s and _is_alike(queue[place], first):
            lost_by_leaving = place - head + _lost((queue, place, end), sizes.good_turn_s, situation)
            return place if lost_by_leaving < lost_by_staying else head
    return head


def _end_of_kind(queue: Sequence[Waiting], head: int) -> int:
    """Return the place behind those like the head; where others are among them it may be any of these."""
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


def _lost(part: tuple[Sequence[Waiting], int, int], turn_s: float, situation: Situation) -> int:
    """Return how many of a part of the queue are late if each takes such a turn of the lane that is free first."""
    queue, head, end = part
    now_s, others_s = situation.now_s, situation.others_s
    free = [moment - now_s if moment > now_s else 0.0 for moment in situation.lanes_free_s]
    lanes, busy_s, longest_s, theirs = len(free), sum(free), max(free), (1.0 - situation.lane_share) * len(free)
    lost = before = 0
    for offset in sampled(end - head):
        slack_s, since, before = queue[head + offset].due_s - now_s, offset - before, offset
        if slack_s >= longest_s:
            left_s = lanes * slack_s - busy_s
        else:
            left_s = sum([slack_s - moment for moment in free if moment < slack_s])
        if others_s:
            left_s -= min(others_s, theirs * slack_s)
        ahead, possible = offset - lost, max(0, int(left_s / turn_s))
        if possible <= ahead and offset:
            lost += min(since, ahead + 1 - possible)
    return lost


def _is_alike(item: Waiting, first: Waiting) -> bool:
    """Tell whether a request is as important as another one and can share its run."""
    is_kind = item.criticality == first.criticality and item.rows == first.rows and item.may_share
    is_free = item.kept_level is None and item.batch_key == first.batch_key
    return is_kind and is_free and (item.candidates is first.candidates or item.candidates == first.candidates)
