"""Who would be late at the lanes: nobody who would be on time, by any account."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.domain.policy_file import ModelPolicy
from service.policy.costs import Costs
from service.policy.crowd import Newcomer, Prospect, is_crowded, prospect
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import _AHEAD_S, Desk, Standing
from service.policy.scheduling import choose_run
from service.policy.situation import Waiting
from tests.service.policy.waiting_requests import Request

RUN_S = 0.010
MANY = 200


@dataclass(eq=False)
class Model:
    """A model of one variant, of which eight together take ``eight_s``."""

    eight_s: float = 8 * RUN_S
    max_rows: int = 1
    weight: float = 1.0
    standing: Standing = field(default_factory=Standing)
    queue: DeadlineQueue[Request[Model]] = field(default_factory=DeadlineQueue)

    def __post_init__(self) -> None:
        self.policy = ModelPolicy(weight=self.weight, exploration_share=0.0)
        step_s = (self.eight_s - RUN_S) / 7
        table = (0.0, *(RUN_S + step_s * rows for rows in range(8)))
        self.known = Costs({"only": table}, {"only": 1.0}, {"only": 0.9})

    def costs(self, now_s: float) -> Costs:
        del now_s
        return self.known

    calm_costs = costs


def push(desk: Desk[Model], model: Model, due_s: float, count: int = 1, criticality: int = 1) -> None:
    for _ in range(count):
        desk.push(Request(model, Waiting(due_s, due_s + 60.0, 1, ("only",), None), RUN_S, criticality), 0.0)


def hope(desk: Desk[Model], model: Model, due_s: float, criticality: int = 1, waited_s: float = 0.0) -> Prospect:
    return prospect(desk, Newcomer(model, criticality, due_s, RUN_S, waited_s, due_s), 0.0)


@pytest.fixture
def desk() -> Desk[Model]:
    return Desk(1)


@pytest.mark.parametrize(
    ("lanes", "count", "is_there"), [(1, 60, False), (1, 70, True), (2, 70, False), (2, 140, True)]
)
def test_more_late_work_than_the_lanes_will_soon_do_is_a_crowd(lanes: int, count: int, is_there: bool) -> None:
    desk: Desk[Model] = Desk(lanes)
    push(desk, Model(), due_s=0.0, count=count)
    assert is_crowded(desk) is is_there


def test_late_work_for_other_servers_crowds_nobody_here(desk: Desk[Model]) -> None:
    elsewhere = Model(standing=Standing(pools={"only": "far"}))
    push(desk, elsewhere, due_s=0.0, count=MANY)
    assert not is_crowded(desk)
    push(desk, elsewhere, due_s=1.0, count=MANY)
    assert hope(desk, Model(), due_s=2 * RUN_S) is Prospect.TIMELY


def test_late_work_delays_no_newcomer_however_much_of_it_waits(desk: Desk[Model]) -> None:
    model = Model()
    push(desk, model, due_s=0.0, count=MANY)
    assert hope(desk, model, due_s=1.1 * RUN_S) is Prospect.TIMELY


def test_impatient_client_goes_before_patient_ones(desk: Desk[Model]) -> None:
    model = Model()
    push(desk, model, due_s=1.0, count=99)
    assert hope(desk, model, due_s=1.1 * RUN_S) is Prospect.TIMELY
    assert hope(desk, model, due_s=1.0 - 1e-6) is Prospect.TIMELY
    assert hope(desk, model, due_s=1.0 - 1e-6, criticality=2) is Prospect.BEHIND


def test_critical_newcomer_goes_before_all_that_matters_less(desk: Desk[Model]) -> None:
    model = Model()
    for criticality in (1, 2):
        push(desk, model, due_s=2 * RUN_S, count=50, criticality=criticality)
    assert hope(desk, model, due_s=3 * RUN_S, criticality=0) is Prospect.TIMELY
    assert hope(desk, model, due_s=3 * RUN_S, criticality=1) is Prospect.BEHIND


def test_whom_no_idle_lane_could_help_is_told_apart_from_who_is_behind_others(desk: Desk[Model]) -> None:
    model = Model()
    assert hope(desk, model, due_s=0.9 * RUN_S) is Prospect.HOPELESS
    desk.lanes[0].is_busy, desk.lanes[0].free_s = True, RUN_S
    assert hope(desk, model, due_s=1.5 * RUN_S) is Prospect.BEHIND
    assert hope(desk, model, due_s=2.0 * RUN_S) is Prospect.TIMELY
    assert hope(desk, model, due_s=2.0 * RUN_S, waited_s=1.5 * RUN_S) is Prospect.BEHIND


def test_another_models_burst_counts_no_more_than_it_may_be_ahead(desk: Desk[Model]) -> None:
    burst, quiet = Model(), Model()
    push(desk, burst, due_s=RUN_S, count=MANY)
    assert hope(desk, quiet, due_s=_AHEAD_S + 1.5 * RUN_S) is Prospect.TIMELY
    assert hope(desk, quiet, due_s=_AHEAD_S) is Prospect.BEHIND
    push(desk, quiet, due_s=0.0)
    burst.standing.virtual_s = 2 * _AHEAD_S
    assert hope(desk, quiet, due_s=1.5 * RUN_S) is Prospect.TIMELY
    assert hope(desk, burst, due_s=1.5 * RUN_S) is Prospect.BEHIND


@pytest.mark.parametrize(("max_rows", "expected"), [(1, Prospect.BEHIND), (8, Prospect.TIMELY)])
def test_what_can_share_a_run_takes_its_part_of_one(desk: Desk[Model], max_rows: int, expected: Prospect) -> None:
    model = Model(eight_s=1.6 * RUN_S, max_rows=max_rows)
    push(desk, model, due_s=2 * RUN_S, count=8)
    assert hope(desk, model, due_s=3 * RUN_S) is expected


@settings(max_examples=100, deadline=None)
@given(
    waiting=st.lists(st.tuples(st.integers(0, 1), st.floats(0.011, 0.3), st.integers(0, 2)), max_size=40),
    newcomer=st.tuples(st.integers(0, 1), st.floats(0.011, 0.3), st.integers(0, 2)),
    ahead_s=st.floats(0.0, 0.2),
)
@example(waiting=[(0, 0.03125, 0)] * 3, newcomer=(1, 0.03125, 0), ahead_s=0.0)
def test_nobody_is_turned_away_whom_the_lane_would_serve_in_time(
    waiting: list[tuple[int, float, int]], newcomer: tuple[int, float, int], ahead_s: float
) -> None:
    desk: Desk[Model] = Desk(1)
    models = (Model(), Model())
    models[1].standing.virtual_s = ahead_s
    for number, due_s, criticality in waiting:
        push(desk, models[number], due_s, criticality=criticality)
    number, due_s, criticality = newcomer
    told = hope(desk, models[number], due_s, criticality)
    request = Request(models[number], Waiting(due_s, 60.0, 1, ("only",), None), RUN_S, criticality)
    desk.push(request, 0.0)
    now_s, lane = 0.0, desk.lanes[0]
    while request.is_queued:
        model = desk.next_model(now_s)
        assert model is not None
        run = desk.decide(choose_run, model, lane, now_s)
        if run is None:
            desk.take_hopeless(model)
            continue
        desk.take(model, run)
        desk.begin(lane, model, run, now_s)
        now_s += RUN_S
        desk.end(lane, model, now_s)
    becomes_late = any(model.queue.late_count for model in models)  # counted though the lane set it aside
    if now_s <= due_s and not becomes_late:
        assert told is Prospect.TIMELY
