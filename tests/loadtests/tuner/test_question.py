from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.h2load import LoadError
from loadtests.simulator.workload import make_workload
from loadtests.tuner.question import ask, cut, read_mix, read_slo, slice_of, split
from tests.loadtests.tuner.questions import question


@pytest.mark.parametrize(
    ("text", "share", "budget_s"), [("p99=20ms", 0.99, 0.02), (" p99.9 = 1.5s", 0.999, 1.5), ("p50=700us", 0.5, 7e-4)]
)
def test_an_slo_is_a_share_and_a_budget(text: str, share: float, budget_s: float) -> None:
    found = read_slo(text)
    assert (found.share, found.budget_s) == pytest.approx((share, budget_s))


@pytest.mark.parametrize("text", ["", "99=20ms", "p99=20", "p99=-1ms", "p99=0ms", "p0=5ms", "p100=5ms", "p99=20ms!"])
def test_an_slo_of_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(LoadError, match="p99=20ms"):
        read_slo(text)


def test_a_mix_gives_seconds_and_shares() -> None:
    assert read_mix("20:7,50:3") == ((0.02, 7.0), (0.05, 3.0))
    assert read_mix("20") == ((0.02, 1.0),)
    for text in ("", "x", "20:", "-1", "0", "20:0", "nan", "inf"):
        with pytest.raises(LoadError, match="--budget-ms"):
            read_mix(text)


def test_budgets_are_drawn_by_their_shares() -> None:
    workload = ask(np.arange(4000.0), ((0.02, 3.0), (0.05, 1.0)), 1.0, seed=0)
    assert np.mean(workload.budget_s == 0.02) == pytest.approx(0.75, abs=0.03)
    assert set(workload.budget_s) == {0.02, 0.05}


def test_the_judging_part_comes_after_all_that_was_tuned_on() -> None:
    workload = make_workload(np.sort(np.random.default_rng(0).exponential(10.0, 500)))
    first, last = split(workload, 0.4)
    assert len(first) + len(last) == 500
    assert first.arrival_s[-1] <= 0.6 * workload.arrival_s[-1] + 0.4 * workload.arrival_s[0] < last.arrival_s[0]


def test_a_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(LoadError, match="cannot be split"):
        split(make_workload([0.0, 0.0, 0.0]), 0.4)


def test_a_slice_holds_whole_stretches_and_the_busiest() -> None:
    calm, crowd = np.arange(0.0, 2700.0, 1.0), np.linspace(1000.0, 1050.0, 500)
    workload = make_workload(np.concatenate([calm, crowd]))
    part = slice_of(workload, 9)
    assert set(crowd) <= set(part.arrival_s)
    assert len(part) < len(workload) / 2
    assert np.count_nonzero(np.diff(part.arrival_s) > 5.0) <= 3  # three stretches of 27


def test_a_short_workload_is_not_sliced_and_a_long_one_is_cut() -> None:
    short = make_workload(np.arange(200.0))
    assert slice_of(short, 9) is short
    assert cut(short) is short
    assert 300 <= len(cut(make_workload(np.arange(4000.0)), most=500)) <= 700


def test_a_digest_names_all_that_the_answer_depends_on() -> None:
    first = question()
    others = [
        replace(first, seed=1),
        replace(first, lanes=3),
        replace(first, limits=replace(first.limits, attainment=0.6)),
        replace(first, tuning=first.judging),
        replace(first, machine=replace(first.machine, ratio=2.0)),
    ]
    assert first.digest() == question().digest()
    assert len({first.digest(), *(item.digest() for item in others)}) == 6


def test_a_trace_that_came_nearly_all_at_once_is_thinned_to_where_it_came() -> None:
    times = np.concatenate([np.linspace(0.0, 1.0, 900), [1e6]])
    thinned = cut(ask(times, ((0.1, 1.0),), 2.0, 0), most=300)
    assert len(thinned) >= 900


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.0, 9.0, 10.0], [0.0, 1.0, 9.0, 9.0]])
def test_parts_without_two_moments_are_refused(times: list[float]) -> None:
    with pytest.raises(LoadError, match="at two moments at least"):
        split(ask(np.array(times), ((0.1, 1.0),), 2.0, 0), 0.4)
