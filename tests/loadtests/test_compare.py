from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests.compare import compare
from loadtests.document import Document
from loadtests.h2load import LoadError
from loadtests.outcome import judge, summarise
from loadtests.page import render_page
from loadtests.peak import Question, is_wrong_question, next_rate
from loadtests.peak import judge as judge_step
from loadtests.recording import Status
from loadtests.trial import read_document, requests_of
from tests.loadtests.recordings import KINDS, LABELS, recording, run_of

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.recording import Recording


def document(found: Recording) -> Document:
    return Document(
        scenario={"name": "<test>", "description": "", "model": "m", "protocol": "grpc", "arrivals": {}, "seed": 0},
        rate_hz=100.0,
        capacity_hz=None,
        lanes=None,
        inputs="random values",
        machine={"cpu": "test", "cores": 2, "system": "test"},
        date="2025-01-01T00:00:00+00:00",
        summary=summarise(run_of(found), KINDS, LABELS),
        requests=requests_of(judge(found, KINDS, LABELS), found.variants),
    )


def test_a_slower_run_of_one_schedule_is_clearly_slower() -> None:
    comparison = compare(document(recording()), document(recording(latency_s=0.006, seed=1)))
    lines = {line.figure: line for line in comparison.lines}
    assert comparison.is_paired
    assert not comparison.warnings
    assert lines["latency p50"].is_clear
    assert lines["latency p50"].ratio == pytest.approx(1.2, rel=0.02)
    ratio_low, ratio_high = lines["latency p50"].ratio_low, lines["latency p50"].ratio_high
    assert ratio_low is not None
    assert ratio_high is not None
    assert 1.1 < ratio_low < ratio_high < 1.3
    assert not lines["on time"].is_clear
    assert lines["on time"].difference == 0.0


def test_refusals_are_no_fast_answers() -> None:
    mixed, shed = recording(), recording()
    mixed.status[::2] = Status.SHED
    mixed.columns["done_s"][::2] = mixed.scheduled_s[::2]  # refused at once
    shed.status[:] = Status.SHED
    lines = {line.figure: line for line in compare(document(recording()), document(mixed)).lines}
    assert lines["latency p50"].ratio == pytest.approx(1.0, rel=0.05)
    assert not any("latency" in line.figure for line in compare(document(recording()), document(shed)).lines)


def test_a_saved_run_with_columns_of_different_lengths_is_none(tmp_path: Path) -> None:
    content = document(recording()).model_dump(mode="json")
    content["requests"]["row"] = content["requests"]["row"][:3]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LoadError, match=r"requests: .*columns need one length"):
        read_document(path)


def test_a_run_is_no_different_from_itself() -> None:
    same = document(recording())
    for line in compare(same, same).lines:
        assert (line.difference_low, line.difference_high, line.ratio) == (0.0, 0.0, 1.0)


def test_runs_of_different_schedules_are_not_paired_and_say_so() -> None:
    other = recording()
    other.rows = other.rows[::-1].copy()
    comparison = compare(document(recording()), document(other))
    assert not comparison.is_paired
    assert "one scenario and seed" in comparison.warnings[0]


def test_an_invalid_run_is_told() -> None:
    comparison = compare(document(recording()), document(recording(lag_s=0.01)))
    assert any(warning.startswith("B is invalid") for warning in comparison.warnings)


def test_the_document_survives_json() -> None:
    before = document(recording())
    assert Document.model_validate_json(before.model_dump_json()) == before


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    page = render_page(document(recording()))
    assert "<script" not in page
    assert "http" not in page.replace("over http", "")
    assert "<test>" not in page
    assert "Load test: &lt;test&gt;" in page
    for title in ("Latency", "Timeline", "Variants over time", "Accuracy", "Reliability of predictions", "Lane use"):
        assert f"<h2>{title}</h2><figure>" in page
    assert page.count("<svg") == 12


def test_the_page_of_an_invalid_run_says_so() -> None:
    assert "Do not use its figures" in render_page(document(recording(lag_s=0.01)))


@pytest.mark.parametrize(
    ("requests", "over", "verdict"),
    [
        (458, 0, "open"),
        (459, 0, "pass"),
        (600, 1, "open"),
        (662, 1, "pass"),
        (662, 7, "open"),
        (200, 9, "fail"),
        (2, 2, "fail"),
    ],
)
def test_a_step_ends_when_its_verdict_is_certain(requests: int, over: int, verdict: str) -> None:
    assert judge_step(requests, over) == verdict


@pytest.mark.parametrize("true_hz", [3.0, 70.0, 1234.0])
def test_the_search_ends_within_its_precision(true_hz: float) -> None:
    question = Question(start_hz=50.0, precision_ratio=0.05)
    passed, failed, steps = 0.0, None, 0
    while (rate_hz := next_rate(passed, failed, question)) is not None:
        steps += 1
        if rate_hz <= true_hz:
            passed = rate_hz
        else:
            failed = rate_hz
    assert failed is not None
    assert passed <= true_hz <= failed
    assert failed - passed <= 0.05 * failed
    assert steps < 20


@pytest.mark.parametrize(
    ("ends", "is_wrong"),
    [
        ([Status.INVALID, Status.INVALID], True),
        ([Status.SHED, Status.TIMED_OUT, Status.INVALID], True),  # a busy server reads few of them
        ([Status.OK, Status.INVALID], False),
        ([Status.SHED, Status.EXPIRED], False),
    ],
)
def test_what_is_asked_is_wrong_where_any_request_is_called_invalid_and_none_is_answered(
    ends: list[Status], is_wrong: bool
) -> None:
    assert is_wrong_question(np.array(ends, np.uint8)) is is_wrong
