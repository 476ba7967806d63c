from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http import trace_exporter

from service.telemetry.spans import OtlpSpans
from service.telemetry.sparing import EVERY_S, Sparing

if TYPE_CHECKING:
    import pytest


def test_one_line_of_a_level_passes_in_a_minute_and_the_next_tells_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s, logger = [5.0], logging.getLogger("tests.sparing")
    spares = Sparing(lambda: now_s[0])
    logger.addFilter(spares)
    for _ in range(3):
        logger.warning("gone: %s", "a collector")
    logger.error("failed")
    now_s[0] += EVERY_S
    logger.warning("gone: %s", "a collector")
    assert [record.getMessage() for record in caplog.records] == [
        "gone: a collector",
        "failed",
        "gone: a collector (2 more lines like it were left out)",
    ]
    logger.removeFilter(spares)


def test_the_exporter_of_traces_is_spared_once() -> None:
    for _ in range(2):
        OtlpSpans.to_collector("http://127.0.0.1:9").close(0.0)
    found = logging.getLogger(trace_exporter.__name__).filters
    assert [type(item) for item in found] == [Sparing]
