from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.h2load import LoadError
from loadtests.simulator.ladder import AnswerSheet
from loadtests.simulator.workload import Kind
from loadtests.tuner.asks import Terms, as_recorded
from loadtests.tuner.confirm import mix_of
from loadtests.tuner.question import Limits, Question, ask
from loadtests.tuner.recording import read_recording
from loadtests.tuner.score import figures_of, play
from loadtests.tuner.space import make_space
from service.domain.policy_file import HardwareClass, ModelPolicy
from service.engine.arrival_log import HEADER
from service.policy.costs import Plan
from tests.loadtests.tuner.questions import BUDGET_S, FIGURES, ladder, question

CLASSES = {"phone": HardwareClass(tiers=("distilled",), default_budget_ms=30.0), "desk": HardwareClass()}
TERMS = Terms(BUDGET_S, 5.0, CLASSES)
ROWS = (
    "12.0,,,normal,\n"  # the last to come
    "10.0,20,400,critical,phone\n"
    "10.5,,,sheddable,phone\n"
    "11.0,7000,,normal,described\n"
)


def test_requests_are_played_with_all_that_they_asked_for() -> None:
    source = read_recording(HEADER + ROWS.encode(), "arrivals.csv")
    assert source.asks is not None
    load = as_recorded(source.times_s, source.asks, ladder(), TERMS)
    assert load.arrival_s.tolist() == [0.0, 0.5, 1.0, 2.0]
    assert load.budget_s.tolist() == [0.02, 0.03, 7.0, BUDGET_S]
    assert load.timeout_s.tolist() == [0.4, 5.0, 7.0, 5.0]
    assert load.criticality.tolist() == [0, 2, 1, 1]
    kinds = [load.kinds[place] for place in load.kind]
    assert [kind.hardware for kind in kinds] == ["phone", "phone", "", ""]
    assert [kind.candidates for kind in kinds] == [("distilled",), ("distilled",), (), ()]
    assert [kind.names_budget for kind in kinds] == [True, True, True, False]


@pytest.mark.parametrize(
    ("row", "words"),
    [("1,20,,urgent,\n", "known are critical, normal, sheddable"), ("1,-5,,normal,\n", "no numbers above 0")],
)
def test_a_recording_that_says_nonsense_is_refused(row: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        read_recording(HEADER + b"0,20,,normal,\n" + row.encode(), "arrivals.csv")


def test_a_class_that_no_variant_suits_is_refused_by_name() -> None:
    source = read_recording(HEADER + ROWS.encode(), "arrivals.csv")
    assert source.asks is not None
    terms = replace(TERMS, classes={"phone": HardwareClass(tiers=("pruned",))})
    with pytest.raises(LoadError, match="hardware class 'phone'"):
        as_recorded(source.times_s, source.asks, ladder(), terms)


def asked(rows: str) -> Question:
    source = read_recording(HEADER + rows.encode(), "arrivals.csv")
    assert source.asks is not None
    load = as_recorded(source.times_s, source.asks, ladder(), TERMS)
    return Question(ladder(), (load,), (load,), Limits(attainment=0.0), lanes=1)


def test_clients_of_a_class_get_the_variants_of_its_tiers() -> None:
    rows = "".join(f"{number},100,,normal,{'phone' if number % 2 else 'desk'}\n" for number in range(40))
    question_ = asked(rows)
    result = play(question_, question_.base, question_.tuning[0], 0)
    assert {ladder().names[place] for place in result.variant[1::2]} == {"distilled"}
    assert {ladder().names[place] for place in result.variant[::2]} == {"full"}


def test_the_critical_are_refused_last() -> None:
    words = ("critical", "sheddable")
    question_ = asked("".join(f"{number / 1e4},100,,{words[number % 2]},desk\n" for number in range(400)))
    figures = play(question_, ModelPolicy(max_queued=16), question_.tuning[0], 0)
    critical, sheddable = figures.is_on_time[::2].sum(), figures.is_on_time[1::2].sum()
    assert critical > 2 * sheddable


def test_requests_without_a_budget_are_served_by_the_default_and_held_to_the_promise() -> None:
    question_ = asked("".join(f"{number},,,normal,\n" for number in range(20)))
    load, short = question_.tuning[0], ModelPolicy(default_budget_ms=20.0)
    answered = {name: play(question_, policy, load, 0) for name, policy in (("own", question_.base), ("short", short))}
    assert {ladder().names[place] for place in answered["own"].variant} == {"full"}
    assert {ladder().names[place] for place in answered["short"].variant} == {"quantized"}
    assert answered["short"].workload.budget_s.tolist() == [BUDGET_S] * 20


def test_default_budgets_are_searched_below_the_promise_where_requests_name_none() -> None:
    def values(asked: Question) -> list[float]:
        return [
            value for item in make_space(asked).dimensions if item.field == "default_budget_ms" for value in item.values
        ]

    open_ = asked("".join(f"{number},,,normal,\n" for number in range(20)))
    assert max(values(open_)) == 1e3 * BUDGET_S
    assert min(values(open_)) == 500 * BUDGET_S
    assert not values(question())


def test_a_memory_ceiling_leaves_every_hardware_class_a_variant() -> None:
    question_ = asked("".join(f"{number},100,,normal,phone\n" for number in range(20)))
    space = make_space(replace(question_, limits=Limits(attainment=0.0, memory_bytes=2.5 * 2**20)))
    sets = next(item.values for item in space.dimensions if item.field == "variants")
    assert set(sets) == {("full", "distilled"), ("quantized", "distilled")}


def test_deferring_is_searched_where_batching_gains() -> None:
    def fields(asked: Question) -> set[str]:
        return {item.field for item in make_space(asked).dimensions}

    plain = question()
    gaining = tuple(
        replace(
            item,
            profile=replace(
                item.profile,
                cells=tuple(replace(cell, p95_s=item.profile.cells[0].p95_s) for cell in item.profile.cells),
            ),
        )
        for item in plain.ladder.variants
    )
    assert "defers" not in fields(plain)
    assert "defers" in fields(replace(plain, ladder=replace(plain.ladder, variants=gaining)))


def test_cascades_count_by_the_answers_on_the_sheet_and_margins_move_who_escalates() -> None:
    # The small variant is right on every other row, and unsure where it is wrong: the cascade is always right.
    right, margins = np.ones((3, 2), np.bool_), np.ones((3, 2), np.float32)
    place = tuple(FIGURES).index("distilled")
    right[place, 1], margins[place, 1] = False, 0.4
    sheet = AnswerSheet(tuple(FIGURES), right, margins)
    plans = (Plan("distilled+full", "distilled", "full", 0.5, 0.5, 0.99),)
    plain = question()
    load = ask(np.arange(0.0, 40.0, 1.0), ((BUDGET_S, 1.0),), 5.0, 0, Kind())
    cascading = replace(plain, ladder=replace(ladder(), answers=sheet, plans=plans), tuning=(load,), judging=(load,))
    assert {"cascades", "cascade_margin_ratio"} <= {item.field for item in make_space(cascading).dimensions}

    def effective(**fields: object) -> tuple[float, float]:
        policy = ModelPolicy.model_validate({"cascades": True, "objective": "cost", "max_accuracy_loss": 0.0} | fields)
        figures = figures_of(play(cascading, policy, load, 0))
        return figures.accuracy, figures.cpu_s

    sure, unsure = effective(), effective(cascade_margin_ratio=0.5)
    assert sure[0] == 1.0
    assert unsure[0] == pytest.approx(0.5)
    assert unsure[1] < sure[1]


def test_the_gateway_is_sent_the_kinds_of_the_stretch() -> None:
    load = asked(ROWS).tuning[0]
    found = {(item.hardware, item.budget_ms, item.criticality, item.names_budget) for item in mix_of(load)}
    assert found == {
        ("phone", 20.0, "critical", True),
        ("phone", 30.0, "sheddable", True),
        ("", 7000.0, "normal", True),
        ("", 100.0, "normal", False),
    }
    assert sum(item.share for item in mix_of(load)) == 4
