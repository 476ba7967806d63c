"""The desk, driven by an event loop of a few lines that takes its time from a calendar."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.policy.costs import Costs
from service.policy.deadline_queue import DeadlineQueue
from service.policy.desk import _AHEAD_S, Desk, Standing
from service.policy.limits import Verdict
from service.policy.scheduling import choose_run
from service.policy.situation import Run, Waiting
from tests.service.policy.waiting_requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

from service.domain.policy_file import ModelPolicy

RUN_S = 0.010
COSTS = Costs({"only": (0.0, RUN_S)}, {"only": 1.0}, {"only": 0.9})
CALM = Costs({"only": (0.0, RUN_S)}, {"only": 0.5}, {"only": 0.9})


@dataclass(eq=False)
class Model:
    """A model of one variant; ``weight`` is its share of the lanes."""

    name: str
    weight: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)
    queue: DeadlineQueue[Request[Model]] = field(default_factory=DeadlineQueue)
    max_rows: int = 1

    def __post_init__(self) -> None:
        self.policy = ModelPolicy(weight=self.weight, **({"exploration_share": 0.0} | self.settings))

    def costs(self, now_s: float) -> Costs:
        del now_s
        return COSTS

    def calm_costs(self, now_s: float) -> Costs:
        del now_s
        return CALM


def request(model: Model, due_s: float = 60.0, deadline_s: float | None = None, criticality: int = 1) -> Request[Model]:
    hard_s = due_s if deadline_s is None else deadline_s
    return Request(model, Waiting(due_s, hard_s, 1, ("only",), None), RUN_S, criticality)


@dataclass
class Day:
    """What came of a simulation: CPU-seconds by model up to its end, and how long each request waited."""

    busy_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits_s: dict[str, list[float]] = field(default_factory=dict)


def live(desk: Desk[Model], arrivals: Iterable[tuple[float, Model]], until_s: float, budget_s: float = 60.0) -> Day:
    """Let requests arrive and lanes work until a moment; runs take what is predicted."""
    numbers, calendar, day = count(), list[tuple[float, int, Any]](), Day()
    for at_s, wanted in arrivals:
        heappush(calendar, (at_s, next(numbers), wanted))
    while calendar and calendar[0][0] <= until_s:
        now_s, _, what = heappop(calendar)
        if isinstance(what, Model):
            desk.push(request(what, now_s + budget_s), now_s)
        else:
            lane, served = what
            desk.end(lane, served, now_s)
        for lane in desk.lanes:
            if lane.is_busy or (model := desk.next_model(now_s)) is None:
                continue
            run = choose_run(model.queue.waiting(), desk.situation(model, lane, now_s))
            assert run is not None
            (taken,) = desk.take(model, run)
            desk.begin(lane, model, run, now_s)
            day.busy_s[model.name] += run.predicted_s
            day.waits_s.setdefault(model.name, []).append(now_s - (taken.waiting.due_s - budget_s))
            heappush(calendar, (now_s + run.predicted_s, next(numbers), (lane, model)))
    return day


def burst(model: Model, size: int, at_s: float = 0.0) -> list[tuple[float, Model]]:
    return [(at_s, model)] * size


def steady(model: Model, rate_hz: float, until_s: float, from_s: float = 0.0) -> list[tuple[float, Model]]:
    return [(from_s + number / rate_hz, model) for number in range(int((until_s - from_s) * rate_hz))]


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_burst_of_one_model_costs_another_no_more_than_its_turn(lanes: int) -> None:
    bursting, modest = Model("bursting"), Model("modest")
    # The modest one asks for 40 % of the lanes, less than its half, while a thousand seconds' worth of the other waits.
    arrivals = burst(bursting, 2000) + steady(modest, 40.0 * lanes, until_s=4.0)
    day = live(Desk(lanes), arrivals, until_s=4.0)
    assert day.busy_s["modest"] == pytest.approx(0.4 * lanes * 4.0, rel=0.03)
    assert max(day.waits_s["modest"]) < _AHEAD_S + 2 * RUN_S


def test_a_burst_behind_nobody_takes_all_lanes() -> None:
    bursting = Model("bursting")
    assert live(Desk(2), burst(bursting, 1000), until_s=2.0).busy_s["bursting"] == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.5, 2.0), (10.0, 1.0)])
def test_models_that_always_wait_share_the_lanes_by_weight(weights: tuple[float, float]) -> None:
    models = [Model("one", weights[0]), Model("other", weights[1])]
    day = live(Desk(2), burst(models[0], 3000) + burst(models[1], 3000), until_s=10.0)
    share = weights[0] / sum(weights)
    assert day.busy_s["one"] / sum(day.busy_s.values()) == pytest.approx(share, abs=0.02)
    assert sum(day.busy_s.values()) == pytest.approx(20.0, rel=0.01)


def test_models_within_their_window_are_served_by_deadline() -> None:
    desk, one, other = Desk[Model](1), Model("one"), Model("other")
    desk.push(request(one, 2.0), 0.0)
    desk.push(request(other, 1.0), 0.0)
    assert desk.next_model(0.0) is other
    other.standing.virtual_s = 0.9 * _AHEAD_S
    assert desk.next_model(0.0) is other
    other.standing.virtual_s = 1.1 * _AHEAD_S
    assert desk.next_model(0.0) is one


def test_an_idle_model_saves_nothing_up_while_another_waits() -> None:
    busy, idle = Model("busy"), Model("idle")
    arrivals = burst(busy, 2000) + burst(idle, 2000, at_s=5.0)
    day = live(Desk(1), arrivals, until_s=7.0)
    assert day.busy_s["idle"] == pytest.approx(1.0, abs=_AHEAD_S + RUN_S)


def test_an_idle_model_saves_nothing_up_where_nobody_waits_when_it_comes() -> None:
    calm, idle = Model("calm"), Model("idle")
    # The calm one has used five seconds without ever having had two requests; the other comes between two of them.
    arrivals = steady(calm, 50.0, until_s=10.0) + burst(idle, 2000, at_s=9.9951) + burst(calm, 2000, at_s=10.0)
    day = live(Desk(1), arrivals, until_s=12.0)
    assert day.busy_s["idle"] == pytest.approx(1.0, abs=2 * _AHEAD_S)


def test_a_model_loaded_anew_does_not_start_behind_all_others() -> None:
    old, new = Model("old"), Model("new")
    desk = Desk[Model](1)
    live(desk, burst(old, 100), until_s=10.0)
    desk.push(request(new), 0.0)
    assert new.standing.virtual_s == pytest.approx(old.standing.virtual_s, abs=2 * RUN_S)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_no_model_waits_longer_for_another_than_the_window_whatever_arrives(seed: int, lanes: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a repeatable mix, no secret
    models = [Model(f"m{number}", chance.choice([0.5, 1.0, 2.0])) for number in range(3)]
    arrivals = [(chance.uniform(0.0, 1.0), chance.choice(models)) for _ in range(200)]
    desk = Desk[Model](lanes)
    live(desk, [*arrivals, *(entry for model in models for entry in burst(model, 450))], until_s=1.0)
    assert len(desk.models) == 3
    virtual_s = [model.standing.virtual_s for model in models]
    assert max(virtual_s) - min(virtual_s) <= _AHEAD_S + lanes * RUN_S / 0.5 + 1e-9


@pytest.mark.parametrize(("share", "turns"), [(0.01, 10), (0.1, 100), (0.25, 250), (0.5, 500), (0.0, 0)])
def test_exploration_takes_its_exact_share_of_decisions(share: float, turns: int) -> None:
    desk, model = Desk[Model](1), Model("one", settings={"exploration_share": share})
    found = [desk.situation(model, desk.lanes[0], 0.0).costs for _ in range(1000)]
    assert sum(costs is CALM for costs in found) == turns


def test_a_lane_of_its_own_is_none_of_the_desks_and_counts_on_itself_alone() -> None:
    desk, model = Desk[Model](3), Model("one")
    for lane in desk.lanes:
        desk.begin(lane, model, Run("only", (0,), RUN_S), 0.0)
    own = desk.lane_of_its_own()
    assert own not in desk.lanes
    found = desk.situation(model, own, 0.002)
    assert found.lanes_free_s == (0.002,)
    desk.begin(own, model, Run("only", (0,), RUN_S), 0.002)
    desk.end(own, model, 0.012)
    assert all(lane.is_busy for lane in desk.lanes)
    assert model.standing.virtual_s == pytest.approx(4 * RUN_S)


def test_situation_says_when_each_lane_is_free() -> None:
    desk, model = Desk[Model](3), Model("one")
    desk.begin(desk.lanes[1], model, Run("only", (0,), RUN_S), 1.0)
    found = desk.situation(model, desk.lanes[0], 1.004)
    assert found.lanes_free_s == (1.004, 1.010, 1.004)


def test_situation_counts_what_others_have_waiting_at_what_they_lately_spent() -> None:
    desk, one, other = Desk[Model](1), Model("one"), Model("other", weight=3.0)
    desk.begin(desk.lanes[0], other, Run("only", (0, 1), 0.5), 0.0)
    desk.end(desk.lanes[0], other, 0.5)
    for model in (one, other, other, other):
        desk.push(request(model), 0.0)
    found = desk.situation(one, desk.lanes[0], 0.5)
    assert (found.others_s, found.lane_share) == pytest.approx((3 * 0.25, 0.25))
    alone = desk.situation(other, desk.lanes[0], 0.5)
    assert (alone.others_s, alone.lane_share) == pytest.approx((0.0, 0.75))  # the one has spent nothing yet


def test_situation_of_the_only_model_that_waits_knows_no_others() -> None:
    desk, model = Desk[Model](1), Model("one")
    desk.push(request(model), 0.0)
    found = desk.situation(model, desk.lanes[0], 0.0)
    assert (found.others_s, found.lane_share) == (0.0, 1.0)


def test_situation_passes_on_the_objective_and_what_losses_make_of_the_shortage() -> None:
    desk = Desk[Model](1)
    priced = Model("priced", settings={"price_per_cpu_s": 0.5, "shortage_weight": 30.0, "burst_price": 0.1})
    priced.standing.losses.ratio = 0.1
    found = desk.situation(priced, desk.lanes[0], 0.0)
    assert (found.price_per_s, found.accuracy_loss, found.shortage) == pytest.approx((0.5, 0.0, 0.1 + 0.3))
    frugal = Model("frugal", settings={"objective": "cost", "max_accuracy_loss": 0.02})
    assert desk.situation(frugal, desk.lanes[0], 0.0).accuracy_loss == 0.02


@pytest.mark.parametrize("took_s", [0.004, 0.010, 0.030])
def test_virtual_time_settles_on_what_a_run_took_when_it_ends(took_s: float) -> None:
    desk, model = Desk[Model](1), Model("one", weight=2.0)
    desk.begin(desk.lanes[0], model, Run("only", (0,), RUN_S), 1.0)
    assert model.standing.virtual_s == pytest.approx(RUN_S / 2.0)
    desk.end(desk.lanes[0], model, 1.0 + took_s)
    assert model.standing.virtual_s == pytest.approx(took_s / 2.0)
    assert desk.lanes[0].busy_s == pytest.approx(took_s)
    assert not desk.lanes[0].is_busy


def test_a_model_stands_at_the_desk_as_long_as_it_has_requests_waiting() -> None:
    desk, model = Desk[Model](1), Model("one")
    first, second = request(model), request(model)
    desk.push(first, 0.0)
    desk.push(second, 0.0)
    assert desk.remove(first)
    assert model in desk.models
    assert not desk.remove(first)
    assert desk.remove(second)
    assert not desk.models
    assert desk.next_model(0.0) is None


def test_what_becomes_late_while_it_waits_is_a_loss() -> None:
    desk, model = Desk[Model](1), Model("one")
    desk.push(request(model, due_s=0.5, deadline_s=5.0), 0.0)
    desk.push(request(model, due_s=2.0), 0.0)
    desk.next_model(1.0)
    lost = model.standing.losses.ratio
    assert lost > 0.0
    desk.next_model(1.0)
    assert model.standing.losses.ratio == lost


def test_a_second_stage_that_becomes_too_late_is_no_loss_and_counts_as_no_work() -> None:
    desk, model = Desk[Model](1), Model("one")
    kept = request(model, due_s=0.5, deadline_s=5.0)
    kept.waiting = Waiting(0.5, 5.0, 1, ("only",), None, kept_level=0.9)
    desk.push(kept, 0.0)
    assert desk.wait_s(0.0) == 0.0
    desk.next_model(1.0)
    assert model.standing.losses.ratio == 0.0
    desk.push(request(model), 0.0)
    assert desk.wait_s(1.0) == pytest.approx(RUN_S)
    desk.remove(kept)
    assert desk.wait_s(1.0) == pytest.approx(RUN_S)


def test_a_request_that_is_late_from_the_start_waits_behind_all_others_and_is_no_loss_and_no_work() -> None:
    desk, model = Desk[Model](1), Model("one")
    late, timely = request(model, due_s=0.005, deadline_s=5.0, criticality=0), request(model, criticality=2)
    for entry in (late, timely):
        desk.push(entry, 0.0)
    assert list(model.queue) == [timely, late]
    assert desk.wait_s(0.0) == 0.0
    desk.next_model(1.0)
    assert list(model.queue) == [timely, late]
    assert model.standing.losses.ratio == 0.0
    assert [desk.remove(entry) for entry in (timely, late)] == [True, True]
    assert model.queue.work_s(2) == 0.0


def busy_desk(free_s: Sequence[float], queued: Sequence[tuple[float, int]]) -> tuple[Desk[Model], Model]:
    desk, model = Desk[Model](len(free_s)), Model("one", settings={"max_queued": 30})
    for lane, until_s in zip(desk.lanes, free_s, strict=True):
        if until_s:
            desk.begin(lane, model, Run("only", (0,), until_s), 0.0)
    for due_s, criticality in queued:
        desk.push(request(model, due_s, due_s + 1.0, criticality), 0.0)
    return desk, model


@settings(deadline=None)
@given(
    st.lists(st.just(0.0) | st.floats(0.001, 0.2), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0.02, 0.5), st.integers(0, 2)), max_size=40),
    st.floats(0.001, 0.5),
)
def test_who_fits_at_once_is_never_refused_by_the_full_judgement(
    free_s: list[float], queued: list[tuple[float, int]], timeout_s: float
) -> None:
    desk, model = busy_desk([0.0, *free_s[1:]], queued)
    newcomer = request(model, timeout_s)
    if desk.fits_at_once(newcomer, 0.0):
        assert desk.judge(newcomer, 0.0)[0] is Verdict.ADMIT


@pytest.mark.parametrize(
    ("timeout_s", "verdict"), [(0.009, Verdict.INFEASIBLE), (0.058, Verdict.OVERLOADED), (0.062, Verdict.ADMIT)]
)
def test_judge_counts_running_and_queued_work_that_is_served_first(timeout_s: float, verdict: Verdict) -> None:
    desk, model = busy_desk([0.02], [(0.03, 1), (0.04, 1), (0.05, 0)])
    assert desk.judge(request(model, timeout_s), 0.0)[0] is verdict


@pytest.mark.parametrize(("timeout_s", "is_loss"), [(0.009, False), (0.015, True), (0.06, False)])
def test_judge_counts_a_loss_for_what_it_refuses_for_load(timeout_s: float, *, is_loss: bool) -> None:
    desk, model = busy_desk([0.02], [])
    desk.judge(request(model, timeout_s), 0.0)
    assert (model.standing.losses.ratio > 0.0) is is_loss


def test_judge_lets_a_newcomer_in_ahead_of_what_is_due_later() -> None:
    desk, model = busy_desk([0.02], [(0.5, 1)] * 20)
    assert desk.judge(request(model, 0.04), 0.0)[0] is Verdict.ADMIT


def test_judge_displaces_only_for_the_more_critical_when_the_queue_is_full() -> None:
    desk, model = busy_desk([0.02], [(5.0, 1)] * 30)
    verdicts = [desk.judge(request(model, 60.0, criticality=number), 0.0)[0] for number in (0, 1)]
    assert verdicts == [Verdict.DISPLACE, Verdict.FULL]


def test_models_that_wait_for_lanes_elsewhere_leave_the_shares_of_the_others_as_they_are() -> None:
    desk = Desk[Model](1)
    desk.add_pool("away--only", 1)
    away, greedy, modest = Model("away", standing=Standing(pools={"only": "away--only"})), Model("g"), Model("m")
    for model, due_s in ((away, 9.0), (greedy, 1.0), (modest, 2.0)):
        desk.push(request(model, due_s), 0.0)
    greedy.standing.virtual_s, modest.standing.virtual_s = 10.0, 5.0
    assert [model.name for model in desk.turns(desk.lanes[0], 0.0)] == ["away", "m", "g"]
    modest.standing.virtual_s = 10.0
    assert [model.name for model in desk.turns(desk.lanes[0], 0.0)] == ["away", "g", "m"]


def test_newcomer_of_a_model_with_servers_elsewhere_is_judged_by_what_others_have_waiting_here() -> None:
    desk, other = Desk[Model](1), Model("other")
    desk.add_pool("partly--far", 1)
    partly = Model("partly", standing=Standing(pools={"far": "partly--far"}))
    newcomer = request(partly, 0.055)
    assert desk.judge(newcomer, 0.0)[0] is Verdict.ADMIT
    for _ in range(5):
        desk.push(request(other, 0.05), 0.0)
    assert desk.judge(newcomer, 0.0)[0] is Verdict.OVERLOADED
    assert desk.judge(request(partly, 0.065), 0.0)[0] is Verdict.ADMIT
