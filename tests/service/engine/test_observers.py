"""One observer that fails harms nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.observer import RunReport, SilentObserver
from service.engine.observers import Observers

if TYPE_CHECKING:
    import pytest

REPORT = RunReport("sums", "full", 1, 1, 0.0, 0.001, 0.0, 0.001)


class Failing(SilentObserver):
    """Raises when a run finishes."""

    def run_finished(self, report: RunReport) -> None:
        raise ValueError(report.model)


class Keeping(SilentObserver):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[RunReport] = []

    def run_finished(self, report: RunReport) -> None:
        self.reports.append(report)


def test_observers_hear_a_hook_and_the_log_names_the_one_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    keeping = Keeping()
    Observers((Failing(), keeping)).run_finished(REPORT)
    assert keeping.reports == [REPORT]
    assert "Failing failed in run_finished" in caplog.text
