"""Local and remote variants together: the sharing-out of a queue, and the desk over two kinds of lanes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.policy_file import ModelPolicy
from service.policy.costs import Costs, Plan
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import Desk, Standing
from service.policy.limits import Verdict
from service.policy.pools import LOCAL, Part, part_of
from service.policy.scheduling import choose_run
from service.policy.situation import Situation, Waiting
from tests.service.policy.waiting_requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

POOL = "sums--full"
TIMES_S = {"full": 0.020, "mid": 0.010, "small": 0.002}
ACCURACY = {"full": 0.92, "mid": 0.90, "small": 0.86}
EVERY = ("full", "mid", "small")


def make_costs(plans: dict[str, Plan] | None = None, rows: int = 1) -> Costs:
    tables = {name: tuple(number * seconds for number in range(rows + 1)) for name, seconds in TIMES_S.items()}
    return Costs(tables, dict.fromkeys(TIMES_S, 1.0), ACCURACY, plans or {})


def waiting(due_s: float, candidates: tuple[str, ...] = EVERY) -> Waiting:
    return Waiting(due_s, due_s + 60.0, 1, candidates, None)


def share(
    queue: Sequence[Waiting],
    group: str,
    free_s: dict[str, list[float]],
    remote: str = "full",
    **situation: Any,  # noqa: ANN401 - fields of the situation
) -> Part:
    calm = Situation(costs=make_costs(), now_s=0.0, lanes_free_s=(0.0,), max_rows=1)
    return part_of(queue, group, {remote: POOL}, free_s, replace(calm, **situation))


IDLE = {LOCAL: [0.0, 0.0], POOL: [0.0, 0.0]}


def test_what_is_more_accurate_elsewhere_and_in_time_is_left_to_those_lanes() -> None:
    queue = [waiting(0.1)]
    assert share(queue, POOL, IDLE).positions == [0]
    part = share(queue, LOCAL, IDLE)
    assert part.positions == []
    assert part.look_s == pytest.approx(0.1 - TIMES_S["full"])


def test_each_group_sees_the_candidates_that_it_can_run() -> None:
    queue = [waiting(0.1), waiting(0.005)]
    assert [item.candidates for item in share(queue, POOL, IDLE).waiting] == [("full",)]
    part = share(queue, LOCAL, IDLE)
    assert (part.positions, part.waiting[0].candidates) == ([1], ("mid", "small"))


def test_what_the_servers_would_be_late_with_is_done_here() -> None:
    busy = {LOCAL: [0.0], POOL: [0.085]}
    assert share([waiting(0.1)], LOCAL, busy).positions == [0]
    assert share([waiting(0.106)], LOCAL, busy).positions == []


def test_where_no_server_is_up_everything_is_done_here() -> None:
    gone = {LOCAL: [0.0], POOL: []}
    assert share([waiting(0.1)] * 3, LOCAL, gone).positions == [0, 1, 2]
    assert share([waiting(0.1)] * 3, POOL, gone).positions == []


def test_a_less_accurate_variant_elsewhere_takes_what_would_be_late_here() -> None:
    queue = [waiting(0.045) for _ in range(4)]  # one local lane has time for two full runs
    free = {LOCAL: [0.0], POOL: [0.0]}
    assert share(queue, LOCAL, free, remote="mid").positions == [0, 1]
    assert share(queue, POOL, free, remote="mid").positions == [2, 3]


def test_what_nobody_is_known_to_have_in_time_belongs_to_all_who_could_run_it() -> None:
    queue = [waiting(0.001), waiting(0.001, ("full",))]
    assert share(queue, LOCAL, IDLE).positions == [0]
    assert share(queue, POOL, IDLE).positions == [0, 1]


def test_the_objective_cost_asks_for_the_cheapest_that_is_accurate_enough() -> None:
    queue = [waiting(0.1)]
    assert share(queue, LOCAL, IDLE, accuracy_loss=0.03).positions == [0]  # mid is enough
    assert share(queue, POOL, IDLE, accuracy_loss=0.01).positions == [0]


def test_a_price_is_weighed_against_what_is_gained() -> None:
    assert share([waiting(0.1)], POOL, IDLE, price_per_s=1.0).positions == [0]  # 2 % for 10 ms more
    assert share([waiting(0.1)], LOCAL, IDLE, price_per_s=3.0).positions == [0]


def test_a_cascade_begins_where_its_first_variant_is_and_ends_where_its_second_is() -> None:
    plan = Plan("small+full", "small", "full", 0.5, 0.2, 0.93)
    costs = make_costs({plan.name: plan})
    first = waiting(0.1, (plan.name, *EVERY))
    assert share([first], LOCAL, IDLE, costs=costs).waiting[0].candidates == (plan.name, "mid", "small")
    second = Waiting(0.1, 60.0, 1, ("full",), None, kept_level=0.93)
    assert share([second], POOL, IDLE, costs=costs).positions == [0]
    assert share([second], LOCAL, IDLE, costs=costs).positions == []


def test_lanes_elsewhere_count_on_the_gain_of_their_batches() -> None:
    tables = {"full": (0.0, 0.020, *[0.021] * 7), "mid": (0.0, *(0.010 * rows for rows in range(1, 9)))}
    costs = Costs(tables, dict.fromkeys(tables, 1.0), {"full": 0.92, "mid": 0.90})
    queue = [waiting(0.045, ("full", "mid")) for _ in range(8)]
    free = {LOCAL: [0.0], POOL: [0.0]}
    assert share(queue, POOL, free, costs=costs, max_rows=8).positions == list(range(8))


@given(
    st.lists(st.tuples(st.floats(0.0, 0.3), st.sampled_from([EVERY, ("full",), ("small",), ("mid", "small")]))),
    st.lists(st.floats(0.0, 0.2), min_size=1, max_size=3),
    st.lists(st.floats(0.0, 0.2), max_size=3),
    st.sampled_from(EVERY),
)
def test_nobody_is_forgotten_and_what_is_in_time_belongs_to_one(
    asked: list[tuple[float, tuple[str, ...]]], local_s: list[float], pool_s: list[float], remote: str
) -> None:
    queue = [waiting(due_s, candidates) for due_s, candidates in sorted(asked)]
    free = {LOCAL: local_s, POOL: pool_s}
    parts = {group: share(queue, group, free, remote) for group in free}
    for position, item in enumerate(queue):
        able = {POOL if name == remote else LOCAL for name in item.candidates}
        able -= set() if pool_s else {POOL}
        owners = {group for group, part in parts.items() if position in part.positions}
        assert owners in ([able] if len(able) < 2 else [{LOCAL}, {POOL}, able])
    for group, part in parts.items():
        for position, item in zip(part.positions, part.waiting, strict=True):
            assert set(item.candidates) <= set(queue[position].candidates)
            assert all((name == remote) == (group == POOL) for name in item.candidates)
        assert part.look_s >= 0.0


@dataclass(eq=False)
class Model:
    """Full on a server, mid and small here."""

    settings: dict[str, Any] = field(default_factory=dict)
    standing: Standing = field(default_factory=lambda: Standing(pools={"full": POOL}))
    queue: DeadlineQueue[Request[Model]] = field(default_factory=DeadlineQueue)
    max_rows: int = 1

    def __post_init__(self) -> None:
        self.policy = ModelPolicy(exploration_share=0.0, shortage_weight=0.0)

    def costs(self, now_s: float) -> Costs:
        del now_s
        return COSTS

    calm_costs = costs


COSTS = make_costs()


def live(
    desk: Desk[Model], arrivals: Sequence[tuple[float, Request[Model]]], changes: Sequence[tuple[float, int]] = ()
) -> list[tuple[Request[Model], str, float]]:
    """Let requests arrive and lanes of both kinds work; return who was answered by what, and when.

    ``changes`` are moments at which so many lanes elsewhere become usable.
    """
    numbers, answered, looks = count(), list[tuple[Request[Model], str, float]](), set[float]()
    calendar: list[tuple[float, int, Any]] = [(at_s, next(numbers), what) for at_s, what in (*arrivals, *changes)]
    calendar.sort()
    while calendar:
        now_s, _, what = heappop(calendar)
        if isinstance(what, Request):
            desk.push(what, now_s)
        elif isinstance(what, int):
            desk.pools[POOL].usable = what
        elif what is not None:
            lane, run, taken = what
            desk.end(lane, taken[0].model, now_s)
            answered += [(item, run.variant, now_s) for item in taken]
        for lane in (*desk.lanes, *desk.pools[POOL].lanes):
            if lane.is_busy:
                continue
            for model in desk.turns(lane, now_s):
                run = desk.decide(choose_run, model, lane, now_s)
                assert run is not None
                if run.wait_until_s > now_s or not run.members:
                    look_s = max(run.wait_until_s, now_s + 1e-6)
                    if look_s < math.inf and look_s not in looks:
                        looks.add(look_s)
                        heappush(calendar, (look_s, next(numbers), None))
                    continue
                taken = desk.take(model, run)
                desk.begin(lane, model, run, now_s)
                heappush(calendar, (now_s + run.predicted_s, next(numbers), (lane, run, taken)))
                break
    return answered


def make_desk(calls: int = 2, lanes: int = 2) -> Desk[Model]:
    desk: Desk[Model] = Desk(lanes)
    desk.add_pool(POOL, calls).usable = calls
    return desk


def arrivals_of(
    model: Model, rate_hz: float, budget_s: float, until_s: float = 2.0
) -> list[tuple[float, Request[Model]]]:
    moments = [number / rate_hz for number in range(int(until_s * rate_hz))]
    return [(at_s, Request(model, waiting(at_s + budget_s), TIMES_S["small"])) for at_s in moments]


def answered_by(answers: Sequence[tuple[Request[Model], str, float]]) -> Counter[str]:
    return Counter(variant for _, variant, _ in answers)


def is_all_on_time(answers: Sequence[tuple[Request[Model], str, float]]) -> bool:
    return all(at_s <= item.waiting.due_s + 1e-9 for item, _, at_s in answers)


def test_at_low_load_everything_is_answered_by_the_most_accurate_which_is_elsewhere() -> None:
    answers = live(make_desk(), arrivals_of(Model(), 50.0, 0.1))
    assert answered_by(answers) == {"full": 100}
    assert is_all_on_time(answers)


@pytest.mark.parametrize(("rate_hz", "least_full"), [(150.0, 0.5), (250.0, 0.25), (800.0, 0.1)])
def test_what_is_too_much_for_the_servers_is_answered_here_and_everything_in_time(
    rate_hz: float, least_full: float
) -> None:
    answers = live(make_desk(), arrivals_of(Model(), rate_hz, 0.1))
    assert len(answers) == int(2.0 * rate_hz)
    assert is_all_on_time(answers)
    assert answered_by(answers)["full"] > least_full * len(answers)


def test_tight_budgets_are_kept_here_while_the_servers_take_the_others() -> None:
    model = Model()
    tight, wide = arrivals_of(model, 100.0, 0.012), arrivals_of(model, 50.0, 0.1)
    answers = live(make_desk(), sorted(tight + wide, key=lambda pair: pair[0]))
    assert is_all_on_time(answers)
    assert answered_by([item for item in answers if item[0] in {request for _, request in wide}]) == {"full": 100}


def test_traffic_moves_here_when_the_servers_go_and_back_when_they_return() -> None:
    answers = live(make_desk(), arrivals_of(Model(), 60.0, 0.1, 3.0), changes=[(1.0, 0), (2.0, 2)])
    assert len(answers) == 180
    assert is_all_on_time(answers)
    by_second = [
        answered_by([item for item in answers if second < item[2] <= second + 0.9]) for second in (0, 1.1, 2.1)
    ]
    assert [set(found) for found in by_second] == [{"full"}, {"mid"}, {"full"}]


def test_no_more_calls_are_under_way_than_may_be() -> None:
    desk, model = make_desk(calls=4), Model()
    desk.pools[POOL].usable = 1
    for number in range(3):
        desk.push(Request(model, waiting(1.0 + number, ("full",)), fastest_s=0.02), 0.0)
    lanes = desk.pools[POOL].lanes
    run = desk.decide(choose_run, model, lanes[0], 0.0)
    assert run is not None
    desk.take(model, run)
    desk.begin(lanes[0], model, run, 0.0)
    put_off = desk.decide(choose_run, model, lanes[1], 0.0)
    assert put_off is not None
    assert (put_off.members, put_off.wait_until_s) == ((), math.inf)


def test_a_lane_elsewhere_counts_on_the_usable_lanes_of_its_pool() -> None:
    desk, model = make_desk(calls=3, lanes=1), Model()
    lanes = desk.pools[POOL].lanes
    lanes[1].is_busy, lanes[1].free_s = True, 7.0
    assert desk.situation(model, lanes[0], 5.0).lanes_free_s == (5.0, 5.0, 7.0)
    desk.pools[POOL].usable = 1
    assert desk.situation(model, lanes[0], 5.0).lanes_free_s == (7.0,)


def test_calls_elsewhere_are_no_part_of_a_models_share_of_this_machine() -> None:
    model = Model()
    live(make_desk(), arrivals_of(model, 50.0, 0.1))
    assert model.standing.virtual_s == 0.0


def test_who_can_only_be_answered_elsewhere_is_judged_by_those_lanes() -> None:
    desk, model = make_desk(calls=1), Model()
    for number in range(20):
        desk.push(Request(model, waiting(1.0 + number, ("mid", "small")), TIMES_S["small"]), 0.0)
    for lane in desk.lanes:
        lane.is_busy, lane.free_s = True, 10.0
    pinned = Request(model, Waiting(0.03, 0.03, 1, ("full",), None), fastest_s=TIMES_S["full"])
    assert desk.judge(pinned, 0.0)[0] is Verdict.ADMIT
    desk.pools[POOL].lanes[0].is_busy, desk.pools[POOL].lanes[0].free_s = True, 0.02
    assert desk.judge(pinned, 0.0)[0] is Verdict.OVERLOADED
