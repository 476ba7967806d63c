from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.policy.costs import Costs
from service.policy.scheduling import Run, Situation, Waiting, choose_run

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = {"full": 0.030, "quantized": 0.009, "pruned": 0.005, "distilled": 0.002}
ACCURACY = {"full": 0.920, "quantized": 0.915, "pruned": 0.900, "distilled": 0.860}
LADDER = tuple(SECONDS)
MOST_ROWS = 8


def costs(batch_gain: float = 1.0, ratios: dict[str, float] | None = None) -> Costs:
    """Return costs that grow with rows to the power of ``batch_gain``: 1 makes batching worthless, 0 free."""
    tables = {
        name: (0.0, *(seconds * rows**batch_gain for rows in range(1, MOST_ROWS + 1)))
        for name, seconds in SECONDS.items()
    }
    return Costs(tables, ratios or dict.fromkeys(SECONDS, 1.0), ACCURACY)


def waiting(
    due_s: float = 0.1, deadline_s: float = 60.0, rows: int = 1, candidates: tuple[str, ...] = LADDER
) -> Waiting:
    return Waiting(due_s, deadline_s, rows, candidates, batch_key=None)


def situation(now_s: float = 0.0, lanes: int = 1, found: Costs | None = None) -> Situation:
    return Situation(found or costs(), now_s, (now_s,) * lanes, max_rows=MOST_ROWS)


def chosen(queue: Sequence[Waiting], found: Situation) -> Run:
    run = choose_run(queue, found)
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("budget_s", "variant"),
    [(0.100, "full"), (0.030, "full"), (0.029, "quantized"), (0.008, "pruned"), (0.004, "distilled")],
)
def test_a_lone_request_gets_the_most_accurate_variant_that_keeps_its_due_moment(budget_s: float, variant: str) -> None:
    assert chosen([waiting(budget_s)], situation()) == Run(variant, (0,), SECONDS[variant])


@pytest.mark.parametrize(
    ("queued", "variant"),
    [(1, "full"), (3, "full"), (4, "quantized"), (11, "quantized"), (12, "pruned"), (21, "distilled")],
)
def test_a_burst_moves_the_choice_down_so_far_as_the_whole_queue_needs(queued: int, variant: str) -> None:
    assert chosen([waiting(0.1)] * queued, situation()).variant == variant


def test_accuracy_that_a_cheaper_variant_has_too_is_paid_for_only_by_an_idle_machine() -> None:
    found = situation(lanes=2)
    found.costs = replace(found.costs, accuracy={**ACCURACY, "quantized": ACCURACY["full"]})
    assert chosen([waiting()], found).variant == "full"
    assert chosen([waiting()] * 2, found).variant == "quantized"
    found.lanes_free_s = (0.0, 0.02)
    assert chosen([waiting()], found).variant == "quantized"


def test_a_second_lane_carries_twice_the_queue_at_the_same_level() -> None:
    queue = [waiting(0.1)] * 6
    assert chosen(queue, situation(lanes=1)).variant == "quantized"
    assert chosen(queue, situation(lanes=2)).variant == "full"


def test_a_draining_queue_moves_the_choice_up_again() -> None:
    levels = [chosen([waiting(0.1)] * queued, situation()).variant for queued in (21, 11, 1)]
    assert levels == ["distilled", "quantized", "full"]


def test_a_queue_that_no_level_saves_is_served_by_the_fastest() -> None:
    assert chosen([waiting(0.1)] * 64, situation()).variant == "distilled"


def test_a_correction_moves_the_choice() -> None:
    slow = costs(ratios={**dict.fromkeys(SECONDS, 1.0), "full": 4.0})
    assert chosen([waiting(0.1)], situation(found=slow)).variant == "quantized"


def test_a_busy_lane_counts_from_the_moment_it_is_expected_to_be_free() -> None:
    both_free = Situation(costs(), 0.0, (0.0, 0.0), MOST_ROWS)
    one_busy = replace(both_free, lanes_free_s=(0.0, 0.09))
    queue = [waiting(0.1)] * 6
    assert (chosen(queue, both_free).variant, chosen(queue, one_busy).variant) == ("full", "quantized")


def test_requests_share_a_run_while_that_is_cheaper_than_a_run_each() -> None:
    run = chosen([waiting(0.2)] * 4, situation(found=costs(batch_gain=0.5)))
    assert (run.variant, run.members) == ("full", (0, 1, 2, 3))
    assert run.predicted_s == pytest.approx(0.060)


def test_requests_run_one_by_one_where_sharing_costs_more() -> None:
    assert chosen([waiting(0.1)] * 3, situation(found=costs(batch_gain=1.1))).members == (0,)


def test_requests_leave_their_share_to_idle_lanes() -> None:
    found = situation(lanes=2, found=costs(batch_gain=0.5))
    assert chosen([waiting(0.1)] * 4, found).members == (0, 1)


def test_a_run_takes_no_more_rows_than_allowed() -> None:
    queue = [waiting(1.0, rows=3), waiting(1.0, rows=3), waiting(1.0, rows=3), waiting(1.0, rows=2)]
    assert chosen(queue, situation(found=costs(batch_gain=0.5))).members == (0, 1, 3)


def test_a_run_is_shared_only_with_requests_of_the_same_shape_that_may_and_that_accept_the_variant() -> None:
    queue = [
        waiting(0.2),
        replace(waiting(0.2), batch_key="other"),
        replace(waiting(0.2), may_share=False),
        waiting(0.2, candidates=("distilled",)),
        waiting(0.2),
    ]
    run = chosen(queue, situation(found=costs(batch_gain=0.5)))
    assert (run.variant, run.members) == ("full", (0, 4))


def test_a_request_that_may_not_share_runs_alone() -> None:
    queue = [replace(waiting(0.1), may_share=False), waiting(0.1)]
    assert chosen(queue, situation(found=costs(batch_gain=0.5))).members == (0,)


def test_a_run_is_not_shared_where_a_member_would_become_late() -> None:
    queue = [waiting(0.035), waiting(0.2)]
    assert chosen(queue, situation(found=costs(batch_gain=0.5))).members == (0,)


def test_what_is_late_waits_for_what_can_still_be_on_time() -> None:
    late, timely = waiting(due_s=-1.0), waiting(due_s=0.1)
    run = chosen([late, late, timely], situation())
    assert (run.members, run.is_late) == ((2,), False)


@pytest.mark.parametrize("late", [64, 200])
def test_what_is_late_waits_however_much_of_it_is_ahead(late: int) -> None:
    queue = [waiting(due_s=-1.0)] * late + [waiting(due_s=0.1)]
    run = chosen(queue, situation())
    assert (run.members, run.is_late) == ((late,), False)


def test_late_work_runs_on_the_fastest_variant_when_nothing_timely_waits() -> None:
    assert chosen([waiting(due_s=-1.0)], situation()) == Run("distilled", (0,), 0.002, is_late=True)


def test_late_work_that_cannot_meet_its_hard_deadline_is_passed_over() -> None:
    queue = [waiting(due_s=-1.0, deadline_s=0.001), waiting(due_s=-1.0, deadline_s=0.003)]
    assert chosen(queue, situation()).members == (1,)


def test_late_work_whose_answer_would_miss_its_hard_deadline_runs_on_an_idle_machine_alone() -> None:
    hopeless = replace(waiting(due_s=-1.0, deadline_s=0.005), aside_s=0.004)
    hopeful = replace(hopeless, aside_s=0.003)
    assert chosen([hopeless], situation()).members == (0,)
    assert choose_run([hopeless], replace(situation(), lanes_free_s=(0.0, 0.1))) is None
    assert chosen([hopeless, hopeful], situation()).members == (1,)


@pytest.mark.parametrize("queue", [[], [waiting(due_s=-1.0, deadline_s=0.001)]])
def test_nothing_runs_when_nothing_can_meet_its_hard_deadline(queue: list[Waiting]) -> None:
    assert choose_run(queue, situation()) is None


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    def one() -> Waiting:
        due_s = draw(st.floats(-0.05, 0.3))
        names = draw(st.sets(st.sampled_from(LADDER), min_size=1))
        return Waiting(
            due_s=due_s,
            deadline_s=due_s + draw(st.floats(0.0, 0.2)),
            rows=draw(st.integers(1, MOST_ROWS)),
            candidates=tuple(name for name in LADDER if name in names),
            batch_key=draw(st.sampled_from(["a", "b"])),
            may_share=draw(st.booleans()),
        )

    found = [one() for _ in range(draw(st.integers(0, 20)))]
    return sorted(found, key=lambda item: item.due_s)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    ratios = {name: draw(st.floats(0.2, 5.0)) for name in LADDER}
    busy_s = draw(st.lists(st.floats(0.0, 0.2), max_size=3))
    found = costs(draw(st.floats(0.3, 1.2)), ratios)
    return Situation(found, 0.0, (0.0, *busy_s), max_rows=MOST_ROWS)


@given(queues(), situations())
def test_choose_run_keeps_every_promise(queue: list[Waiting], found: Situation) -> None:
    run = choose_run(queue, found)
    fastest = [found.costs.ladder(item.candidates, item.rows).fastest.cost_s for item in queue]
    timely = [fast_s <= item.due_s for item, fast_s in zip(queue, fastest, strict=True)]
    if run is None:
        assert all(fast_s > item.deadline_s for item, fast_s in zip(queue, fastest, strict=True))
        return
    members = [queue[index] for index in run.members]
    rows = sum(item.rows for item in members)
    assert len(set(run.members)) == len(run.members) >= 1
    assert rows <= MOST_ROWS
    assert len({item.batch_key for item in members}) == 1
    assert all(run.variant in item.candidates for item in members)
    assert run.predicted_s == found.costs.of(run.variant, rows)
    assert all(run.predicted_s <= item.deadline_s for item in members)
    assert run.is_late == (not any(timely))
    if not run.is_late:
        assert all(run.predicted_s <= item.due_s for item in members)


@given(queues(), situations())
def test_a_shared_run_never_costs_more_than_its_members_alone(queue: list[Waiting], found: Situation) -> None:
    run = choose_run(queue, found)
    if run is not None:
        apart_s = sum(found.costs.of(run.variant, queue[index].rows) for index in run.members)
        assert run.predicted_s <= apart_s + 60e-6 * len(run.members)


class Chooser(Protocol):
    def __call__(self, queue: Sequence[Waiting], situation: Situation, /) -> Run | None: ...


def choose_by_head_slack(queue: Sequence[Waiting], found: Situation) -> Run | None:
    """Choose by the first request's slack alone, as SlackFit does."""
    for index, item in enumerate(queue):
        for name in item.candidates:
            if found.now_s + found.costs.of(name, item.rows) <= item.due_s:
                return Run(name, (index,), found.costs.of(name, item.rows))
    return None


@dataclass
class Outcome:
    on_time: int = 0
    accuracy: float = 0.0


def simulate(choose: Chooser, arrivals_s: Sequence[float], lanes: int, budget_s: float) -> Outcome:
    """Serve arrivals on lanes that take exactly the predicted time; what ends by its due moment counts."""
    free, queue, coming, outcome = [0.0] * lanes, list[Waiting](), list(arrivals_s), Outcome()
    while coming or queue:
        now_s = min(free)
        if not queue:
            now_s = max(now_s, coming[0])
        while coming and coming[0] <= now_s:
            due_s = coming.pop(0) + budget_s
            queue.append(waiting(due_s, deadline_s=due_s))
        run = choose(queue, Situation(costs(), now_s, tuple(free), MOST_ROWS))
        if run is None:
            queue.clear()
            continue
        taken = [queue[index] for index in run.members]
        queue = [item for index, item in enumerate(queue) if index not in run.members]
        free[free.index(min(free))] = now_s + run.predicted_s
        in_time = sum(now_s + run.predicted_s <= item.due_s for item in taken)
        outcome.on_time += in_time
        outcome.accuracy += in_time * ACCURACY[run.variant]
    return outcome


BURSTS = [burst * 0.5 + index * 0.0005 for burst in range(4) for index in range(40)]


def test_looking_at_the_whole_queue_beats_looking_at_the_head_in_a_burst() -> None:
    level = simulate(choose_run, BURSTS, lanes=2, budget_s=0.1)
    head = simulate(choose_by_head_slack, BURSTS, lanes=2, budget_s=0.1)
    assert level.on_time == len(BURSTS) > head.on_time
    assert level.accuracy > head.accuracy


def test_looking_at_the_whole_queue_costs_no_accuracy_when_it_is_calm() -> None:
    calm = [index * 0.05 for index in range(20)]
    assert simulate(choose_run, calm, lanes=1, budget_s=0.1).accuracy == pytest.approx(20 * ACCURACY["full"])
