"""Log lines of refusals under a flood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import InvalidRequest, Overloaded
from service.telemetry.logs import LOGGER
from service.telemetry.refusal_log import MOST_PER_S, RefusalLog

if TYPE_CHECKING:
    import pytest


def test_flood_is_logged_up_to_a_limit_and_then_told_by_number(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [100.0]
    log = RefusalLog(lambda: now_s[0])
    with caplog.at_level("WARNING", LOGGER.name):
        for _ in range(MOST_PER_S + 7):
            log.note("http", "id", Overloaded("full", 1.0))
        log.note("http", "id", InvalidRequest("another kind"))
        assert len(caplog.records) == MOST_PER_S + 1
        now_s[0] += 1.0
        log.note("http", "id", Overloaded("full", 1.0))
    told = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "refusals not logged"]
    assert told == [{"error": "Overloaded", "count": 7}]
    assert len(caplog.records) == MOST_PER_S + 3
