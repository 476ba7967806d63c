from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import InvalidRequest, ModelNotFound, Overloaded
from service.domain.inference import Answer, ClientHardware, Criticality, Knobs, Reason
from service.domain.policy_file import PolicyFile
from service.engine.arrival_log import HEADER, ArrivalLog
from tests.builders import make_request

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = Answer("full", "full", Reason.WITHIN_BUDGET, 0.01, 0.0, 0.01, 0.25, 0.1, budget_met=False, expected_accuracy=1)
ASKED = Knobs(
    budget_s=0.02, timeout_s=1.5, hardware=ClientHardware(class_name="mobile"), criticality=Criticality.SHEDDABLE
)


@pytest.fixture
def log(tmp_path: Path) -> ArrivalLog:
    return ArrivalLog(tmp_path / "arrivals", lambda: 100.0)


def rows(content: bytes) -> list[bytes]:
    assert content.startswith(HEADER)
    return content.removeprefix(HEADER).splitlines()


def test_arrivals_are_kept_with_what_was_asked_for(log: ArrivalLog) -> None:
    log.request_finished(make_request(knobs=ASKED), ANSWER)
    log.request_finished(make_request(), replace(ANSWER, total_s=0.5))
    assert rows(log.content("sums")) == [b"99.750000,20,1500,sheddable,mobile", b"99.500000,,,normal,"]


def test_refusals_for_load_are_arrivals_and_wrong_requests_are_not(log: ArrivalLog) -> None:
    log.request_refused(make_request(), Overloaded("full", 1.0), 1.0)
    log.request_refused(make_request(), InvalidRequest("wrong"), 0.0)
    log.request_refused(make_request(model="other"), ModelNotFound("none"), 0.0)
    assert rows(log.content("sums")) == [b"99.000000,,,normal,"]
    assert not rows(log.content("other"))


def test_a_described_device_is_a_hint_without_its_details(log: ArrivalLog) -> None:
    log.request_finished(make_request(knobs=Knobs(hardware=ClientHardware(memory_bytes=1e9))), ANSWER)
    assert rows(log.content("sums")) == [b"99.750000,,,normal,described"]


def test_a_described_device_is_kept_as_the_class_that_it_belongs_to(tmp_path: Path) -> None:
    log = ArrivalLog(tmp_path, lambda: 100.0, classes=lambda: PolicyFile().hardware_classes)
    log.request_finished(make_request(knobs=Knobs(hardware=ClientHardware(is_mobile=True))), ANSWER)
    assert rows(log.content("sums")) == [b"99.750000,,,normal,mobile"]


def test_files_are_bounded_and_the_newest_arrivals_stay(tmp_path: Path) -> None:
    log = ArrivalLog(tmp_path, lambda: 100.0, most_bytes=500)
    for number in range(100):
        log.request_finished(make_request(knobs=Knobs(budget_s=1 + number)), ANSWER)
        log.content("sums")
    kept = rows(log.content("sums"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 500
    assert kept == [b"99.750000,%d,,normal," % (1000 * (1 + number)) for number in range(100 - len(kept), 100)]
    assert len(kept) > 15


def test_a_recording_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        log = ArrivalLog(tmp_path, lambda: 100.0)
        log.start()
        log.request_finished(make_request(), ANSWER)
        log.close()
    assert len(rows(ArrivalLog(tmp_path, lambda: 0.0).content("sums"))) == 2


def test_a_disk_that_fails_ends_the_recording_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = ArrivalLog(tmp_path / "arrivals", lambda: 100.0)
    (tmp_path / "arrivals" / "sums.csv").mkdir()
    log.request_finished(make_request(), ANSWER)
    log.start()
    log.close()
    assert "not recorded in" in caplog.text
    log.request_finished(make_request(), ANSWER)
    assert log.dropped == 1
