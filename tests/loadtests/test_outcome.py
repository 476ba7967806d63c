from __future__ import annotations

import numpy as np
import pytest

from loadtests.outcome import summarise
from loadtests.plan import Schedule
from loadtests.recording import Recording, Status
from loadtests.runner import judge_lag
from tests.loadtests.recordings import COUNT, KINDS, LABELS, recording, run_of


def test_a_request_counts_only_when_it_is_right_and_on_time() -> None:
    summary = summarise(run_of(recording()), KINDS, LABELS)
    whole = summary.all
    assert (whole.offered, whole.answered) == (COUNT, COUNT - 20)
    # The late ones take 50 ms; they are of the fast kind, whose budget is 10 ms.
    assert whole.on_time == COUNT - 40
    assert whole.correct == COUNT - 40
    assert whole.attainment is not None
    assert whole.effective_accuracy is not None
    assert whole.attainment.value == pytest.approx(0.9)
    assert whole.effective_accuracy.value == pytest.approx(0.85)
    assert whole.effective_accuracy.low is not None
    assert whole.effective_accuracy.low < 0.85
    assert summary.goodput_hz == pytest.approx(90.0)


def test_kinds_and_variants_have_figures_of_their_own() -> None:
    summary = summarise(run_of(recording()), KINDS, LABELS)
    slow, fast = summary.classes
    assert (slow.offered, slow.on_time, slow.statuses["shed"]) == (200, 180, 20)
    assert (fast.offered, fast.on_time, fast.answered) == (200, 180, 200)
    assert {group.name: group.offered for group in summary.variants} == {"full": 190, "distilled": 190}
    assert summary.variants[1].mean_expected_accuracy == pytest.approx(0.9)
    assert summary.all.mean_expected_accuracy == pytest.approx(0.945)


def test_without_labels_nothing_is_said_of_correctness() -> None:
    summary = summarise(run_of(recording()), KINDS, None)
    assert summary.all.correct is None
    assert summary.all.effective_accuracy is None
    assert summary.cpu_s_per_on_time_correct == pytest.approx(2.0 / 360)


def test_the_gateways_own_figures_are_those_between_its_readings() -> None:
    summary = summarise(run_of(recording()), KINDS, LABELS)
    assert summary.server_counts == {"ok": 380, "overloaded": 20}
    assert summary.client_counts == {"ok": 380, "shed": 20}
    assert summary.gateway_cpu_s == pytest.approx(2.0)
    assert summary.cpu_s_per_on_time_correct == pytest.approx(2.0 / 340)
    assert summary.lanes is not None
    assert summary.lanes.mean == pytest.approx((0.25, 0.75))


def test_the_timeline_adds_up() -> None:
    summary = summarise(run_of(recording()), KINDS, LABELS)
    assert sum(moment.offered for moment in summary.timeline) == COUNT
    assert sum(moment.refused for moment in summary.timeline) == 20
    assert "full" in summary.timeline[0].variants
    assert "distilled" in summary.timeline[-1].variants


def test_predictions_are_compared_from_the_choice_of_the_run_on() -> None:
    reliability = summarise(run_of(recording()), KINDS, LABELS).reliability
    assert reliability is not None
    assert reliability.ratio_p50 == pytest.approx((0.005 - 0.001) / (0.004 - 0.001))
    assert reliability.kept_ratio == 0.0


def test_warm_up_is_left_out() -> None:
    found = recording()
    found.warmups = 100
    summary = summarise(run_of(found), KINDS, LABELS)
    assert summary.all.offered == COUNT - 100
    assert sum(summary.client_counts.values()) == COUNT


@pytest.mark.parametrize(("lag_s", "latency_s", "faults"), [(1e-5, 0.005, 0), (0.0011, 0.9, 1), (8e-4, 0.005, 0)])
def test_a_run_that_left_late_is_invalid(lag_s: float, latency_s: float, faults: int) -> None:
    # The late answers make the p99 of the service time 49 ms, of which 5 % are over 1 ms.
    assert len(judge_lag(recording(lag_s=lag_s, latency_s=latency_s)).faults) == faults


def test_a_lag_that_is_much_of_a_short_service_time_makes_a_run_invalid() -> None:
    found = Recording.blank(Schedule(np.arange(100.0), np.zeros(100, np.uint8), np.zeros(100, np.int32)))
    found.columns["sent_s"][:] = found.scheduled_s + 1e-4
    for place in range(100):
        found.note(place, float(found.scheduled_s[place]) + 1.1e-3, Status.OK, None)
    assert "10.0% of the service time" in judge_lag(found).faults[0]


def test_a_run_that_sent_nothing_is_invalid() -> None:
    found = Recording.blank(Schedule(np.arange(3.0), np.zeros(3, np.uint8), np.zeros(3, np.int32)))
    assert judge_lag(found).faults == ("nothing was sent",)
    assert summarise(run_of(found), KINDS, LABELS).all.offered == 0
