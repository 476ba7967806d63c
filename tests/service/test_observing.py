"""What a gateway tells of itself, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.departure import Departure
from service.domain.inference import Answer, Reason
from service.domain.policy_file import PolicyFile
from service.engine.policy_reader import default_policy
from service.observing import Observing
from service.settings import Settings, SettingsError
from tests.builders import make_model, make_request

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.01, 0.0, 0.01, 0.02, 0.1, budget_met=True, expected_accuracy=1)


def observing(settings: Settings) -> Observing:
    return Observing(settings, default_policy(), PolicyFile, ())


def test_policies_are_told_even_where_no_request_is_counted(tmp_path: Path) -> None:
    found = observing(Settings(repository=tmp_path, metrics=False))
    found.observer.model_loaded(make_model())
    found.observer.request_finished(make_request(), ANSWER)
    found.observer.policy_applied("another", ())
    found.observer.region_changed("sums", (Departure("rate", 9.0, 1.0, 2.0),))
    value = found.metrics.registry.get_sample_value
    answered = {"model": "sums", "variant": "full", "protocol": "http", "outcome": "ok"}
    assert value("tiergate_requests_total", answered) is None
    assert value("tiergate_policy_info", {"digest": "another"}) == 1.0
    assert value("tiergate_policy_region_left", {"model": "sums", "figure": "rate"}) == 1.0


def test_arrivals_are_recorded_and_lost_ones_counted(tmp_path: Path) -> None:
    found = observing(Settings(repository=tmp_path, record_arrivals=tmp_path / "arrivals"))
    assert found.arrivals is not None
    found.observer.request_finished(make_request(), ANSWER)
    assert len(found.arrivals.content("sums").splitlines()) == 2
    assert found.metrics.registry.get_sample_value("tiergate_arrivals_dropped_total") == 0.0
    found.arrivals.dropped = 3
    assert found.metrics.registry.get_sample_value("tiergate_arrivals_dropped_total") == 3.0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"record_arrivals .*file/arrivals cannot be made: Not a directory"):
        observing(Settings(repository=tmp_path, record_arrivals=tmp_path / "file" / "arrivals"))
