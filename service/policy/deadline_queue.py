"""The deadline queue: which waiting request is served first, and how much work waits.

Service order is by criticality, then by due moment (earliest deadline first), then by arrival, and what is known to be
late comes behind everything else, so that a backlog of late work hides no request that can still be on time. The queue
knows its entries by the four attributes of ``Entry`` only: the gateway queues tickets, the simulator its own requests.

Nothing here locks, and time is an argument; who shares a queue between threads guards it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from service.domain.inference import Criticality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.policy.situation import Waiting


class Entry(Protocol):
    """What the queue needs of a waiting request.

    ``order`` and ``is_queued`` are the queue's own: service order (late, criticality, due moment, arrival), and
    whether the entry waits. ``fastest_s`` is the predicted compute time of its fastest candidate.
    """

    order: tuple[bool, int, float, int]
    is_queued: bool
    waiting: Waiting
    fastest_s: float

    @property
    def criticality(self) -> int:
        """Who is served first; lower is."""


E = TypeVar("E", bound=Entry)


class DeadlineQueue(Generic[E]):
    """The waiting entries of one model in service order, and how much work they are at the least.

    ``late_work_s`` is the compute, at the fastest variants, of the entries that are late.
    """

    def __init__(self) -> None:
        """Start empty."""
        # The same places in all three: a decision looks at what waits, a search at the order, and each at many.
        self._entries: list[E] = []
        self._waiting: list[Waiting] = []
        self._orders: list[tuple[bool, int, float, int]] = []
        self._arrivals = 0
        # By criticality: the entries not set aside as late, and their work.
        self._timely = [0, 0, 0]
        self._work_s = [0.0, 0.0, 0.0]
        self.late_work_s = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries)

    @property
    def head(self) -> E:
        """The entry that is served first."""
        return self._entries[0]

    @property
    def late_count(self) -> int:
        """How many entries are late."""
        return len(self._entries) - sum(self._timely)

    @property
    def least_important(self) -> E:
        """The entry that is missed least: of the lowest criticality, by which a late one counts a step less."""
        is_late = self.lowest_criticality == self._lowest_late
        return self._entries[-1 if is_late else sum(self._timely) - 1]

    @property
    def lowest_criticality(self) -> int:
        """The criticality of ``least_important``, 0 where nothing waits."""
        return max(self._lowest_late, *(number for number, count in enumerate(self._timely) if count), 0)

    @property
    def _lowest_late(self) -> int:
        if not self._orders or not self._orders[-1][0]:
            return -1
        return min(self._entries[-1].criticality + 1, int(Criticality.SHEDDABLE))

    def push(self, entry: E, *, is_late: bool = False) -> None:
        """Let an entry wait, behind the others if it is late already; one that comes back keeps its due moment."""
        self._arrivals += 1
        entry.order = (is_late, entry.criticality, entry.waiting.due_s, self._arrivals)
        entry.is_queued = True
        self._insert(entry)
        if not is_late:
            self._timely[entry.criticality] += 1
            self._work_s[entry.criticality] += _least_work_s(entry)
        else:
            self.late_work_s += _least_work_s(entry)

    def remove(self, entry: E) -> bool:
        """Take an entry out; return whether it was waiting."""
        if not entry.is_queued:
            return False
        entry.is_queued = False
        self._pop(bisect_left(self._orders, entry.order))  # orders are unique
        if not entry.order[0]:
            self._forget_timely(entry)
        else:
            self.late_work_s = self.late_work_s - _least_work_s(entry) if self._lowest_late >= 0 else 0.0
        return True

    def renew(self, entry: E) -> None:
        """Look again at what an entry waits for, which has changed; its order and its work have not."""
        self._waiting[bisect_left(self._orders, entry.order)] = entry.waiting

    def set_late_aside(self, now_s: float) -> int:
        """Move first entries that even their fastest candidate cannot finish by the due moment behind all others.

        Returns:
            How many there were, less those that have an answer and waited for a better one.
        """
        start = count = 0
        for criticality in range(len(self._timely)):
            while self._timely[criticality]:
                entry = self._entries[start]
                if now_s + entry.fastest_s <= entry.waiting.due_s:
                    break
                self._forget_timely(self._pop(start))
                entry.order = (True, *entry.order[1:])
                self._insert(entry)
                self.late_work_s += _least_work_s(entry)
                count += entry.waiting.kept_level is None
            start += self._timely[criticality]
        return count

    def at(self, positions: tuple[int, ...]) -> list[E]:
        """Return the entries at these positions, in order."""
        return [self._entries[position] for position in positions]

    def take(self, positions: tuple[int, ...]) -> list[E]:
        """Take out the entries at these positions, in order."""
        taken = self.at(positions)
        for entry in taken:
            self.remove(entry)
        return taken

    def take_all(self) -> list[E]:
        """Take out every entry."""
        return self.take(tuple(range(len(self._entries))))

    def waiting(self) -> Sequence[Waiting]:
        """Return the entries as scheduling sees them: they change with the queue, and nobody else changes them."""
        return self._waiting

    def work_s(self, criticality: int) -> float:
        """Return the compute, at the fastest variants, of the timely entries at least as important."""
        return max(0.0, sum(self._work_s[: criticality + 1]))

    def work_before_s(self, criticality: int, due_s: float) -> float:
        """Return the compute, at the fastest variants, of the timely entries that are served before such a newcomer."""
        entries, orders, work_s = self._entries, self._orders, self._work_s
        start = bisect_left(orders, (False, criticality, -math.inf, 0))
        place = bisect_left(orders, (False, criticality, due_s, self._arrivals + 1))
        end = bisect_left(orders, (False, criticality + 1, -math.inf, 0))
        if place - start <= end - place:  # the shorter side is summed: most newcomers come near an end
            return sum(work_s[:criticality]) + sum([_least_work_s(entry) for entry in entries[start:place]])
        return max(0.0, sum(work_s[: criticality + 1]) - sum([_least_work_s(entry) for entry in entries[place:end]]))

    def _insert(self, entry: E) -> None:
        place = bisect_left(self._orders, entry.order)
        self._orders.insert(place, entry.order)
        self._entries.insert(place, entry)
        self._waiting.insert(place, entry.waiting)

    def _pop(self, place: int) -> E:
        del self._orders[place], self._waiting[place]
        return self._entries.pop(place)

    def _forget_timely(self, entry: E) -> None:
        self._timely[entry.criticality] -= 1
        self._work_s[entry.criticality] -= _least_work_s(entry)


def _least_work_s(entry: Entry) -> float:
    """Return what an entry takes at the least: nothing, where it has an answer and waits for a better one."""
    return entry.fastest_s if entry.waiting.kept_level is None else 0.0
