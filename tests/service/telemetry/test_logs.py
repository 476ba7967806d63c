from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.errors import InvalidRequest, TiergateError
from service.domain.inference import Answer, Reason
from service.telemetry.logs import LOGGER, LogObserver, log_event, log_refusal, set_up_logs
from tests.builders import make_model, make_request

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.01, 0.002, 0.010, 0.012345, 0.1, True, 0.92)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, own_level = root.handlers[:], root.level, LOGGER.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    LOGGER.setLevel(own_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_carry_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    log_event(logging.WARNING, "model loaded", model="sums", variants=["full"], note='a "quoted"\nline')
    (line,) = lines(capsys)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "event": "model loaded",
        "model": "sums",
        "variants": ["full"],
        "note": 'a "quoted"\nline',
    }


def test_json_lines_hold_whatever_a_field_is(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    log_event(logging.INFO, "odd", error=ValueError("x"), surrogate="\ud800")
    (line,) = lines(capsys)
    assert (line["error"], line["surrogate"]) == ("x", "\ud800")


def test_text_lines_are_one_line_each_with_quoted_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "text")
    log_event(logging.INFO, "request answered", id="a\nb", model="sums", empty="")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r'info    request answered id="a\nb" model=sums empty=""')


@pytest.mark.parametrize(("level", "events"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str], level: str, events: int) -> None:
    set_up_logs(level, "json")
    for number in (logging.DEBUG, logging.INFO, logging.WARNING):
        log_event(number, "something")
    assert len(lines(capsys)) == events


def test_libraries_are_heard_from_warnings_up(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("debug", "json")
    logging.getLogger("some.package").info("chatter")
    logging.getLogger("some.package").warning("trouble")
    assert [line["event"] for line in lines(capsys)] == ["trouble"]


def test_a_refusal_is_logged_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    log_refusal("http", "request-1", InvalidRequest("input 'x' is missing"))
    (line,) = lines(capsys)
    del line["time"]
    assert line == {
        "level": "warning",
        "event": "request refused",
        "protocol": "http",
        "id": "request-1",
        "error": "InvalidRequest",
        "message": "input 'x' is missing",
    }


def test_an_error_that_nobody_foresaw_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    log_refusal("grpc", "request-1", ZeroDivisionError("oh"))
    (line,) = lines(capsys)
    assert (line["level"], line["event"], line["error"]) == ("error", "request failed", "ZeroDivisionError")
    assert line["traceback"].endswith("ZeroDivisionError: oh")


def test_text_shows_a_traceback_below_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "text")
    log_refusal("grpc", "request-1", ZeroDivisionError("oh"))
    assert capsys.readouterr().err.endswith("error=ZeroDivisionError\nZeroDivisionError: oh\n")


@pytest.mark.parametrize(("access_log", "events"), [(False, 0), (True, 1)])
def test_answers_are_logged_where_asked_for(
    capsys: pytest.CaptureFixture[str], *, access_log: bool, events: int
) -> None:
    set_up_logs("info", "json")
    LogObserver(access_log=access_log).request_finished(make_request(), ANSWER)
    found = lines(capsys)
    assert len(found) == events
    assert not found or (found[0]["variant"], found[0]["reason"], found[0]["total_ms"]) == (
        "full",
        "within_budget",
        12.345,
    )


def test_models_and_failures_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    observer = LogObserver()
    observer.model_loaded(make_model())
    observer.variant_failed("sums", "full", "its digest differs")
    loaded, failed = lines(capsys)
    assert (loaded["event"], loaded["model"], loaded["variants"][0]) == ("model loaded", "sums", "full")
    assert (failed["level"], failed["variant"], failed["why"]) == ("error", "full", "its digest differs")


def test_a_request_that_is_refused_is_told_by_its_kind_not_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    log_refusal("http", "1", TiergateError("something"))
    assert [line["error"] for line in lines(capsys)] == ["TiergateError"]
