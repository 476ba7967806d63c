"""What a simulated gateway has around it: the fleet, the clock's agenda, and where results go."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappush
from typing import TYPE_CHECKING, NamedTuple, Protocol

from loadtests.simulator.event_loop import LoopThread
from loadtests.simulator.result import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.simulator.fleet import Fleet
    from loadtests.simulator.policy import Site
    from loadtests.simulator.result import Records
    from loadtests.simulator.workload import Kind, Workload

Request = tuple[int, int, float, float, int, float]
"""A request's place in the workload, kind, budget and timeout in seconds, criticality, luck."""


class Gateway(Protocol):
    """A process with lanes, as the clock drives it."""

    @property
    def inside(self) -> int:
        """Requests admitted and unfinished."""

    def arrive(self, request: Request, now_s: float) -> None:
        """Take a request in, or refuse it."""

    def finish(self, lane: int, now_s: float) -> None:
        """Free a lane and give it what comes next."""


Event = tuple[float, int, int, Gateway]
"""The end of a run: moment, gateway's number, lane, gateway. The first three differ between all runs under way."""


class _LaneRun(NamedTuple):
    """A run under way, or the last one: members with hard deadlines; it waits for the interpreter once."""

    members: Sequence[tuple[int, float]]
    start_s: float
    end_s: float
    is_held: bool = False


@dataclass(slots=True, eq=False)
class Place:
    """Where one gateway stands: what it was told, the common agenda, the common records."""

    fleet: Fleet
    workload: Workload
    site: Site
    number: int
    agenda: list[Event]
    records: Records
    busy_s: list[float] = field(default_factory=list)
    wasted_s: float = 0.0
    thread: LoopThread = field(default_factory=LoopThread)
    _runs: dict[int, _LaneRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give each lane its account."""
        self.busy_s = [0.0] * self.fleet.lanes

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of requests that come."""
        return self.workload.kinds

    def row(self, index: int) -> int:
        """Return a request's row of the answer sheet."""
        return int(self.workload.row[index])

    def settle(self, index: int, kept: tuple[int, float], now_s: float) -> None:
        """Note that a request is answered with what a first run gave: the variant's place, given its hard deadline."""
        variant, deadline_s = kept
        self.records.variant[index] = variant
        self._answer(index, deadline_s, self._reply_s(now_s))

    def end(self, index: int, outcome: Outcome) -> None:
        """Note that a request ended without an answer and without having run; a refusal is written too."""
        self.records.outcome[index] = outcome
        if self.fleet.machine.loop is not None:
            self.thread.take(0.0, self.fleet.machine.loop.reply_s)  # at once where the loop is idle: then it is in time

    def run(self, gateway: Gateway, run: tuple[int, int, float, float], members: Sequence[tuple[int, float]]) -> None:
        """Put a run on the agenda and note what its members get.

        ``run`` is the lane, the variant's place, the start and the end on the lane; ``members`` are requests with
        their hard deadlines. Without an event loop the answers' moment is known when a run starts, and noted now.
        """
        lane, variant, start_s, end_s = run
        records, first_lane = self.records, self.number * self.fleet.lanes
        for index, _ in members:
            records.variant[index] = variant
            records.lane[index] = first_lane + lane
            records.batch[index] = len(members)
            records.start_s[index] = start_s
        self.busy_s[lane] += end_s - start_s
        if self.fleet.machine.loop is None:
            self._deliver(members, start_s, end_s)
        else:
            self._runs[lane] = _LaneRun(members, start_s, end_s)
        heappush(self.agenda, (end_s, self.number, lane, gateway))

    def hold(self, gateway: Gateway, lane: int, now_s: float) -> float:
        """Put the end of a lane's run off until the lane has the interpreter; return by how much, 0 where it has it."""
        run = self._runs.get(lane)
        if run is None or run.is_held:
            return 0.0
        end_s = self.thread.held_until_s(now_s)
        self._runs[lane] = run._replace(end_s=end_s, is_held=True)
        if end_s > now_s:
            self.busy_s[lane] += end_s - now_s
            heappush(self.agenda, (end_s, self.number, lane, gateway))
        return end_s - now_s

    def reply(self, lane: int) -> float:
        """Let the loop give out the answers of a lane's run that has ended; return how long after it the last went."""
        run = self._runs.get(lane)
        if run is None:
            return self.fleet.machine.after_s
        return self._deliver(run.members, run.start_s, run.end_s) - run.end_s

    def _deliver(self, members: Sequence[tuple[int, float]], start_s: float, end_s: float) -> float:
        expired, answer_s = 0, end_s
        for index, deadline_s in members:
            answer_s = self._reply_s(end_s)
            expired += not self._answer(index, deadline_s, answer_s)
        if expired:
            self.wasted_s += (end_s - start_s) * expired / len(members)
        return answer_s

    def _answer(self, index: int, deadline_s: float, answer_s: float) -> bool:
        is_timely = answer_s <= deadline_s
        self.records.finish_s[index] = answer_s
        self.records.outcome[index] = Outcome.ANSWERED if is_timely else Outcome.EXPIRED_RUNNING
        return is_timely

    def _reply_s(self, now_s: float) -> float:
        machine = self.fleet.machine
        out_s = now_s if machine.loop is None else self.thread.take(now_s, machine.loop.reply_s)
        return out_s + machine.after_s
