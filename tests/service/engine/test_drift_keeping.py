"""Predictions that wait for labels, and what a restart finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.domain.errors import NotSupported
from service.domain.verdicts import Label
from service.engine.drift.keeping import Keeping, KeepingSettings
from service.engine.drift.reports import report_of
from service.engine.drift.taps import KeptAnswer
from tests.drifting import write_winds
from tests.service.engine.watched import RIGHT, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "repository")


@pytest.fixture
def keeping(tmp_path: Path, watched: Watched) -> Iterator[Keeping]:
    made = Keeping(KeepingSettings(tmp_path / "kept.db"), lambda: watched.wall_s)
    made.open()
    yield made
    made.close()


def answer(watched: Watched, keeping: Keeping, request_id: str = "a", variant: str = "quantized") -> None:
    watched.watch.taps.kept.append(KeptAnswer(request_id, variant, RIGHT[0]))
    keeping.keep(watched.watch)


def counted(watched: Watched, variant: int = 2) -> int:
    labels = report_of(watched.watch, watched.shadows, has_store=True).variants[variant].labels
    return 0 if labels is None else labels.rows


def test_store_that_is_full_is_given_up_with_an_error_and_the_rest_goes_on(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = Keeping(KeepingSettings(tmp_path / "kept.db", most_bytes=2**17), lambda: 1000.0)
    keeping.open()
    assert keeping.share_of(watched.watch) == 1.0
    watched.watch.taps.kept.extend(KeptAnswer(f"request-{number}", "quantized", RIGHT[0]) for number in range(20_000))
    keeping.keep(watched.watch)
    assert not keeping.is_open
    assert keeping.share_of(watched.watch) == 0.0
    assert [record.getMessage() for record in caplog.records] == [
        "predictions are kept no more: labels cannot be joined"
    ]
    with pytest.raises(NotSupported, match="full"):
        keeping.join(watched.watch, [Label("request-1", (0,))])


def test_second_label_for_an_answer_is_not_counted_twice(watched: Watched, keeping: Keeping) -> None:
    answer(watched, keeping)
    for value in (0, "north", 1):
        assert keeping.join(watched.watch, [Label("a", (value,))]).joined == 1
    labels = report_of(watched.watch, watched.shadows, has_store=True).variants[2].labels
    assert labels is not None
    assert (labels.rows, labels.accuracy) == (1, 1.0)
    for values in ((0, 1), (4,), (-1,), ("up",), (True,)):
        assert keeping.join(watched.watch, [Label("a", tuple(values))]).unfit == ("a",)


def test_label_of_another_file_of_that_name_is_joined_and_not_counted(
    watched: Watched, keeping: Keeping, tmp_path: Path
) -> None:
    answer(watched, keeping)
    write_winds(tmp_path / "repository", wrong=("quantized",))
    watched.registry.load("winds")
    before, watched.watch = watched.watch, watched.begin()
    watched.watch.take_over(before)
    assert keeping.join(watched.watch, [Label("a", (0,))]).joined == 1
    assert counted(watched) == 0


def test_labels_of_the_time_before_a_fault_let_nothing_back(watched: Watched, keeping: Keeping) -> None:
    answer(watched, keeping, "before")
    watched.wall_s += 60.0
    watched.compare(30, agrees=False)
    assert watched.states[-1] == "quarantined"
    answer(watched, keeping, "after")
    assert keeping.join(watched.watch, [Label("before", (0,))]).joined == 1
    assert counted(watched) == 0
    keeping.join(watched.watch, [Label("after", (0,))])
    assert counted(watched) == 1


def test_labels_that_prove_a_drop_go_on_counting_towards_a_severe_one(watched: Watched, keeping: Keeping) -> None:
    for number in range(60):
        answer(watched, keeping, str(number))
    watched.wall_s += 3600.0  # they come late
    keeping.join(watched.watch, [Label(str(number), (1,)) for number in range(60)])
    assert watched.states[-1] == "quarantined"


def test_state_is_found_after_a_restart_for_the_same_file_only(
    watched: Watched, keeping: Keeping, tmp_path: Path
) -> None:
    watched.compare(30, agrees=False)
    watched.watch.act("pruned", "quarantine", "hand: a bad week")
    keeping.keep_states(watched.watch)
    assert watched.watch.unwritten() == []
    for wrong, found in (((), {"quantized", "pruned"}), (("quantized",), {"pruned"})):
        write_winds(tmp_path / "repository", wrong=wrong)
        watched.registry.load("winds")
        watched.watch = watched.begin()
        keeping.remember(watched.watch)
        assert watched.watch.verdicts().keys() == found
        assert watched.watch.watches["pruned"].standing.is_held
        assert "a bad week" in watched.watch.verdicts()["pruned"].why


def test_labels_of_predictions_that_have_expired_are_not_counted_after_a_restart(
    watched: Watched, tmp_path: Path
) -> None:
    keeping = Keeping(KeepingSettings(tmp_path / "kept.db", most_s=100.0), lambda: watched.wall_s)
    keeping.open()
    for request_id in ("old", "new"):
        answer(watched, keeping, request_id)
        keeping.join(watched.watch, [Label(request_id, (0,))])
        watched.wall_s += 60.0
    assert counted(watched) == 2
    watched.watch = watched.begin()
    keeping.remember(watched.watch)
    assert counted(watched) == 1
    keeping.close()


def test_store_that_could_not_be_opened_is_tried_again_after_a_minute(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = Keeping(KeepingSettings(tmp_path / "later" / "kept.db"), lambda: watched.wall_s)
    keeping.open()
    (tmp_path / "later").mkdir()
    watched.wall_s += 59.0
    assert not keeping.open_again()
    watched.wall_s += 2.0
    assert keeping.open_again()
    assert keeping.share_of(watched.watch) == 1.0
    with caplog.at_level("INFO"):
        answer(watched, keeping)
    assert [record.getMessage() for record in caplog.records] == [
        "predictions are kept no more: labels cannot be joined",
        "predictions are kept again",
    ]
    keeping.close()
